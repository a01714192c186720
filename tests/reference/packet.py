"""Plain-Python twin of meshd._fast.packet."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

UNKNOWN, FRAGMENT = 0, 255
_MIN_HEADER = {6: 20, 17: 8, 132: 12}


@dataclass
class PacketInfo:
    version: int
    proto: int
    src: bytes
    dst: bytes
    l4_offset: int
    total_bytes: int
    tcp_flags: int = 0
    icmp_type: int = 0
    icmp_code: int = 0
    icmp_id: int = 0
    src_port: int = 0
    dst_port: int = 0
    l4: bytes = field(default=b"", repr=False)


def parse(data: bytes) -> PacketInfo | str:
    """The headers, or the reason why there are none."""
    if not data:
        return "empty"
    version = data[0] >> 4
    if version == 4:
        if len(data) < 20:
            return "short"
        total, header, proto = struct.unpack_from("!H", data, 2)[0], (data[0] & 15) * 4, data[9]
        if total > len(data):
            return "truncated"
        if header < 20 or header > total:
            return "header"
        info = PacketInfo(4, proto, data[12:16], data[16:20], header, total, l4=data[header:total])
        fragment = struct.unpack_from("!H", data, 6)[0]
        offset = fragment & 0x1FFF
        if offset:
            info.proto = UNKNOWN if offset < 10 else FRAGMENT
            return info
        if fragment & 0x2000 and (len(info.l4) < 10 or proto == 99):
            info.proto = UNKNOWN
            return info
    elif version == 6:
        if len(data) < 40:
            return "short"
        total = struct.unpack_from("!H", data, 4)[0] + 40
        if total > len(data):
            return "truncated"
        info = PacketInfo(6, data[6], data[8:24], data[24:40], 40, total, l4=data[40:total])
        if info.proto == 44 and not _step_over_fragment_header(info):
            return info
    else:
        return "short" if len(data) < 20 else "version"
    _parse_transport(info)
    return info


def _step_over_fragment_header(info: PacketInfo) -> bool:
    """Whether a transport header follows."""
    proto, header = UNKNOWN, info.l4[:8]
    if len(header) == 8:
        info.l4_offset, info.l4 = 48, info.l4[8:]
        offset, more = struct.unpack_from("!H", header, 2)[0] >> 3, header[3] & 1
        if offset >= 10:
            proto = FRAGMENT
        elif offset == 0 and not (more and len(info.l4) < 10) and header[0] != 99:
            info.proto = header[0]
            return True
    info.proto = proto
    return False


def _parse_transport(info: PacketInfo) -> None:
    l4 = info.l4
    if info.proto in _MIN_HEADER:
        if len(l4) < _MIN_HEADER[info.proto]:
            info.proto = UNKNOWN
            return
        info.src_port, info.dst_port = struct.unpack_from("!HH", l4)
        if info.proto == 6:
            info.tcp_flags = l4[13]
    elif info.proto == (1 if info.version == 4 else 58):
        if len(l4) < 4:
            info.proto = UNKNOWN
            return
        info.icmp_type, info.icmp_code = l4[0], l4[1]
        if len(l4) >= 8 and l4[0] in ((0, 8) if info.version == 4 else (128, 129)):
            info.icmp_id = struct.unpack_from("!H", l4, 4)[0]
    elif info.proto == FRAGMENT:
        info.proto = UNKNOWN


def fold(total: int) -> int:
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def checksum(data: bytes, initial: int = 0) -> int:
    padded = data + bytes(len(data) & 1)
    return fold(initial + sum(struct.unpack(f"!{len(padded) // 2}H", padded))) ^ 0xFFFF


def transport_checksum(packet: bytes) -> int:
    info = parse(packet)
    assert isinstance(info, PacketInfo)
    return checksum(info.src + info.dst + struct.pack("!IHBB", len(info.l4), 0, 0, info.proto) + info.l4)
