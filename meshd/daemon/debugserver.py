"""The HTTP server of ``--debug``: counters and state for people and monitoring, on the loopback interface only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import NamedTuple

from meshd.base.errors import MeshdError
from meshd.base.log import get_logger, kv
from meshd.io.listenaddress import parse_listen
from meshd.wire.requesttarget import read_target

log = get_logger(__name__)

REQUEST_S = 5.0
MAX_CONNECTIONS = 64
"""Every program of this host may connect, and each connection holds a descriptor and perhaps an answer."""
_MAX_REQUEST = 8192

METRICS, JSON_TEXT, TEXT = "text/plain; version=0.0.4", "application/json", "text/plain; charset=utf-8"
PROFILES = "/debug/pprof/"


class Page(NamedTuple):
    """What is at a path."""

    what: str
    content_type: str
    text: Callable[[], str]


def loopback_address(address: str) -> tuple[str, int]:
    """Host and port of ``host:port``; MeshdError "usage" when that is no loopback address."""
    refusal = MeshdError(
        f"--debug={address}: expected a loopback address and port", code="usage", hint="For example 127.0.0.1:9000"
    )
    if address.startswith("*"):
        raise refusal
    try:
        host, port = parse_listen(address, "--debug")
    except MeshdError:
        raise refusal from None
    host = host or "127.0.0.1"
    if not _is_loopback(host):
        raise refusal
    return host, port


class DebugServer:
    """Answers ``GET`` for ``pages`` by path, and lists them at ``/debug/``."""

    def __init__(self, pages: Mapping[str, Page]) -> None:
        self._pages = pages
        self._server: asyncio.Server | None = None
        self._connections = 0

    async def start(self, address: str) -> None:
        """Listen on ``host:port``; MeshdError "usage" when it is no loopback address or cannot be had."""
        host, port = loopback_address(address)
        try:
            self._server = await asyncio.start_server(self._serve, host, port, limit=_MAX_REQUEST)
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
        if self._connections >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        self._connections += 1
        try:
            async with asyncio.timeout(REQUEST_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(head))
                writer.close()
                await writer.wait_closed()  # when all has left
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError, OSError) as error:
            log.debug("debug_request_failed", extra=kv(reason=error))
        finally:
            writer.transport.abort()  # what a client does not take would be kept for as long as it likes
            self._connections -= 1

    def _answer(self, head: bytes) -> bytes:
        lines = head.split(b"\r\n")
        words = lines[0].split(b" ")
        if len(words) != 3 or words[0] != b"GET":
            return _response("405 Method Not Allowed", "use GET\n")
        try:
            target = read_target(words[1].decode("latin-1"))
        except ValueError as error:
            return _response("400 Bad Request", f"malformed request target: {error}\n")
        if not _asks_for_loopback(lines[1:], target.authority):
            return _response("403 Forbidden", "this server is for programs on this machine\n")
        path = target.path
        if path in ("/debug", "/debug/"):
            return _response("200 OK", "".join(f"{where}\t{page.what}\n" for where, page in self._pages.items()))
        page = self._pages.get(path)
        if page is not None:
            return _response("200 OK", page.text(), page.content_type)
        if path.startswith(PROFILES):
            return _response("501 Not Implemented", "this program keeps no such profile; see /debug/pprof/goroutine\n")
        return _response("404 Not Found", "see /debug/\n")


def _asks_for_loopback(lines: list[bytes], authority: str) -> bool:
    """Whether Host, or the authority of a whole URL in its place, is a loopback address, as it is for whoever knows
    where this server is. A web page that was given our address by a name server of its own (DNS rebinding) has its own
    name there; it may not read our answer."""
    hosts = [value.strip() for name, _, value in (line.partition(b":") for line in lines) if name.lower() == b"host"]
    if len(hosts) > 1 or any(line.lower().startswith((b"origin:", b"referer:")) for line in lines):
        return False
    host = authority or (hosts[0].decode("latin-1") if hosts else "localhost")
    name, colon, port = host.rpartition(":")
    if colon and port.isdigit():
        host = name
    return _is_loopback(host.strip("[]"))


def _response(status: str, text: str, content_type: str = TEXT) -> bytes:
    body = text.encode()
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    ).encode() + body


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
