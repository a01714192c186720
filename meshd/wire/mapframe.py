"""Framing of the map response stream: `length u32 little endian | message`, repeated.

A message is JSON, or zstd frames of JSON when the request asked for it. Every message is compressed
alone. The frames of other encoders may lack the content size, and a message may hold several frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from meshd.base.errors import WireError
from meshd.wire.zstd import compress, decompress

MAX_MESSAGE: Final = 128 * 1024 * 1024
"""Limit of one message, both as framed and decompressed. 100 000 peers, as many as a netmap takes, are about 90 MB."""

KEEP_ALIVE_JSON: Final = b'{"KeepAlive":true}'
"""The exact bytes that clients recognise without decoding."""


def encode_map_frame(message: bytes, zstd: bool) -> bytes:
    """Frame one JSON message, compressed if `zstd`."""
    body = compress(message) if zstd else message
    return len(body).to_bytes(4, "little") + body


class MapFrameReader:
    """Cuts a response body into JSON messages.

    `zstd` says that the request asked for compression. `limit` bounds the framed length and the
    decompressed size of each message; going over it raises `WireError`, and so does a zero length.
    """

    __slots__ = ("_buffer", "_limit", "_wanted", "_zstd")

    def __init__(self, zstd: bool, limit: int = MAX_MESSAGE) -> None:
        self._buffer = bytearray()
        self._wanted = 0  # so much must be there before a look at it can be of use
        self._zstd = zstd
        self._limit = limit

    def feed(self, data: bytes) -> list[bytes]:
        """JSON texts of all messages completed by `data`."""
        return list(self.messages(data))

    def messages(self, data: bytes) -> Iterator[bytes]:
        """Like `feed`, but each message is decompressed when it is its turn: together they may be very large."""
        buffer = self._buffer
        if buffer:
            buffer += data
            if len(buffer) < self._wanted:
                return
            data, self._buffer = bytes(buffer), bytearray()
        at, size = 0, len(data)
        bodies: list[tuple[int, int]] = []
        problem = None
        while size - at >= 4:
            length = int.from_bytes(data[at : at + 4], "little")
            if not 0 < length <= self._limit:
                problem = WireError(f"map message length {length} is out of range", expected=f"1..{self._limit}")
                break
            if at + 4 + length > size:
                break
            bodies.append((at + 4, at + 4 + length))
            at += 4 + length
        if at < size:
            self._buffer += data[at:]
            self._wanted = 4 + int.from_bytes(data[at : at + 4], "little") if size - at >= 4 else 4
        for start, end in bodies:
            yield self._text(data[start:end])
        if problem is not None:
            raise problem

    def _text(self, body: bytes) -> bytes:
        return decompress(body, self._limit) if self._zstd else body
