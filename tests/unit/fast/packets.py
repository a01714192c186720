"""Builders and a hypothesis strategy for IP packets, good and bad."""

from __future__ import annotations

import struct

from hypothesis import strategies as st

A4, B4 = bytes([100, 64, 0, 1]), bytes([100, 64, 0, 2])
A6, B6 = bytes.fromhex("fd7a115ca1e0") + bytes(9) + b"\1", bytes.fromhex("fd7a115ca1e0") + bytes(9) + b"\2"


def ipv4(proto: int, body: bytes, src: bytes = A4, dst: bytes = B4, fragment: int = 0) -> bytes:
    return struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 0, fragment, 64, proto, 0, src, dst) + body


def ipv6(proto: int, body: bytes, src: bytes = A6, dst: bytes = B6) -> bytes:
    return struct.pack("!IHBB16s16s", 6 << 28, len(body), proto, 64, src, dst) + body


def ip(proto: int, body: bytes, src: bytes, dst: bytes) -> bytes:
    return ipv4(proto, body, src, dst) if len(src) == 4 else ipv6(proto, body, src, dst)


def tcp(sport: int, dport: int, flags: int = 0x02) -> bytes:
    return struct.pack("!HHIIBBHHH", sport, dport, 0, 0, 0x50, flags, 0, 0, 0)


def udp(sport: int, dport: int, body: bytes = b"") -> bytes:
    return struct.pack("!HHHH", sport, dport, 8 + len(body), 0) + body


def sctp(sport: int, dport: int) -> bytes:
    return struct.pack("!HHII", sport, dport, 0, 0)


def icmp(kind: int, code: int = 0, ident: int = 7) -> bytes:
    return struct.pack("!BBHHH", kind, code, 0, ident, 1)


@st.composite
def packets(draw: st.DrawFn) -> bytes:
    """Mostly well-formed packets of every protocol the parser knows; some with a wrong byte or bytes missing."""
    proto = draw(st.sampled_from([1, 2, 6, 17, 58, 99, 132, 44, 0, 255]))
    ports = st.integers(0, 0xFFFF)
    body = draw(
        st.one_of(
            st.builds(tcp, ports, ports, st.integers(0, 255)),
            st.builds(udp, ports, ports, st.binary(max_size=8)),
            st.builds(icmp, st.integers(0, 255), st.integers(0, 2), ports),
            st.binary(max_size=24),
        )
    )
    if draw(st.booleans()):
        fragment = draw(st.sampled_from([0, 0, 0, 0x4000, 0x2000, 1, 9, 10, 0x200A, 0x1FFF]))
        src, dst = draw(st.binary(min_size=4, max_size=4)), draw(st.binary(min_size=4, max_size=4))
        data = bytearray(ipv4(proto, body, src, dst, fragment))
    else:
        src, dst = draw(st.binary(min_size=16, max_size=16)), draw(st.binary(min_size=16, max_size=16))
        data = bytearray(ipv6(proto, body, src, dst))
    if draw(st.integers(0, 3)) == 0:
        data[draw(st.integers(0, min(len(data) - 1, 39)))] = draw(st.integers(0, 255))
    if draw(st.integers(0, 3)) == 0:
        del data[draw(st.integers(0, len(data))) :]
    return bytes(data) + draw(st.binary(max_size=4))
