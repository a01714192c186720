"""Packets that wait for a session: few, bounded in bytes, the oldest given up first."""

from __future__ import annotations

from collections import deque

MAX_PACKETS = 128  # the reference's queue length
MAX_BYTES = 512 * 1024  # eight segmented 64 KiB reads; what a TCP window needs to start


class StagedPackets:
    """A queue per peer; entries are opaque to it (one read from the TUN device each)."""

    __slots__ = ("_bytes", "_packets")

    def __init__(self) -> None:
        self._packets: deque[bytes] = deque()
        self._bytes = 0

    def add(self, packet: bytes) -> int:
        """Append a packet; returns how many were dropped to make room."""
        self._packets.append(packet)
        self._bytes += len(packet)
        dropped = 0
        while len(self._packets) > MAX_PACKETS or self._bytes > MAX_BYTES:
            self._bytes -= len(self._packets.popleft())
            dropped += 1
        return dropped

    def take(self) -> list[bytes]:
        """All packets, oldest first; the queue is empty afterwards."""
        packets = list(self._packets)
        self._packets.clear()
        self._bytes = 0
        return packets

    def __len__(self) -> int:
        return len(self._packets)
