"""Packets to measure with: TCP and UDP between two mesh addresses, checksums right."""

from __future__ import annotations

import struct

SOURCE = bytes([100, 64, 0, 1])
TARGET = bytes([100, 64, 0, 2])
VNET_NEEDS_CSUM, VNET_TCP4 = 1, 1
ACK, PSH = 0x10, 0x08


def checksum(data: bytes) -> int:
    """The Internet checksum, RFC 1071."""
    data += bytes(len(data) & 1)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(protocol: int, body: bytes, *, source: bytes = SOURCE, target: bytes = TARGET, ident: int = 0) -> bytes:
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(body), ident, 0x4000, 64, protocol, 0, source, target)
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + body


def _pseudo(protocol: int, length: int) -> bytes:
    return SOURCE + TARGET + struct.pack(">HH", protocol, length)


def tcp_header(sequence: int, *, flags: int = ACK, sport: int = 4000, dport: int = 5000, check: int = 0) -> bytes:
    """Twenty bytes and the twelve of a timestamp option, as bulk transfers carry it."""
    head = struct.pack(">HHIIBBHHH", sport, dport, sequence, 7, 8 << 4, flags, 512, check, 0)
    return head + bytes.fromhex("0101080a0000000100000002")


def tcp(payload: bytes, sequence: int = 1000, *, flags: int = ACK, ident: int = 0) -> bytes:
    plain = tcp_header(sequence, flags=flags)
    total = len(plain) + len(payload)
    check = checksum(_pseudo(6, total) + plain + payload)
    return ipv4(6, tcp_header(sequence, flags=flags, check=check) + payload, ident=ident)


def udp(payload: bytes, *, sport: int = 4000, dport: int = 5000) -> bytes:
    head = struct.pack(">HHHH", sport, dport, 8 + len(payload), 0)
    check = checksum(_pseudo(17, len(head) + len(payload)) + head + payload) or 0xFFFF
    return ipv4(17, head[:6] + struct.pack(">H", check) + payload)


def super_tcp(total: int, mss: int) -> tuple[bytes, bytes]:
    """Virtio-net header and super packet of ``total`` bytes as a TUN delivers them to be cut at ``mss``."""
    payload = bytes(total - 20 - 32)
    partial = ~checksum(_pseudo(6, total - 20)) & 0xFFFF
    packet = ipv4(6, tcp_header(1000, flags=ACK | PSH, check=partial) + payload)
    return struct.pack("=BBHHHH", VNET_NEEDS_CSUM, VNET_TCP4, 52, mss, 20, 16), packet


def flow(count: int, mss: int) -> list[bytes]:
    """Consecutive full packets of one TCP connection."""
    return [tcp(bytes(mss), 1000 + number * mss, ident=number) for number in range(count)]
