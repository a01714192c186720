"""What waits to be sent to one relay client.

Three queues: control frames (pong, peer gone, keep-alive) first, then packets that look like disco, then the rest.
A client that does not read fast enough loses its oldest packets; nothing here grows without bound.
"""

from __future__ import annotations

from collections import deque

MAX_DATA_BYTES = 256 * 1024
"""Queued bytes of ordinary packets: about the 256 KiB one read of a sender may bring."""
MIN_DATA_FRAMES = 32
"""So many are kept however large they are, as every relay does: clients send as many in one go."""
MAX_DISCO_FRAMES = 64
"""Disco packets are small and a newer one replaces what an older one wanted to say."""
MAX_CONTROL_FRAMES = 64


class Outbox:
    """Frames for one destination, in sending order."""

    __slots__ = ("_control", "_data", "_data_bytes", "_disco")

    def __init__(self) -> None:
        self._control: deque[bytes] = deque()
        self._disco: deque[bytes] = deque()
        self._data: deque[bytes] = deque()
        self._data_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._control or self._disco or self._data)

    @property
    def packets(self) -> int:
        """How many of the waiting frames carry a packet."""
        return len(self._disco) + len(self._data)

    def push_control(self, frame: bytes) -> bool:
        """Queue a frame of the relay itself; False when the client is so slow that it was dropped."""
        if len(self._control) >= MAX_CONTROL_FRAMES:
            return False
        self._control.append(frame)
        return True

    def push_disco(self, frame: bytes) -> int:
        """Queue a packet that looks like disco; returns how many older ones were dropped for it."""
        dropped = 0
        while len(self._disco) >= MAX_DISCO_FRAMES:
            self._disco.popleft()
            dropped += 1
        self._disco.append(frame)
        return dropped

    def push_data(self, frame: bytes) -> int:
        """Queue an ordinary packet; returns how many older ones were dropped for it."""
        dropped = 0
        self._data.append(frame)
        self._data_bytes += len(frame)
        while self._data_bytes > MAX_DATA_BYTES and len(self._data) > MIN_DATA_FRAMES:
            self._data_bytes -= len(self._data.popleft())
            dropped += 1
        return dropped

    def take(self) -> bytes:
        """Everything that waits, as one block ready to be written."""
        frames = [*self._control, *self._disco, *self._data]
        self._control.clear()
        self._disco.clear()
        self._data.clear()
        self._data_bytes = 0
        return frames[0] if len(frames) == 1 else b"".join(frames)
