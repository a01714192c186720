"""Packets to and from via addresses with right checksums, and the fast translation beside its plain twin."""

from __future__ import annotations

import struct

from meshd._fast.via import Via
from meshd._fast.viaflow import ViaFlows
from tests.reference import via as twin
from tests.reference.packet import checksum, parse
from tests.unit.fast import offload

PEER4, PEER6 = bytes([100, 64, 0, 5]), bytes.fromhex("fd7a115ca1e0") + bytes(9) + b"\5"
OWN4, OWN6 = bytes([100, 64, 0, 1]), bytes.fromhex("fd7a115ca1e0") + bytes(9) + b"\1"
HOST, ROUTER, ELSEWHERE = bytes([10, 1, 2, 3]), bytes([10, 1, 2, 1]), bytes([192, 0, 2, 9])
PLAIN = bytes(10)

FIN, SYN, RST, ACK = 1, 2, 4, 16
DF, MF = 0x4000, 0x2000
NEEDS_CSUM = 1


def address(site: int, host: bytes = HOST) -> bytes:
    return twin.PREFIX + site.to_bytes(4, "big") + host


ROUTES = [(address(7, bytes([10, 1, 2, 0])), 120), (address(8, bytes([10, 1, 2, 0])), 120)]


def routed(low: bytes) -> bool:
    return low[:7] in (b"\0\0\0\7\x0a\1\2", b"\0\0\0\x08\x0a\1\2")


def translator(**options: object) -> Via:
    return Via(ROUTES, own=[OWN4, OWN6], flows=ViaFlows(seed=1), **options)  # type: ignore[arg-type]


def reference() -> twin.Via:
    return twin.Via(routed, OWN4, OWN6)


def summed(packet: bytes) -> bytes:
    """With the transport checksum filled in, and that of an IPv4 header."""
    if packet[0] >> 4 == 4:
        size = (packet[0] & 15) * 4
        packet = packet[:10] + bytes(2) + packet[12:]
        packet = packet[:10] + checksum(packet[:size]).to_bytes(2, "big") + packet[12:]
    packet = twin.without_sum(packet)
    info, off = parse(packet), twin.residue(packet)
    assert not isinstance(info, str)
    if off is None:
        return packet
    at = info.l4_offset + {6: 16, 17: 6}.get(info.proto, 2)
    return packet[:at] + ((~off & 0xFFFF) or 0xFFFF).to_bytes(2, "big") + packet[at + 2 :]


def v6(
    proto: int, body: bytes, src: bytes = PEER6, dst: bytes = address(7), *, hops: int = 60, tclass: int = 0
) -> bytes:
    return summed(twin.header6(tclass, len(body), proto, hops, src, dst) + body)


def v4(
    proto: int,
    body: bytes,
    src: bytes = HOST,
    dst: bytes = PEER4,
    *,
    bits: int = 0,
    ident: int = 99,
    tos: int = 0,
    ttl: int = 61,
    options: bytes = b"",
) -> bytes:
    head = bytearray(twin.header4(tos, len(options) + len(body), ident, bits, ttl, proto, src, dst))
    head[0] += len(options) // 4
    return summed(bytes(head) + options + body)


