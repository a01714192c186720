"""Requests that the server makes of us through the map stream: liveness, pings of peers, calls to the node."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from meshd.base.addr import is_address, parse_ip
from meshd.base.errors import MeshdError, WireError
from meshd.base.log import get_logger, kv
from meshd.core.controladdress import ControlAddress
from meshd.io.http.h1client import fetch
from meshd.io.noise import open_stream
from meshd.wire.control import PingRequest, PingResponse, encode
from meshd.wire.httpmessage import MessageResponse, read_request, write_response

if TYPE_CHECKING:
    from meshd.io.streams import SocketStream
    from meshd.node.controllink import ControlLink

log = get_logger(__name__)

ANSWER_TIMEOUT = 15.0  # s for posting a result or the bare HEAD
PING_TIMEOUT = 10.0  # s for one ping
CALL_TIMEOUT = 60.0  # s for a call to the node and its answer
MAX_UNDER_WAY = 16  # answers at a time; more than that is a server gone wrong
ANSWER_LIMIT = 64 * 1024  # bytes of what the server says to an answer
PING_TYPES = ("disco", "TSMP", "ICMP", "peerapi")
MAX_TYPES = 16  # of one request that are looked at

_FAILURES = (MeshdError, ConnectionError, TimeoutError)

PingHandler = Callable[[str, str], Awaitable[PingResponse]]
"""(type, address) -> outcome. Raises MeshdError when the ping could not even be tried."""


class PingAnswerer:
    """Answers the server's requests in the background."""

    def __init__(
        self, link: ControlLink, on_ping: PingHandler | None, c2n: Callable[[bytes], Awaitable[bytes]]
    ) -> None:
        self._link = link
        self._on_ping = on_ping
        self._c2n = c2n
        self._tasks: set[asyncio.Task[None]] = set()

    def handle(self, request: PingRequest) -> None:
        """Start answering; failures are logged, the server will notice by itself."""
        if len(self._tasks) >= MAX_UNDER_WAY:
            log.warning("control_ping_dropped", extra=kv(types=request.types))
            return
        task = asyncio.get_running_loop().create_task(self._answer(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Give up on what is under way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, request: PingRequest) -> None:
        try:
            if request.types == "c2n":
                await self._call(request)
            elif request.types:
                await self._ping(request)
            else:
                async with asyncio.timeout(ANSWER_TIMEOUT):
                    await self._send("HEAD", request.url, b"", noise=request.url_is_noise)
        except _FAILURES as error:
            _note_failure(request.types, error)

    async def _ping(self, request: PingRequest) -> None:
        if self._on_ping is None:
            return
        asked = request.types.split(",", MAX_TYPES)[:MAX_TYPES]
        kinds = dict.fromkeys(kind for kind in asked if kind in PING_TYPES)
        await asyncio.gather(*(self._ping_by(kind, request, self._on_ping) for kind in kinds))

    async def _ping_by(self, kind: str, request: PingRequest, on_ping: PingHandler) -> None:
        try:
            async with asyncio.timeout(PING_TIMEOUT):
                outcome = await on_ping(kind, request.ip)
            async with asyncio.timeout(ANSWER_TIMEOUT):
                await self._send("POST", request.url, encode(outcome), noise=request.url_is_noise)
        except _FAILURES as error:
            _note_failure(kind, error)

    async def _call(self, request: PingRequest) -> None:
        """A call is answered inside Noise, whatever the URL says: its host part means nothing."""
        async with asyncio.timeout(CALL_TIMEOUT):
            answer = await self._c2n(request.payload or b"")
            await self._send("POST", request.url, answer, noise=True)

    async def _send(self, method: str, url: str, body: bytes, *, noise: bool) -> None:
        try:
            parts = urlsplit(url)
            port, host = parts.port, (parts.hostname or "").encode("ascii").decode()
        except ValueError:
            raise MeshdError("the server gave an unusable URL for an answer", code="control-garbage") from None
        target = parts.path or "/"
        if parts.query:
            target += "?" + parts.query
        if not target.isascii() or not target.isprintable() or " " in target:
            raise MeshdError("the server gave an unusable URL for an answer", code="control-garbage")
        if noise:
            client = await self._link.connection()
            await client.request(method, target, (), body, limit=ANSWER_LIMIT)
            return
        if parts.scheme not in ("http", "https") or not host or not host.isprintable() or " " in host:
            raise MeshdError("the server gave an unusable URL for an answer", code="control-garbage")
        https = parts.scheme == "https"
        port = port or (443 if https else 80)
        address = ControlAddress(https, host, port, None, None)
        stream = await open_stream(address, port, tls=https, verify=True)
        try:
            if not _is_of_server(address, self._link.address) and not _is_elsewhere(stream):
                raise MeshdError("the server wants an answer at an address of this network", code="control-garbage")
            headers = [("Host", address.authority), ("User-Agent", "meshd"), ("Connection", "close")]
            await fetch(stream, method, target, headers, body, limit=ANSWER_LIMIT)
        finally:
            stream.close()


def _is_of_server(address: ControlAddress, server: ControlAddress) -> bool:
    """One of the server's own ports; where the user gave its address, any there. A name could mean this host by now."""
    if address.host != server.host:
        return False
    given = "%" not in server.host and is_address(server.host)
    return given or address.port in (server.port, server.plain_port, server.tls_port)


def _is_elsewhere(stream: SocketStream) -> bool:
    """Whether a connection leads to the Internet. A server that could have us ask whatever it likes at an address of
    its choice would reach the services of this host, its networks and its cloud that trust whoever is there."""
    ends = stream.ends
    if ends is None:
        return False  # it broke at once
    far = parse_ip(ends[1].partition("%")[0])
    return far.is_global and not far.is_multicast and ends[0] != ends[1]


def _note_failure(types: str, error: Exception) -> None:
    log.info("control_ping_failed", extra=kv(types=types, reason=str(error) or type(error).__name__))


async def answer_c2n(payload: bytes) -> bytes:
    """For a client that serves no calls: /echo gives the body back, so that the server sees us alive."""
    try:
        request = read_request(payload)
    except WireError:
        return write_response(MessageResponse(400, b"bad request\n"))
    if request.path == "/echo":
        return write_response(MessageResponse(200, request.body))
    return write_response(MessageResponse(400, b"unknown c2n path\n"))
