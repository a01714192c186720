"""One HTTP/1.1 exchange for callers that have no event loop, or must have the answer before they go on."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from meshd.base.addr import parse_ip
from meshd.io.http.h1client import Answer, Headers, fetch
from meshd.io.mark import mark_socket

T = TypeVar("T")

_CHUNK = 1 << 16


class _BlockingStream:
    """A `ByteStream` whose methods never wait for an event loop: they block, until ``deadline`` at most."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._deadline = deadline
        self._queued = b""

    async def read(self) -> bytes:
        try:
            self._sock.settimeout(_left(self._deadline))
            return self._sock.recv(_CHUNK)
        except OSError as error:
            raise ConnectionError(str(error)) from None

    def write(self, data: bytes) -> None:
        self._queued += data

    async def drain(self) -> None:
        data, self._queued = self._queued, b""
        try:
            self._sock.settimeout(_left(self._deadline))
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
    """Over TLS, the server named as in ``address``, and past the tunnel, as all that we ask for ourselves.

    ``timeout_s`` bounds the whole. Raises OSError when there is no connection, MeshdError ``http`` when there is no
    answer.
    """
    deadline = time.monotonic() + timeout_s
    with connect_blocking(address, deadline) as plain:
        plain.settimeout(_left(deadline))
        with context.wrap_socket(plain, server_hostname=address[0]) as sock:
            return _run(fetch(_BlockingStream(sock, deadline), method, target, headers, body, limit=limit))


def connect_blocking(address: tuple[str, int], deadline: float) -> socket.socket:
    """A connection past the tunnel, by ``deadline`` of the monotonic clock. Raises OSError."""
    failure = OSError(f"no address for {address[0]}")
    for family, kind, protocol, _, where in socket.getaddrinfo(*address, type=socket.SOCK_STREAM):
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as error:  # a kernel without IPv6
            failure = error
            continue
        try:
            mark_socket(sock, parse_ip(str(where[0]).partition("%")[0]))
            sock.settimeout(_left(deadline))
            sock.connect(where)
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    raise failure


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def _run(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that has nothing to wait for."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    work.close()
    raise RuntimeError("the exchange waited for an event loop")
