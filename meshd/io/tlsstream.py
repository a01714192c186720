"""TLS connections on the event loop: as a `ByteStream`, and as a protocol for bulk traffic."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from meshd.base.errors import MeshdError
from meshd.io.streams import ByteStream
from meshd.io.tls import CertificateCheck, TlsEngine

RECEIVE_BYTES = 128 * 1024
RECORD_BYTES = 16 * 1024  # plaintext of the largest TLS record (RFC 8446 5.1)


class TlsStream:
    """A `ByteStream` that speaks TLS over another one. Await ``handshake`` first."""

    def __init__(self, inner: ByteStream, check: CertificateCheck, *, alpn: tuple[str, ...] = ()) -> None:
        self._inner = inner
        self.engine = TlsEngine(check, alpn=alpn)
        self._early = b""

    async def handshake(self) -> None:
        """MeshdError (code ``tls``) when the certificate is refused, ConnectionError when the peer left."""
        engine = self.engine
        while True:
            self._inner.write(engine.outgoing())
            if engine.established:
                return
            await self._inner.drain()
            data = await self._inner.read()
            if not data:
                raise ConnectionError("the connection closed during the TLS handshake")
            try:
                self._early += engine.feed(data)
            except MeshdError:
                self._inner.write(engine.outgoing())  # the alert tells the other side why
                raise

    async def read(self) -> bytes:
        """Some plaintext; ``b""`` at the end."""
        if self._early:
            data, self._early = self._early, b""
            return data
        while not self.engine.closed:
            raw = await self._inner.read()
            if not raw:
                self.engine.feed_eof()
                return b""
            data = self.engine.feed(raw)
            if answer := self.engine.outgoing():
                self._inner.write(answer)
            if data:
                return data
        return b""

    def write(self, data: bytes) -> None:
        self.engine.write(data)
        self._inner.write(self.engine.outgoing())

    async def drain(self) -> None:
        await self._inner.drain()

    def close(self) -> None:
        self._inner.close()


class TlsProtocol(asyncio.BufferedProtocol):
    """TLS for bulk traffic: the plaintext of one wake-up arrives in one call.

    A large write goes out record by record through ``direct`` (the transport's own socket) while nothing is
    queued. A relay that gets a burst as one piece fills the short queue of its receiver and drops the rest
    of the burst; record by record, its reader and its writer take turns.

    ``on_established`` once, then ``on_data``; ``on_lost`` exactly once at the end with the reason, or
    None after ``close``. ``on_writable`` when ``paused`` becomes False again.
    """

    def __init__(
        self,
        check: CertificateCheck,
        *,
        on_established: Callable[[TlsEngine], None],
        on_data: Callable[[bytes], None],
        on_writable: Callable[[], None],
        on_lost: Callable[[Exception | None], None],
    ) -> None:
        self._engine = TlsEngine(check)
        self._on_established = on_established
        self._on_data = on_data
        self._on_writable = on_writable
        self._on_lost = on_lost
        self._buffer = bytearray(RECEIVE_BYTES)
        self._view = memoryview(self._buffer)
        self._transport: asyncio.Transport | None = None
        self._error: Exception | None = None
        self._announced = False
        self.paused = False
        self.lost = False
        """There is no connection any more."""
        self.direct: socket.socket | None = None

    def write(self, plaintext: bytes) -> None:
        """Send; call only after ``on_established``."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        view = memoryview(plaintext)
        try:
            for start in range(0, len(view), RECORD_BYTES):
                self._engine.write(view[start : start + RECORD_BYTES])
                self._send(transport, self._engine.outgoing())
        except MeshdError as error:
            self._give_up(error)

    def _send(self, transport: asyncio.Transport, sealed: bytes) -> None:
        if self.direct is not None and not transport.get_write_buffer_size():
            try:
                sent = self.direct.send(sealed)
            except OSError:  # full, or broken: the transport finds out which
                sent = 0
            if sent == len(sealed):
                return
            sealed = sealed[sent:]
        transport.write(sealed)

    def close(self) -> None:
        """Close now; ``on_lost`` follows."""
        if self._transport is not None:
            self._transport.abort()

    # -- asyncio ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        assert self._transport is not None
        self._transport.set_write_buffer_limits(high=0)  # what the socket does not take waits (and drops) at its source
        self._transport.write(self._engine.outgoing())

    def get_buffer(self, sizehint: int) -> bytearray | memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        engine = self._engine
        try:
            data = engine.feed(self._view[:nbytes])
        except MeshdError as error:
            self._give_up(error)
            return
        if self._transport is not None and (answer := engine.outgoing()):
            self._transport.write(answer)
        if not self._announced and engine.established:
            self._announced = True
            self._on_established(engine)
        if data:
            self._on_data(data)
        if engine.closed:
            self.close()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self._on_writable()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = self.direct = None
        self.lost = True
        self._on_lost(self._error or exc)

    def _give_up(self, error: Exception) -> None:
        self._error = error
        if self._transport is not None:
            if alert := self._engine.outgoing():
                self._transport.write(alert)
            self._transport.close()
