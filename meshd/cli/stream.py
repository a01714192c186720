"""Reading the answers of the LocalAPI while they arrive."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any, BinaryIO

from meshd.cli.errors import CliError

JSON = dict[str, Any]

_PIECE_S = 30.0
"""For the rest of a piece that has begun to come, where the caller does not wait for ever."""

MAX_LINE = 64 * 1024
"""Of a header or a chunk size; and the most that is read at once."""


class Stream:
    """The body of an answer while it arrives."""

    def __init__(self, sock: socket.socket, reader: BinaryIO, headers: dict[str, str]) -> None:
        self._sock = sock
        self._reader = reader
        self.headers = headers
        self._pieces = _pieces(reader, headers)

    def read(self, timeout: float | None = None) -> bytes:
        """The next piece, empty when the daemon has ended it. TimeoutError after `timeout` seconds; what comes later
        can still be read."""
        if timeout is not None and not self._has_more(timeout):
            raise TimeoutError
        self._sock.settimeout(None if timeout is None else _PIECE_S)
        try:
            return next(self._pieces, b"")
        except (OSError, ValueError):
            return b""

    def _has_more(self, timeout: float) -> bool:
        """Whether something comes within `timeout` seconds, be it the end. Nothing is taken of it: a read that is
        broken off in the middle would be the end of the stream."""
        import select

        self._sock.settimeout(0)
        try:
            if self._reader.peek(1):  # type: ignore[attr-defined]
                return True
            return bool(select.select([self._sock], [], [], timeout)[0])
        except OSError:
            return True  # reading it says what is wrong

    def lines(self) -> Iterator[bytes]:
        """Whole lines, without their ends."""
        buffer = b""
        while part := self.read():
            *whole, buffer = (buffer + part).split(b"\n")
            yield from whole
        if buffer:
            yield buffer

    def close(self) -> None:
        """End it."""
        self._reader.close()
        self._sock.close()


class Watcher:
    """An open notify stream."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._buffer = b""

    def next(self, timeout: float | None) -> JSON | None:
        """The next notify, None when the daemon closed the stream. TimeoutError after `timeout` seconds."""
        while b"\n" not in self._buffer:
            if timeout is not None and timeout <= 0:
                raise TimeoutError
            part = self._stream.read(timeout)
            if not part:
                return None
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            value = json.loads(line)
        except ValueError as error:
            raise CliError(f"local meshd sent a notify that is not JSON: {error}") from None
        return value if isinstance(value, dict) else {}

    def close(self) -> None:
        """End the stream."""
        self._stream.close()


def _pieces(reader: BinaryIO, headers: dict[str, str]) -> Iterator[bytes]:
    if "chunked" in headers.get("transfer-encoding", ""):
        yield from _chunks(reader)
        return
    left = int(headers["content-length"]) if "content-length" in headers else None
    while left is None or left > 0:
        part = reader.read1(MAX_LINE if left is None else min(left, MAX_LINE))  # type: ignore[attr-defined]
        if not part:
            return
        left = None if left is None else left - len(part)
        yield part


def read_body(reader: BinaryIO, headers: dict[str, str]) -> bytes:
    if "chunked" in headers.get("transfer-encoding", ""):
        return b"".join(_chunks(reader))
    length = headers.get("content-length")
    if length is None:
        return reader.read()
    body = reader.read(int(length))
    if len(body) != int(length):
        raise ValueError("it closed the connection in the middle of an answer")
    return body


def _chunks(reader: BinaryIO) -> Iterator[bytes]:
    """The chunks of a chunked body (RFC 9112 7.1)."""
    while True:
        line = reader.readline(MAX_LINE)
        size = int(line.partition(b";")[0].strip() or b"-", 16)
        if size == 0:
            while reader.readline(MAX_LINE).strip():
                pass
            return
        data = reader.read(size)
        if len(data) != size:
            raise ValueError("it closed the connection in the middle of an answer")
        reader.readline(MAX_LINE)
        yield data
