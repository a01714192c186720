"""TCP and UDP packets with right checksums, for segmentation and merging."""

from __future__ import annotations

import struct

from tests.reference.segment import checksum, pseudo
from tests.unit.fast.packets import A4, A6, B4, B6


def finish(ip: bytes, transport: bytes, field: int, protocol: int) -> bytes:
    """Fill the checksums of both headers in."""
    if ip[0] >> 4 == 4:
        ip = ip[:10] + struct.pack(">H", checksum(ip[:10] + b"\0\0" + ip[12:])) + ip[12:]
    value = checksum(pseudo(ip, protocol, len(transport)) + transport) or 0xFFFF
    return ip + transport[:field] + struct.pack(">H", value) + transport[field + 2 :]


def ip_header(version: int, protocol: int, body: int, *, hop_limit: int = 64, tos: int = 0, ident: int = 9) -> bytes:
    if version == 4:
        return struct.pack(">BBHHHBBH4s4s", 0x45, tos, 20 + body, ident, 0x4000, hop_limit, protocol, 0, A4, B4)
    return struct.pack(">IHBB16s16s", 6 << 28 | tos << 20, body, protocol, hop_limit, A6, B6)


def tcp(
    payload: bytes,
    *,
    version: int = 4,
    sequence: int = 1000,
    ack: int = 7,
    flags: int = 0x10,
    options: bytes = b"",
    port: int = 4000,
    hop_limit: int = 64,
    tos: int = 0,
    window: int = 512,
) -> bytes:
    size = 20 + len(options)
    head = struct.pack(">HHIIBBHHH", port, 5000, sequence, ack, size // 4 << 4, flags, window, 0, 0) + options
    ip = ip_header(version, 6, size + len(payload), hop_limit=hop_limit, tos=tos)
    return finish(ip, head + payload, 16, 6)


def udp(payload: bytes, *, version: int = 4, port: int = 4000, hop_limit: int = 64) -> bytes:
    head = struct.pack(">HHHH", port, 5000, 8 + len(payload), 0)
    return finish(ip_header(version, 17, 8 + len(payload), hop_limit=hop_limit), head + payload, 6, 17)


def vnet(
    flags: int = 0, gso_type: int = 0, hdr_len: int = 0, gso_size: int = 0, start: int = 0, offset: int = 0
) -> bytes:
    return struct.pack("=BBHHHH", flags, gso_type, hdr_len, gso_size, start, offset)


def super_tcp(
    payload: bytes, gso_size: int, *, version: int = 4, flags: int = 0x18, options: bytes = b""
) -> tuple[bytes, bytes]:
    """Header and packet as a TUN delivers them: total length of all, pseudo-header sum in the checksum."""
    packet = tcp(payload, version=version, flags=flags, options=options)
    ip = 20 if version == 4 else 40
    partial = ~checksum(pseudo(packet, 6, len(packet) - ip)) & 0xFFFF
    packet = packet[: ip + 16] + struct.pack(">H", partial) + packet[ip + 18 :]
    # hdr_len as the forward path gives it: too long.
    return vnet(1, 1 if version == 4 else 4, len(packet) // 2, gso_size, ip, 16), packet


def super_udp(payload: bytes, gso_size: int, *, version: int = 4) -> tuple[bytes, bytes]:
    packet = udp(payload, version=version)
    ip = 20 if version == 4 else 40
    partial = ~checksum(pseudo(packet, 17, len(packet) - ip)) & 0xFFFF
    packet = packet[: ip + 6] + struct.pack(">H", partial) + packet[ip + 8 :]
    return vnet(1, 5, 0, gso_size, ip, 6), packet
