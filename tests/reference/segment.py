"""Plain-Python twin of meshd._fast.segment."""

from __future__ import annotations

import struct

GSO_NONE, GSO_TCP4, GSO_UFO, GSO_TCP6, GSO_UDP, GSO_ECN = 0, 1, 3, 4, 5, 0x80
NEEDS_CSUM = 1
MAX_PIECES = 2048
MAX_HEADERS = 120


def checksum(data: bytes) -> int:
    """RFC 1071, complemented."""
    total = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def pseudo(packet: bytes, protocol: int, length: int) -> bytes:
    addresses = packet[12:20] if packet[0] >> 4 == 4 else packet[8:40]
    return addresses + struct.pack(">HH", protocol, length)


def split(vnet_header: bytes, packet: bytes) -> list[bytes] | None:
    """The packets, or None when header and packet contradict each other."""
    flags, gso_type, _, gso_size, start, offset = struct.unpack("=BBHHHH", vnet_header)
    if not 20 <= len(packet) <= 65535:
        return None
    kind = gso_type & ~GSO_ECN
    if kind == GSO_NONE:
        if not flags & NEEDS_CSUM:
            return [packet]
        at = start + offset
        if at + 2 > len(packet):
            return None
        value = checksum(packet[start:]) or 0xFFFF
        return [packet[:at] + struct.pack(">H", value) + packet[at + 2 :]]
    header = _header_bytes(kind, packet, start)
    if header is None or gso_size == 0 or header >= len(packet) or header + gso_size > 65535:
        return None
    payload = packet[header:]
    pieces = [payload[i : i + gso_size] for i in range(0, len(payload), gso_size)]
    if len(pieces) > MAX_PIECES or header > MAX_HEADERS:
        return None
    return [
        _piece(kind, packet[:header], start, piece, number, number * gso_size, number == len(pieces) - 1)
        for number, piece in enumerate(pieces)
    ]


def _header_bytes(kind: int, packet: bytes, start: int) -> int | None:
    version = packet[0] >> 4
    if version == 4:
        if kind == GSO_TCP6 or start < 20 or start != (packet[0] & 15) * 4:
            return None
    elif version != 6 or kind == GSO_TCP4 or start < 40:
        return None
    if kind == GSO_UDP:
        return start + 8
    if kind not in (GSO_TCP4, GSO_TCP6) or start + 20 > len(packet):
        return None
    size = (packet[start + 12] >> 4) * 4
    return start + size if size >= 20 else None


def _piece(kind: int, headers: bytes, start: int, payload: bytes, number: int, at: int, last: bool) -> bytes:
    ip, transport = bytearray(headers[:start]), bytearray(headers[start:])
    total = len(headers) + len(payload)
    if ip[0] >> 4 == 4:
        ident = (int.from_bytes(ip[4:6], "big") + number) & 0xFFFF
        ip[2:6] = struct.pack(">HH", total, ident)
        ip[10:12] = b"\0\0"
        ip[10:12] = struct.pack(">H", checksum(bytes(ip)))
    else:
        ip[4:6] = struct.pack(">H", total - 40)
    if kind == GSO_UDP:
        transport[4:6] = struct.pack(">H", total - start)
        field, protocol = 6, 17
    else:
        sequence = (int.from_bytes(transport[4:8], "big") + at) & 0xFFFFFFFF
        transport[4:8] = struct.pack(">I", sequence)
        if not last:
            transport[13] &= ~0x09  # FIN, PSH
        if number:
            transport[13] &= ~0x80  # CWR
        field, protocol = 16, 6
    transport[field : field + 2] = b"\0\0"
    value = checksum(pseudo(bytes(ip), protocol, total - start) + bytes(transport) + payload) or 0xFFFF
    transport[field : field + 2] = struct.pack(">H", value)
    return bytes(ip + transport) + payload


def padded(length: int, mtu: int = 0) -> int:
    """Plaintext bytes of a packet: padded to 16, but not beyond the MTU."""
    if not mtu:
        return -(-length // 16) * 16
    last = length % mtu if length > mtu else length
    return length - last + min(-(-last // 16) * 16, mtu)
