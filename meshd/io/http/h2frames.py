"""Looking at HTTP/2 frame headers before the frames are whole."""

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
