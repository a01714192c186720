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

    __slots__ = ("_buffer", "_limit", "_zstd")

    def __init__(self, zstd: bool, limit: int = MAX_MESSAGE) -> None:
        self._buffer = bytearray()
        self._zstd = zstd
        self._limit = limit

    def feed(self, data: bytes) -> list[bytes]:
        """JSON texts of all messages completed by `data`."""
        return list(self.messages(data))

    def messages(self, data: bytes) -> Iterator[bytes]:
        """Like `feed`, but each message is decompressed when it is its turn: together they may be very large."""
        buffer = self._buffer
        if not buffer and len(data) > 4 and int.from_bytes(data[:4], "little") == len(data) - 4 <= self._limit:
            yield self._text(data[4:])  # one whole message, the usual case
            return
        buffer += data
        while len(buffer) >= 4:
            length = int.from_bytes(buffer[:4], "little")
            if not 0 < length <= self._limit:
                raise WireError(f"map message length {length} is out of range", expected=f"1..{self._limit}")
            if len(buffer) - 4 < length:
                break
            body = bytes(memoryview(buffer)[4 : 4 + length])
            del buffer[: 4 + length]
            yield self._text(body)

    def _text(self, body: bytes) -> bytes:
        return decompress(body, self._limit) if self._zstd else body
