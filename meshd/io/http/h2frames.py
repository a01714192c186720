"""What is done with HTTP/2 frames before the library sees them."""

from __future__ import annotations

PREFACE_BYTES = 24
FRAME_HEADER_BYTES = 9
MAX_FRAME_BYTES = 16384
"""The default of SETTINGS_MAX_FRAME_SIZE, which is what we announce."""


class FrameGuard:
    """Finds frames longer than allowed as soon as their header is there; the library only looks once they are whole.

    Without it a client could make the server hold 16 MiB per connection.
    """

    __slots__ = ("_header", "_skip")

    def __init__(self) -> None:
        self._skip = PREFACE_BYTES
        self._header = b""

    def allows(self, data: bytes) -> bool:
        """Whether every frame header in the stream so far names an allowed length (RFC 9113 4.2)."""
        at, size = 0, len(data)
        while at < size:
            if self._skip:
                step = min(self._skip, size - at)
                self._skip -= step
                at += step
                continue
            part = data[at : at + FRAME_HEADER_BYTES - len(self._header)]
            self._header += part
            at += len(part)
            if len(self._header) == FRAME_HEADER_BYTES:
                self._skip = int.from_bytes(self._header[:3], "big")
                self._header = b""
                if self._skip > MAX_FRAME_BYTES:
                    return False
        return True


class DataMerger:
    """Makes one DATA frame of several in a row on the same stream, which is the same to HTTP/2 (RFC 9113 6.1).

    The library takes 25 microseconds for each frame, however little is in it, and a coordination server sends many
    small ones together. Frames with flags (padded, the last of their stream) and empty ones stay as they are, and so
    does a frame that is not whole yet. ``limit`` is the length of the longest frame that the library accepts.
    """

    __slots__ = ("_header", "_limit", "_skip")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._skip = 0
        self._header = b""

    def feed(self, data: bytes) -> bytes:
        """What the library gets for ``data``; fewer than nine bytes, the part of a header, wait for the next call."""
        data, self._header = self._header + data, b""
        size = len(data)
        at = min(self._skip, size)
        self._skip -= at
        pieces: list[bytes] = []
        taken = 0
        while size - at >= FRAME_HEADER_BYTES:
            end = at + FRAME_HEADER_BYTES + int.from_bytes(data[at : at + 3], "big")
            if end > size:
                self._skip, at = end - size, size
                break
            kind = data[at + 3 : at + FRAME_HEADER_BYTES]
            if kind.startswith(b"\0\0") and end - at > FRAME_HEADER_BYTES:
                bodies, end = self._run(data, at, end, kind)
                if len(bodies) > 1:
                    length = sum(map(len, bodies))
                    pieces += (data[taken:at], length.to_bytes(3, "big"), kind, *bodies)
                    taken = end
            at = end
        self._header = data[at:]
        return b"".join((*pieces, data[taken:at])) if pieces else data[:at]

    def _run(self, data: bytes, at: int, end: int, kind: bytes) -> tuple[list[bytes], int]:
        """The bodies of the frame from ``at`` to ``end`` and of those behind it that are like it; where they end."""
        bodies = [data[at + FRAME_HEADER_BYTES : end]]
        total = len(bodies[0])
        while data[end + 3 : end + FRAME_HEADER_BYTES] == kind:
            length = int.from_bytes(data[end : end + 3], "big")
            total += length
            stop = end + FRAME_HEADER_BYTES + length
            if not length or stop > len(data) or total > self._limit:
                break
            bodies.append(data[end + FRAME_HEADER_BYTES : stop])
            end = stop
        return bodies, end
