"""Plain-Python twin of meshd._fast.coalesce."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from tests.reference.segment import GSO_TCP4, GSO_TCP6, GSO_UDP, NEEDS_CSUM, checksum, pseudo

MAX_PIECES = 64
ACK, PSH = 0x10, 0x08


@dataclass
class Item:
    packet: bytes
    protocol: int = 0  # 0: left alone
    ip: int = 0
    header: int = 0
    key: bytes = b""
    shape: bytes = b""
    sequence: int = 0
    push: bool = False
    verified: bool | None = None
    gso: int = 0
    payloads: list[bytes] = field(default_factory=list)

    @property
    def size(self) -> int:
        return sum(map(len, self.payloads))


def coalesce(packets: list[bytes], *, tcp: bool = True, udp: bool = True) -> list[tuple[bytes, bytes]]:
    items: list[Item] = []
    datagrams_from = 0
    for packet in packets:
        new = _classify(packet, tcp, udp)
        if new.protocol == 0 and _hides_datagram(packet):
            datagrams_from = len(items)
        if new.protocol == 0 or not _merge(items, new, datagrams_from):
            items.append(new)
    return [_written(item) for item in items]


def _classify(p: bytes, tcp: bool, udp: bool) -> Item:
    item = Item(p)
    if len(p) < 28:
        return item
    version = p[0] >> 4
    if version == 4:
        total, flags_offset = struct.unpack(">H2xH", p[2:8])
        if p[0] != 0x45 or total != len(p) or flags_offset & 0x3FFF:
            return item
        ip, protocol, addresses = 20, p[9], p[12:20]
        shape = bytes([p[1], p[8], p[6] & 0xE0])
    elif version == 6:
        if len(p) < 48 or int.from_bytes(p[4:6], "big") + 40 != len(p):
            return item
        ip, protocol, addresses = 40, p[6], p[8:40]
        shape = p[:4] + p[7:8]
    else:
        return item
    transport = p[ip:]
    if protocol == 6 and tcp and len(transport) >= 20:
        size = (transport[12] >> 4) * 4
        if size < 20 or size >= len(transport) or transport[13] & ~PSH != ACK or transport[12] & 15:
            return item
        item.key = b"t" + addresses + transport[:4] + transport[8:12]
        item.shape = shape + transport[14:16] + transport[20:size]
        item.sequence = int.from_bytes(transport[4:8], "big")
        item.push = bool(transport[13] & PSH)
    elif protocol == 17 and udp:
        size = 8
        alone = len(transport) <= 8 or int.from_bytes(transport[4:6], "big") != len(transport)
        if alone or transport[6:8] == b"\0\0":
            item.verified = False
        item.key = b"u" + addresses + transport[:4]
        item.shape = shape
    else:
        return item
    item.protocol, item.ip, item.header = protocol, ip, ip + size
    item.payloads = [p[ip + size :]]
    item.gso = len(item.payloads[0])
    return item


def _good(item: Item, packet: bytes) -> bool:
    return checksum(pseudo(packet, item.protocol, len(packet) - item.ip) + packet[item.ip :]) == 0


def _hides_datagram(p: bytes) -> bool:
    if p[0] >> 4 == 4:
        return len(p) >= 20 and p[9] == 17
    return p[0] >> 4 == 6 and len(p) >= 40 and p[6] not in (6, 58)


def _merge(items: list[Item], new: Item, datagrams_from: int) -> bool:
    if new.verified is False:
        return False
    for index, item in reversed(list(enumerate(items))):
        if item.protocol != new.protocol or item.key != new.key:
            continue
        if item.protocol == 17 and (index < datagrams_from or item.verified is False):
            return False
        where = _fit(item, new)
        if where is None:
            if item.protocol == 17:
                return False
            continue
        if item.verified is None:
            item.verified = _good(item, item.packet)
        if not item.verified:
            if item.protocol == 17:
                return False
            continue
        if not _good(new, new.packet):
            return False
        if where == "append":
            item.payloads.append(new.payloads[0])
            item.push |= new.push
        else:
            item.payloads.insert(0, new.payloads[0])
            item.packet, item.sequence, item.gso = new.packet, new.sequence, new.gso
        return True
    return False


def _fit(item: Item, new: Item) -> str | None:
    if item.shape != new.shape or item.header != new.header:
        return None
    if len(item.payloads) >= MAX_PIECES or item.header + item.size + new.size > 65535:
        return None
    if item.protocol == 17:
        return "append" if item.size % item.gso == 0 and new.size <= item.gso else None
    if new.sequence == (item.sequence + item.size) & 0xFFFFFFFF:
        return None if item.push or item.size % item.gso or new.size > item.gso else "append"
    if (new.sequence + new.size) & 0xFFFFFFFF == item.sequence:
        if new.push or new.size < item.gso or (new.size > item.gso and len(item.payloads) > 1):
            return None
        return "prepend"
    return None


def _written(item: Item) -> tuple[bytes, bytes]:
    if len(item.payloads) < 2:
        return bytes(10), item.packet
    head = bytearray(item.packet[: item.header])
    total = item.header + item.size
    if item.ip == 20:
        head[2:4] = struct.pack(">H", total)
        head[10:12] = b"\0\0"
        head[10:12] = struct.pack(">H", checksum(bytes(head[:20])))
    else:
        head[4:6] = struct.pack(">H", total - 40)
    partial = struct.pack(">H", ~checksum(pseudo(bytes(head), item.protocol, total - item.ip)) & 0xFFFF)
    if item.protocol == 6:
        head[item.ip + 13] |= PSH if item.push else 0
        head[item.ip + 16 : item.ip + 18] = partial
        kind, offset = GSO_TCP4 if item.ip == 20 else GSO_TCP6, 16
    else:
        head[item.ip + 4 : item.ip + 6] = struct.pack(">H", total - item.ip)
        head[item.ip + 6 : item.ip + 8] = partial
        kind, offset = GSO_UDP, 6
    header = struct.pack("=BBHHHH", NEEDS_CSUM, kind, item.header, item.gso, item.ip, offset)
    return header, bytes(head) + b"".join(item.payloads)
