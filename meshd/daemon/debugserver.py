"""The HTTP server of ``--debug``: counters for people and monitoring, on the loopback interface only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import ip_address

from meshd.base.errors import MeshdError
from meshd.base.log import get_logger, kv

log = get_logger(__name__)

REQUEST_S = 5.0
_MAX_REQUEST = 8192


class DebugServer:
    """Answers ``GET /debug/metrics`` (and ``/metrics``) in Prometheus text form."""

    def __init__(self, metrics: Callable[[], str]) -> None:
        self._metrics = metrics
        self._server: asyncio.Server | None = None

    async def start(self, address: str) -> None:
        """Listen on ``host:port``; MeshdError "usage" when it is no loopback address or cannot be had."""
        host, colon, port = address.rpartition(":")
        host = host.strip("[]") or "127.0.0.1"
        if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535 or not _is_loopback(host):
            raise MeshdError(
                f"--debug={address}: expected a loopback address and port",
                code="usage",
                hint="For example 127.0.0.1:9000",
            )
        try:
            self._server = await asyncio.start_server(self._serve, host, int(port), limit=_MAX_REQUEST)
        except OSError as error:
            raise MeshdError(f"--debug: cannot listen on {address}: {error.strerror}", code="usage") from None

    @property
    def port(self) -> int:
        assert self._server is not None
        number: int = self._server.sockets[0].getsockname()[1]
        return number

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(head))
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError, OSError) as error:
            log.debug("debug_request_failed", extra=kv(reason=error))
        finally:
            writer.close()

    def _answer(self, head: bytes) -> bytes:
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or words[0] != b"GET":
            return _response("405 Method Not Allowed", "use GET\n")
        if words[1] not in (b"/debug/metrics", b"/metrics"):
            return _response("404 Not Found", "see /debug/metrics\n")
        return _response("200 OK", self._metrics())


def _response(status: str, text: str) -> bytes:
    body = text.encode()
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    ).encode() + body


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