def tcp(sport: int, dport: int, flags: int = 0x10, data: bytes = b"", options: bytes = b"") -> bytes:
    size = 20 + len(options)
    return struct.pack("!HHIIBBHHH", sport, dport, 1, 2, size // 4 << 4, flags, 512, 0, 0) + options + data


def udp(sport: int, dport: int, data: bytes = b"") -> bytes:
    return struct.pack("!HHHH", sport, dport, 8 + len(data), 0) + data


def icmp(kind: int, rest: int, data: bytes = b"", code: int = 0) -> bytes:
    return struct.pack("!BBHI", kind, code, 0, rest) + data


def echo(kind: int, ident: int, data: bytes = b"ping") -> bytes:
    return icmp(kind, ident << 16 | 1, data)


def fragment6(
    proto: int, offset: int, part: bytes, *, more: bool, ident: int = 0x12345, dst: bytes = address(7)
) -> bytes:
    """Not summed: the checksum is one of the whole."""
    head = struct.pack("!BBHI", proto, 0, offset | more, ident)
    return twin.header6(0, 8 + len(part), 44, 60, PEER6, dst) + head + part


def conversations() -> list[list[bytes]]:
    """By protocol: what the peer sends, what the host answers, and what either may have to say of that."""
    out = []
    for site in (7, 8):
        for proto, ask, answer in (
            (6, tcp(4000, 80, 2, options=b"\2\4\5\xb4"), tcp(80, 4000, 0x12, options=b"\2\4\5\xb4")),
            (6, tcp(4000, 80, 0x10, b"x" * 70), tcp(80, 4000, 0x11, b"y" * 1230)),
            (17, udp(4000, 53, b"x" * 70), udp(53, 4000, b"y" * 1230)),
            (58, echo(128, 4000), echo(0, 4000)),
        ):
            there, other = v6(proto, ask, dst=address(site)), 1 if proto == 58 else proto
            back = v4(other, answer)
            about = v4(other, bytes((8,)) + ask[1:] if proto == 58 else ask, PEER4, HOST)
            of_it = v6(proto, bytes((129,)) + answer[1:] if proto == 58 else answer, address(site), PEER6)
            out.append(
                [
                    there,
                    back,
                    v4(other, answer, bits=0x4000),
                    v4(other, answer, bits=0x2000),
                    v4(other, answer[8:40], bits=157),
                    *(v4(1, icmp(kind, 0, about[:60], code), src=ROUTER) for kind, code in ((3, 1), (3, 4), (11, 0))),
                    *(v6(58, icmp(kind, 1280, of_it[:90]), dst=address(site)) for kind in (1, 2, 3)),
                    fragment6(proto, 0, there[40:], more=True, dst=address(site)),
                    fragment6(proto, 1232, bytes(40), more=False, dst=address(site)),
                ]
            )
    return out


def check_in(fast: Via, slow: twin.Via, packet: bytes, *, ipv4: bytes = PEER4, now: float = 0.0) -> tuple[str, bytes]:
    """One packet of the peer by both; the fast one's answer."""
    found, wanted = fast.inbound(packet, ipv4, now=now), slow.inbound(packet, ipv4, now=now)
    assert found[0] == wanted[0]
    if found[0] == "done":
        assert masked(found[1]) == masked(wanted[1])
        assert checksum(found[1][:20]) == 0
        before, after = twin.residue(packet), twin.residue(found[1])
        assert after in (None, 0 if _is_error(found[1]) else before)
    else:
        assert found[1] == packet
    return found


def check_out(fast: Via, slow: twin.Via, packet: bytes, *, now: float = 0.0) -> tuple[str, list[bytes]]:
    """One packet of the host by both."""
    found, wanted = fast.outbound(packet, now=now), slow.outbound(packet, now=now)
    result, made = found[0], [made for _, made in found[1]]
    assert result == wanted[0]
    if result == "whole":
        assert masked(made[0]) == masked(wanted[1][0])
        info = parse(packet)
        assert not isinstance(info, str)
        fresh = _is_error(made[0]) or (info.proto == 17 and info.l4[6:8] == bytes(2))
        assert twin.residue(made[0]) in (None, 0 if fresh else twin.residue(packet))
    elif result == "parts":
        # The sum is in the first one, the twin has none.
        assert [part[:48] for part in made] == [part[:48] for part in wanted[1]]
        assert b"".join(part[48:] for part in made)[20:] == b"".join(part[48:] for part in wanted[1])[20:]
    return result, made


def masked(packet: bytes) -> bytes:
    """Without the transport checksum, and that of what an ICMP error quotes."""
    packet = twin.without_sum(packet)
    if not _is_error(packet):
        return packet
    start, size, at = (28, 20, 9) if packet[0] >> 4 == 4 else (48, 40, 6)
    at = start + size + {6: 16, 17: 6}.get(packet[start + at], 2)
    return packet[:at] + bytes(len(packet[at : at + 2])) + packet[at + 2 :]


def _is_error(packet: bytes) -> bool:
    info = parse(packet)
    assert not isinstance(info, str)
    return (info.proto, info.icmp_type) in {(1, 3), (1, 11), (1, 12), (58, 1), (58, 2), (58, 3), (58, 4)}


def good(packet: bytes) -> bool:
    """Whether all checksums are right."""
    return twin.residue(packet) in (0, None) and (packet[0] >> 4 == 6 or checksum(packet[:20]) == 0)


def enter(via: Via, packet: bytes, *, now: float = 0.0, peer: int = 0) -> bytes:
    """A packet of the peer that must be translated."""
    result, made = via.inbound(packet, PEER4, now=now, peer=peer)
    assert result == "done"
    return made


def leave(via: Via, packet: bytes, *, now: float = 0.0) -> bytes:
    """An answer that must come back in one piece."""
    result, made = via.outbound(packet, now=now)
    assert result == "whole"
    assert made[0][0] == PLAIN
    return made[0][1]


def told(via: Via, packet: bytes, *, now: float = 0.0) -> str:
    """What becomes of a packet from the host."""
    return via.outbound(packet, now=now)[0]


def super_answer(proto: int, size: int, gso: int, options: bytes = b"") -> tuple[bytes, bytes]:
    data = bytes(range(256)) * (size // 256 + 1)
    body = tcp(80, 4000, ACK, data[:size], options) if proto == 6 else udp(53, 4000, data[:size])
    packet = v4(proto, body, bits=DF)
    at = 36 if proto == 6 else 26
    partial = ~checksum(packet[12:20] + struct.pack("!HH", proto, len(body))) & 0xFFFF
    packet = packet[:at] + partial.to_bytes(2, "big") + packet[at + 2 :]
    return offload.vnet(NEEDS_CSUM, 1 if proto == 6 else 5, 54, gso, 20, at - 20), packet
