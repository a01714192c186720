"""The server side of ts2021: a connection after its upgrade, Noise outside and HTTP/2 inside."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from meshd.base.errors import WireError
from meshd.base.keys import ChallengePrivate
from meshd.base.log import get_logger, kv
from meshd.io.http.h2server import H2Server, H2Stream
from meshd.wire.earlypayload import encode_early_payload
from meshd.wire.noise import StreamCipher, Transport

log = get_logger(__name__)

STUCK_TIMEOUT_S = 60.0
"""A client whose connection takes no byte for this long is cut off."""
WRITE_BUFFER_BYTES = 256 * 1024

RequestHandler = Callable[[H2Stream], None]
"""Called with every complete request."""


def early_payload() -> bytes:
    """A fresh early payload. The private half of the challenge is forgotten: nothing is ever proven with it here."""
    return encode_early_payload(ChallengePrivate.generate(os.urandom).public())


class NoiseServerStream:
    """A `Stream` of the HTTP front that carries HTTP/2 requests of one machine."""

    def __init__(
        self,
        transport: asyncio.Transport,
        noise: Transport,
        handler: RequestHandler,
        first: bytes = b"",
    ) -> None:
        self._transport = transport
        self._cipher = StreamCipher(noise)
        self._loop = asyncio.get_running_loop()
        self._stuck: asyncio.TimerHandle | None = None
        self._left = 0
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self._h2 = H2Server(self._write, self._close, handler)
        if first:
            self._write(first)
        self._h2.start()

    def data_received(self, data: bytes) -> None:
        try:
            plain = self._cipher.open_stream(data)
        except WireError as error:
            log.info("noise_record_refused", extra=kv(reason=str(error)))
            self._h2.connection_lost()
            self._transport.abort()
            return
        if plain:
            self._h2.data_received(plain)

    def connection_lost(self) -> None:
        self._disarm()
        self._h2.connection_lost()

    def pause_writing(self) -> None:
        # Not reading either keeps a client that floods us with pings from filling our buffers with answers.
        self._transport.pause_reading()
        self._h2.set_writable(False)
        self._left = self._transport.get_write_buffer_size()
        self._stuck = self._loop.call_later(STUCK_TIMEOUT_S, self._check_progress)

    def resume_writing(self) -> None:
        self._disarm()
        self._transport.resume_reading()
        self._h2.set_writable(True)

    def _check_progress(self) -> None:
        left = self._transport.get_write_buffer_size()
        if left >= self._left:
            log.info("noise_client_stuck", extra=kv(bytes=left))
            self._transport.abort()
            return
        self._left = left
        self._stuck = self._loop.call_later(STUCK_TIMEOUT_S, self._check_progress)

    def _disarm(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None

    def _write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(self._cipher.seal_stream(data))

    def _close(self) -> None:
        self._transport.close()
