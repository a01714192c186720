"""One HTTP/1.1 exchange for callers that have no event loop, or must have the answer before they go on."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Coroutine
from typing import Any, TypeVar

from meshd.io.http.h1client import Answer, Headers, fetch

T = TypeVar("T")

_CHUNK = 1 << 16


class _BlockingStream:
    """A `ByteStream` whose methods never wait for an event loop: they block."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._queued = b""

    async def read(self) -> bytes:
        try:
            return self._sock.recv(_CHUNK)
        except OSError as error:
            raise ConnectionError(str(error)) from None

    def write(self, data: bytes) -> None:
        self._queued += data

    async def drain(self) -> None:
        data, self._queued = self._queued, b""
        try:
            self._sock.sendall(data)
        except OSError as error:
            raise ConnectionError(str(error)) from None

    def close(self) -> None:
        self._sock.close()


def fetch_blocking(
    address: tuple[str, int],
    context: ssl.SSLContext,
    method: str,
    target: str,
    headers: Headers,
    body: bytes = b"",
    *,
    timeout_s: float,
    limit: int,
) -> Answer:
    """Over TLS, the server named as in ``address``. ``timeout_s`` bounds every step.

    Raises OSError when there is no connection, MeshdError ``http`` when there is no answer.
    """
    with (
        socket.create_connection(address, timeout_s) as plain,
        context.wrap_socket(plain, server_hostname=address[0]) as sock,
    ):
        return _run(fetch(_BlockingStream(sock), method, target, headers, body, limit=limit))


def _run(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that has nothing to wait for."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    work.close()
    raise RuntimeError("the exchange waited for an event loop")
