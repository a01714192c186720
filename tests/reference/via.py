"""Plain-Python twin of meshd._fast.via: packets are taken apart and written anew, flows are a dictionary.

It writes no transport and ICMP checksum: those are zero here, and `residue` tells whether the real one is right. It
forgets no flow for want of room.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.reference import segment
from tests.reference.packet import FRAGMENT, PacketInfo, checksum, parse

PREFIX = bytes.fromhex("fd7a115ca1e00b1a")
TCP, UDP, ICMP4, ICMP6 = 6, 17, 1, 58
DF, MF = 0x4000, 0x2000
OPEN, OTHER, DATAGRAMS, ECHO, PARTS = 6935, 224, 280, 56, 14
PLATEAUS = (65535, 32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68)

Key = tuple[bytes, bytes, int, int, int]
Owner = tuple[bytes, bytes, int]  # IPv6 source, site, port


@dataclass
class Flow:
    owner: Owner
    deadline: int
    marks: set[str] = field(default_factory=set)

    @property
    def closed(self) -> bool:
        return "reset" in self.marks or self.marks >= {"peer", "host"}


def residue(packet: bytes) -> int | None:
    """What the transport checksum of a whole packet is off by; None for one without."""
    info = parse(packet)
    assert isinstance(info, PacketInfo)
    at = {TCP: 16, UDP: 6, ICMP4: 2, ICMP6: 2}.get(info.proto)
    if at is None or at + 2 > len(info.l4):
        return None
    pseudo = b"" if info.version == 4 and info.proto == ICMP4 else _pseudo(info)
    return (checksum(pseudo + info.l4) ^ 0xFFFF) % 0xFFFF


def without_sum(packet: bytes) -> bytes:
    """The packet with its transport checksum zeroed."""
    info = parse(packet)
    assert isinstance(info, PacketInfo)
    at = {TCP: 16, UDP: 6, ICMP4: 2, ICMP6: 2}.get(info.proto)
    if at is None or at + 2 > len(info.l4):
        return packet
    at += info.l4_offset
    return packet[:at] + bytes(2) + packet[at + 2 :]


def _pseudo(info: PacketInfo) -> bytes:
    return info.src + info.dst + struct.pack("!IHBB", len(info.l4), 0, 0, info.proto)


def header4(tos: int, size: int, ident: int, bits: int, ttl: int, proto: int, src: bytes, dst: bytes) -> bytes:
    made = struct.pack("!BBHHHBBH", 0x45, tos, (20 + size) & 0xFFFF, ident, bits, ttl, proto, 0) + src + dst
    return made[:10] + checksum(made).to_bytes(2, "big") + made[12:]


def header6(tclass: int, size: int, proto: int, hops: int, src: bytes, dst: bytes) -> bytes:
    return struct.pack("!IHBB", 6 << 28 | tclass << 20, size & 0xFFFF, proto, hops) + src + dst


def tclass(packet: bytes) -> int:
    return int.from_bytes(packet[:2], "big") >> 4 & 0xFF


def _with(l4: bytes, at: int, value: int) -> bytes:
    return l4[:at] + value.to_bytes(2, "big") + l4[at + 2 :]


def clamped(tcp: bytes, most: int) -> bytes:
    at, end = 20, (tcp[12] >> 4) * 4
    while end <= len(tcp) and at + 4 <= end and tcp[at] != 0:
        if tcp[at] == 1:
            at += 1
        elif tcp[at] == 2:
            small = tcp[at + 1] == 4 and int.from_bytes(tcp[at + 2 : at + 4], "big") > most
            return _with(tcp, at + 2, most) if small else tcp
        elif tcp[at + 1] < 2:
            break
        else:
            at += tcp[at + 1]
    return tcp


def error_to_4(message: bytes, most: int) -> bytes | None:
    kind, code = message[0], message[1]
    rest = int.from_bytes(message[4:8], "big")
    if kind == 1 and code <= 4:
        return bytes((3, (1, 10, 1, 1, 3)[code])) + bytes(6)
    if kind == 2:
        return bytes((3, 4, 0, 0)) + min(max(rest - 20, 68), most).to_bytes(4, "big")
    if kind == 3 and code < 2:
        return bytes((11, code)) + bytes(6)
    if kind == 4 and code == 1:
        return bytes((3, 2)) + bytes(6)
    pointers = {
        0: 0,
        1: 1,
        4: 2,
        5: 2,
        6: 9,
        7: 8,
        **dict.fromkeys(range(8, 24), 12),
        **dict.fromkeys(range(24, 40), 16),
    }
    if kind == 4 and code == 0 and rest in pointers:
        return bytes((12, 0, 0, 0, pointers[rest])) + bytes(3)
    return None


def error_to_6(message: bytes, quoted: int, most: int) -> bytes | None:
    kind, code = message[0], message[1]
    if kind == 3 and code == 2:
        return bytes((4, 1)) + bytes(2) + (6).to_bytes(4, "big")
    if kind == 3 and code == 4:
        said = int.from_bytes(message[6:8], "big") or next((size for size in PLATEAUS if size < quoted), 68)
        return bytes((2, 0, 0, 0)) + min(max(said + 20, 1280), most).to_bytes(4, "big")
    codes = {**dict.fromkeys((0, 1, 5, 6, 7, 8, 11, 12), 0), 3: 4, **dict.fromkeys((9, 10, 13, 15), 1)}
    if kind == 3 and code in codes:
        return bytes((1, codes[code])) + bytes(6)
    if kind == 11 and code < 2:
        return bytes((3, code)) + bytes(6)
    pointers = {
        0: 0,
        1: 1,
        2: 4,
        3: 4,
        8: 7,
        9: 6,
        **dict.fromkeys(range(12, 16), 8),
        **dict.fromkeys(range(16, 20), 24),
    }
    if kind == 12 and code in (0, 2) and message[4] in pointers:
        return bytes((4, 0, 0, 0)) + pointers[message[4]].to_bytes(4, "big")
    return None


class Via:
    """Like meshd._fast.via.Via; ``routed`` answers whether a route to the last 8 bytes is offered."""

    def __init__(self, routed: Callable[[bytes], bool], own4: bytes = b"", own6: bytes = b"") -> None:
        self.routed = routed
        self.own4, self.own6 = own4, own6
        self.flows: dict[Key, Flow] = {}

    def live(self, key: Key, tick: int) -> Flow | None:
        flow = self.flows.get(key)
        return flow if flow is not None and flow.deadline >= tick else None

    @staticmethod
    def _age(key: Key, flow: Flow, tick: int) -> None:
        if key[2] >= 256:
            idle = PARTS
        elif key[2] == TCP:
            idle = OPEN if "answered" in flow.marks and not flow.closed else OTHER
        else:
            idle = DATAGRAMS if key[2] == UDP else ECHO
        flow.deadline = tick + idle

    def _ports(self, key: Key) -> list[Key]:
        host, peer, proto, port, other = key
        ports = [port, *(1024 + (port + step * 7919) % (65536 - 1024) for step in range(1, 8))]
        return [(host, peer, proto, made, other) for made in ports]

    def claim(self, key: Key, owner: Owner, flags: int, tick: int) -> int | None:
        """The port that the host sees."""
        keys = self._ports(key)
        known = [k for k in keys if (flow := self.live(k, tick)) is not None and flow.owner == owner]
        free = [k for k in keys if self.live(k, tick) is None]
        if not known and not free:
            return None
        if not known:
            self.flows[free[0]] = Flow(owner, 0)
        taken = (known or free)[0]
        flow = self.flows[taken]
        if flow.closed and flags & 0x12 == 2:
            flow.marks.clear()
        else:
            flow.marks |= ({"peer"} if flags & 1 else set()) | ({"reset"} if flags & 4 else set())
        self._age(taken, flow, tick)
        return taken[3]

    # -- from the peer

    def inbound(
        self, packet: bytes, ipv4: bytes, *, mtu: int = 1280, now: float = 0.0, ident: int = 0
    ) -> tuple[str, bytes]:
        info, tick = parse(packet), int(now * 1e9) >> 30
        assert isinstance(info, PacketInfo)
        if info.version != 6 or info.dst[:8] != PREFIX or not self.routed(info.dst[8:]):
            return "other", packet
        made = self._inbound(packet, info, ipv4, mtu, tick, ident)
        return (made, packet) if isinstance(made, str) else ("done", made)

    def _inbound(self, packet: bytes, info: PacketInfo, ipv4: bytes, mtu: int, tick: int, ident: int) -> bytes | str:
        host, site = info.dst[12:], info.dst[8:12]
        if not any(ipv4):
            return "no_ipv4"
        if host[0] in (0, 127) or host[0] >= 224 or (host[:2] == b"\xa9\xfe" and host[2:] != b"\xa9\xfe"):
            return "refused"
        if host == self.own4 or len(info.l4) + 20 > 65535:
            return "refused"
        if info.proto == ICMP6 and 1 <= info.icmp_type <= 4 and packet[6] == ICMP6:
            return self._error_in(packet, info, ipv4, mtu, tick, ident)
        proto, l4 = info.proto, info.l4
        number, bits = ident, 0 if len(l4) + 20 <= 1260 else DF
        parts = False
        if packet[6] == 44:
            if len(packet) < 48 or info.l4_offset < 48:
                return "refused"
            value = int.from_bytes(packet[42:44], "big")
            if value & 0xFFF9:
                parts, number, bits = True, int.from_bytes(packet[46:48], "big"), value >> 3 | (MF if value & 1 else 0)
            if proto == FRAGMENT and packet[40] in (TCP, UDP):
                return header4(tclass(packet), len(l4), number, bits, packet[7], packet[40], ipv4, host) + l4
        if proto == ICMP6 and info.icmp_type == 129:
            return "no_flow"
        if proto == ICMP6 and info.icmp_type == 128 and len(l4) >= 8 and not parts:
            port = self.claim((host, ipv4, ICMP4, info.icmp_id, 0), (info.src, site, info.icmp_id), 0, tick)
            if port is None:
                return "no_port"
            l4 = bytes((8, l4[1])) + l4[2:4] + port.to_bytes(2, "big") + l4[6:]
            return without_sum(header4(tclass(packet), len(l4), number, bits, packet[7], ICMP4, ipv4, host) + l4)
        if proto not in (TCP, UDP) or (proto == UDP and l4[6:8] == bytes(2)):
            return "refused"
        key = (host, ipv4, proto, info.src_port, info.dst_port)
        port = self.claim(key, (info.src, site, info.src_port), info.tcp_flags, tick)
        if port is None:
            return "no_port"
        l4 = _with(l4, 0, port)
        if proto == TCP and info.tcp_flags & 2:
            l4 = clamped(l4, mtu - 60)
        return without_sum(header4(tclass(packet), len(l4), number, bits, packet[7], proto, ipv4, host) + l4)

    def _error_in(self, packet: bytes, info: PacketInfo, ipv4: bytes, mtu: int, tick: int, ident: int) -> bytes | str:
        if len(info.l4) < 56:
            return "refused"
        head, quoted = error_to_4(info.l4, mtu - 20), info.l4[8:]
        if head is None or quoted[0] >> 4 != 6 or quoted[8:24] != info.dst:
            return "refused"
        size, proto, l4 = int.from_bytes(quoted[4:6], "big"), quoted[6], quoted[40:]
        number, bits, parts = ident, 0 if size + 20 <= 1260 else DF, False
        if proto == 44:
            value = int.from_bytes(l4[2:4], "big")
            if len(l4) < 16 or size < 8 or value & 0xFFF8:
                return "no_flow"
            parts = value & 1 != 0
            if parts:
                number, bits = int.from_bytes(l4[6:8], "big"), MF
            proto, l4, size = l4[0], l4[8:], size - 8
        host, owner = info.dst[12:], quoted[24:40]
        if proto in (TCP, UDP):
            other, port = struct.unpack("!HH", l4[:4])
        elif proto == ICMP6 and l4[0] == 129 and not parts:
            proto, other, port = ICMP4, 0, int.from_bytes(l4[4:6], "big")
        else:
            return "no_flow"
        keys = self._ports((host, ipv4, proto, port, other))
        wanted = (owner, info.dst[8:12], port)
        known = [k for k in keys if (flow := self.live(k, tick)) is not None and flow.owner == wanted]
        if not known:
            return "no_flow"
        l4 = _with(bytes((0,)) + l4[1:], 4, known[0][3]) if proto == ICMP4 else _with(l4, 2, known[0][3])
        inner = header4(tclass(quoted), size, number, bits, quoted[7], proto, host, ipv4)
        body = head + inner + l4
        return without_sum(header4(tclass(packet), len(body), ident, 0, packet[7], ICMP4, ipv4, host) + body)

    # -- from the host

    def outbound(
        self, packet: bytes, vnet: bytes = bytes(10), *, mtu: int = 1280, now: float = 0.0
    ) -> tuple[str, list[bytes]]:
        """Packets of super packets and with whole checksums are compared by the test, not made here."""
        info, tick = parse(packet), int(now * 1e9) >> 30
        assert isinstance(info, PacketInfo)
        if info.version != 4:
            return "plain", []
        packet = packet[: info.total_bytes]
        value = int.from_bytes(packet[6:8], "big")
        parts, l4, proto = value & 0x3FFF != 0, info.l4 or packet[info.l4_offset :], info.proto
        if proto == ICMP4 and info.icmp_type in (3, 11, 12):
            return self._error_out(packet, info, mtu, tick)
        if proto == ICMP4 and info.icmp_type == 0 and len(l4) >= 8:
            key = (info.src, info.dst, ICMP4, info.icmp_id, 0)
        elif proto == FRAGMENT:
            key = (info.src, info.dst, 256 + packet[9], int.from_bytes(packet[4:6], "big"), 0)
        elif proto in (TCP, UDP):
            key = (info.src, info.dst, proto, info.dst_port, info.src_port)
        else:
            return "plain", []
        flow = self.live(key, tick)
        if flow is None:
            return "plain", []
        if proto != FRAGMENT:
            flow.marks |= {"answered"} | ({"host"} if info.tcp_flags & 1 else set())
            flow.marks |= {"reset"} if info.tcp_flags & 4 else set()
            self._age(key, flow, tick)
        owner, site, port = flow.owner
        if not self.routed(site + info.src):
            return "plain", []
        if _source_routed(packet[20 : info.l4_offset]):
            return "refused", []
        size = len(l4) + 40 + (8 if parts else 0)
        if size > mtu and value & DF:
            return "too_big", []
        divided = parts or size > mtu
        offset = (value & 0x1FFF) * 8
        if divided and (not l4 or (value & MF and len(l4) % 8) or offset + len(l4) > 65535):
            return "refused", []
        if parts and (proto == ICMP4 or (proto == UDP and l4[6:8] == bytes(2))):
            return "refused", []
        source = PREFIX + site + info.src
        if proto == ICMP4:
            l4, proto = _with(bytes((129,)) + l4[1:], 4, port), ICMP6
        elif proto in (TCP, UDP):
            l4 = _with(l4, 2, port)
            if proto == TCP and info.tcp_flags & 2:
                l4 = clamped(l4, mtu - 60)
            if parts:
                self.flows[(info.src, info.dst, 256 + proto, int.from_bytes(packet[4:6], "big"), 0)] = Flow(
                    flow.owner, tick + PARTS
                )
        else:
            proto = packet[9]
        if not divided:
            return "whole", [without_sum(header6(packet[1], len(l4), proto, packet[8], source, owner) + l4)]
        most, made = (mtu - 48) // 8 * 8, []
        for at in range(0, len(l4), most):
            more = at + most < len(l4) or value & MF != 0
            part = l4[at : at + most]
            made.append(
                header6(packet[1], len(part) + 8, 44, packet[8], source, owner)
                + struct.pack("!BBHI", proto, 0, offset + at | more, int.from_bytes(packet[4:6], "big"))
                + part
            )
        return "parts", made

    def _error_out(self, packet: bytes, info: PacketInfo, mtu: int, tick: int) -> tuple[str, list[bytes]]:
        quoted = info.l4[8:]
        if len(quoted) < 28 or quoted[0] >> 4 != 4 or int.from_bytes(packet[6:8], "big") & MF:
            return "plain", []
        header, kind, host = (quoted[0] & 15) * 4, quoted[9], quoted[16:20]
        l4 = quoted[header:]
        if header < 20 or len(quoted) < header + 8 or int.from_bytes(quoted[6:8], "big") & 0x1FFF:
            return "plain", []
        if kind == ICMP4 and l4[0] == 8:
            key = (host, quoted[12:16], kind, int.from_bytes(l4[4:6], "big"), 0)
        elif kind in (TCP, UDP):
            key = (host, quoted[12:16], kind, *struct.unpack("!HH", l4[:4]))
        else:
            return "plain", []
        flow = self.live(key, tick)
        if flow is None or quoted[12:16] != info.dst or not self.routed(flow.owner[1] + host):
            return "plain", []
        total = int.from_bytes(quoted[2:4], "big")
        head = error_to_6(info.l4, total, mtu)
        if head is None or total < header + 8:
            return "refused", []
        owner, site, port = flow.owner
        l4 = _with(bytes((128,)) + l4[1:], 4, port) if kind == ICMP4 else _with(l4, 0, port)
        inner = header6(
            quoted[1], total - header, ICMP6 if kind == ICMP4 else kind, quoted[8], owner, PREFIX + site + host
        )
        body = head + inner + l4[: 1280 - 88]
        source = PREFIX + site + info.src
        if not self.routed(source[8:]):
            source = self.own6 or PREFIX + site + host
        return "whole", [without_sum(header6(packet[1], len(body), ICMP6, packet[8], source, owner) + body)]


def _source_routed(options: bytes) -> bool:
    at = 0
    while at + 3 <= len(options) and options[at]:
        if options[at] == 1:
            at += 1
        elif options[at] in (0x83, 0x89):
            return options[at + 2] <= options[at + 1]
        elif options[at + 1] < 2:
            return True
        else:
            at += options[at + 1]
    return False


def pieces(vnet: bytes, packet: bytes) -> list[bytes]:
    """A super packet as it is cut, or the packet with its checksum completed."""
    made = segment.split(vnet, packet)
    assert made is not None
    return made
