"""Plain-Python twin of meshd._fast.flow: one least-recently-used list."""

from __future__ import annotations

from collections import OrderedDict

from tests.reference.packet import PacketInfo

Key = tuple[int, int, bytes, bytes, int, int]


class FlowTable:
    def __init__(self, limit: int = 512) -> None:
        self._limit = limit
        self._flows: OrderedDict[Key, None] = OrderedDict()

    def seen(self, info: PacketInfo) -> bool:
        key = (info.version, info.proto, info.src, info.dst, info.src_port, info.dst_port)
        if key not in self._flows:
            return False
        self._flows.move_to_end(key)
        return True

    def remember(self, info: PacketInfo) -> None:
        key = (info.version, info.proto, info.dst, info.src, info.dst_port, info.src_port)
        self._flows[key] = None
        self._flows.move_to_end(key)
        if len(self._flows) > self._limit:
            self._flows.popitem(last=False)
