"""Byte streams: what TCP, TLS and Noise connections look like to the protocols above them."""

from __future__ import annotations

import asyncio
from typing import Protocol

READ_LIMIT = 256 * 1024  # bytes kept unread before the peer is made to wait


class ByteStream(Protocol):
    """A reliable, ordered byte stream. One reader and one writer at a time."""

    async def read(self) -> bytes:
        """Some bytes; ``b""`` at the end. Raises ConnectionError when the connection broke."""
        ...

    def write(self, data: bytes) -> None:
        """Queue bytes. Writes after the connection went are dropped; `read` tells."""
        ...

    async def drain(self) -> None:
        """Wait until enough of the queued bytes have left."""
        ...

    def close(self) -> None:
        """Close now; queued bytes may be lost. Idempotent."""
        ...


class SocketStream(asyncio.Protocol):
    """A `ByteStream` over an asyncio transport (TCP, TLS, Unix)."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._chunks: list[bytes] = []
        self._unread = 0
        self._ended = False
        self._error: Exception | None = None
        self._reader: asyncio.Future[None] | None = None
        self._drainer: asyncio.Future[None] | None = None
        self._write_paused = False
        self.transport: asyncio.Transport | None = None

    @property
    def ends(self) -> tuple[str, str] | None:
        """The address at our end and that at the other one, None when they are not known."""
        if self.transport is None:
            return None
        own, far = (self.transport.get_extra_info(name) for name in ("sockname", "peername"))
        return (str(own[0]), str(far[0])) if isinstance(own, tuple) and isinstance(far, tuple) else None

    # -- ByteStream ----------------------------------------------------------------------------------------

    async def read(self) -> bytes:
        """Everything that has arrived, waiting for at least a byte."""
        while not self._chunks:
            if self._error is not None:
                raise ConnectionError(str(self._error) or "connection lost") from self._error
            if self._ended:
                return b""
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        if self._unread >= READ_LIMIT and self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()
        self._unread = 0
        return data

    def unread(self, data: bytes) -> None:
        """Put bytes back in front of the stream."""
        if data:
            self._chunks.insert(0, data)
            self._unread += len(data)

    def write(self, data: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    async def drain(self) -> None:
        while self._write_paused and not self._ended:
            if self._drainer is None:
                self._drainer = self._loop.create_future()
            await asyncio.shield(self._drainer)

    def close(self) -> None:
        self._ended = True
        if self.transport is not None:
            self.transport.abort()

    # -- asyncio.Protocol ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._chunks.append(data)
        self._unread += len(data)
        if self._unread >= READ_LIMIT and self.transport is not None:
            self.transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        self._ended = True
        self._wake()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._error = exc
        self._wake()
        self.resume_writing()

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        if self._drainer is not None and not self._drainer.done():
            self._drainer.set_result(None)
        self._drainer = None

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
