"""Plain-Python twin of meshd._fast.filter: rule by rule, check by check."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import IPv6Address, ip_address

from tests.reference.flow import FlowTable
from tests.reference.packet import FRAGMENT, UNKNOWN, PacketInfo, parse

ACCEPT, SHORT, NOT_TRUSTED, MULTICAST, LINK_LOCAL, NOT_LOCAL, RULES = range(7)

Rule = tuple[Sequence[tuple[bytes, bytes]], Sequence[tuple[bytes, bytes, int, int]], Sequence[int]]


class Filter:
    def __init__(self, rules: Sequence[Rule], local: Sequence[tuple[bytes, int]]) -> None:
        self._rules = rules
        self._local = local

    def check_in(self, packet: bytes, flows: FlowTable) -> int:
        info, verdict = self._first(packet)
        if info is None:
            return verdict
        if not any(_in_prefix(info.dst, address, bits) for address, bits in self._local):
            return NOT_LOCAL
        return ACCEPT if self._admits(info, flows) else RULES

    def check_out(self, packet: bytes, flows: FlowTable) -> int:
        info, verdict = self._first(packet)
        if info is None:
            return verdict
        if info.proto in (17, 132):
            flows.remember(info)
        return ACCEPT

    def _first(self, packet: bytes) -> tuple[PacketInfo | None, int]:
        info = parse(packet)
        if info == "empty":
            return None, ACCEPT
        if isinstance(info, str):
            return None, SHORT
        if info.proto == UNKNOWN:
            return None, NOT_TRUSTED
        ip = ip_address(info.dst)
        mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
        if (mapped or ip).is_multicast:
            return None, MULTICAST
        if (mapped or ip).is_link_local and str(ip) != "169.254.169.254":
            return None, LINK_LOCAL
        return (None, ACCEPT) if info.proto == FRAGMENT else (info, ACCEPT)

    def _admits(self, info: PacketInfo, flows: FlowTable) -> bool:
        if info.proto == (1 if info.version == 4 else 58):
            return _is_answer(info) or self._match(info, lambda protos, first, last: True)
        if info.proto == 6:
            return info.tcp_flags & 0x12 != 0x02 or self._match_port(info)
        if info.proto in (17, 132):
            return flows.seen(info) or self._match_port(info)
        if info.proto == 99:
            return True
        return self._match(info, lambda protos, first, last: info.proto in protos and (first, last) == (0, 0xFFFF))

    def _match_port(self, info: PacketInfo) -> bool:
        return self._match(info, lambda protos, first, last: info.proto in protos and first <= info.dst_port <= last)

    def _match(self, info: PacketInfo, allowed: Callable[[Sequence[int], int, int], bool]) -> bool:
        return any(
            any(_between(low, info.src, high) for low, high in sources)
            and any(_between(low, info.dst, high) and allowed(protos, a, b) for low, high, a, b in targets)
            for sources, targets, protos in self._rules
        )


def _between(low: bytes, address: bytes, high: bytes) -> bool:
    return len(low) == len(address) and low <= address <= high


def _in_prefix(address: bytes, prefix: bytes, bits: int) -> bool:
    shift = len(prefix) * 8 - bits
    return len(address) == len(prefix) and not (int.from_bytes(address) ^ int.from_bytes(prefix)) >> shift


def _is_answer(info: PacketInfo) -> bool:
    if len(info.l4) < 8:
        return False
    if info.version == 4:
        return info.l4[:2] == b"\0\0" or info.icmp_type in (3, 11, 12)
    return info.l4[:2] == b"\x81\0" or info.icmp_type in (1, 2, 3, 4)
