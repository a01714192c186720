"""A SOCKS5 server through which programs of this host reach the mesh.

CONNECT only, no authentication: it listens where the operator says, which should be a loopback address.
Names of mesh nodes are answered from the netmap, other names by the system.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from ipaddress import ip_address

from meshd.base.errors import MeshdError, WireError
from meshd.base.log import get_logger, kv
from meshd.wire import socks

log = get_logger(__name__)

HANDSHAKE_S = 10.0
CONNECT_S = 30.0
MAX_CONNECTIONS = 1024  # per listener; each holds two descriptors
_CHUNK = 1 << 16
_MAX_HANDSHAKE = 600  # the longest greeting and request together

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Dial = Callable[[str, int], Awaitable[Connection]]

_REPLIES = {
    errno.ECONNREFUSED: socks.Reply.CONNECTION_REFUSED,
    errno.ENETUNREACH: socks.Reply.NETWORK_UNREACHABLE,
    errno.EHOSTUNREACH: socks.Reply.HOST_UNREACHABLE,
    errno.ETIMEDOUT: socks.Reply.TTL_EXPIRED,
}


def split_address(address: str) -> tuple[str, int]:
    """Host and port of ``host:port``; an empty host means every address. MeshdError "usage" otherwise."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise MeshdError(f"{address!r} is not host:port", code="usage", hint="For example localhost:1080")
    return host.strip("[]"), int(port)


class Socks5Server:
    """``start`` listens, ``close`` ends every connection."""

    def __init__(self, dial: Dial) -> None:
        self._dial = dial
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, address: str) -> None:
        """MeshdError when the address cannot be listened on."""
        host, port = split_address(address)
        try:
            self._server = await asyncio.start_server(self._accept, host or None, port)
        except OSError as error:
            raise MeshdError(f"--socks5-server: cannot listen on {address}: {error.strerror}", code="usage") from None

    @property
    def port(self) -> int:
        assert self._server is not None
        number: int = self._server.sockets[0].getsockname()[1]
        return number

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2.0)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= MAX_CONNECTIONS:
            writer.close()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                request, rest = await _handshake(reader, writer)
            await self._connect(request, rest, reader, writer)
        except (WireError, TimeoutError, OSError) as error:
            log.debug("socks_connection_ended", extra=kv(reason=error))
        finally:
            writer.close()

    async def _connect(
        self, request: socks.ConnectRequest, rest: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if request.command != socks.CONNECT:
            writer.write(socks.encode_reply(socks.Reply.COMMAND_NOT_SUPPORTED))
            await writer.drain()
            return
        try:
            async with asyncio.timeout(CONNECT_S):
                far_reader, far_writer = await self._dial(request.host, request.port)
        except TimeoutError:
            writer.write(socks.encode_reply(socks.Reply.HOST_UNREACHABLE))
            return
        except OSError as error:
            writer.write(socks.encode_reply(_REPLIES.get(error.errno or 0, socks.Reply.HOST_UNREACHABLE)))
            return
        try:
            bound = far_writer.get_extra_info("sockname")
            writer.write(socks.encode_reply(socks.Reply.SUCCEEDED, ip_address(bound[0].partition("%")[0]), bound[1]))
            if rest:
                far_writer.write(rest)
            await _relay(reader, writer, far_reader, far_writer)
        finally:
            far_writer.close()


async def _handshake(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[socks.ConnectRequest, bytes]:
    """Greeting, method, request; returns the request and bytes that came after it."""
    data = b""
    greeting = None
    while True:
        if greeting is None and (greeting := socks.decode_greeting(data)) is not None:
            methods, used = greeting
            data = data[used:]
            if socks.NO_AUTHENTICATION not in methods:
                writer.write(socks.encode_method(socks.NO_ACCEPTABLE_METHOD))
                raise WireError("the client offers no method that this server has")
            writer.write(socks.encode_method(socks.NO_AUTHENTICATION))
        if greeting is not None and (request := socks.decode_request(data)) is not None:
            return request[0], data[request[1] :]
        more = await reader.read(_MAX_HANDSHAKE)
        if not more or len(data) > _MAX_HANDSHAKE:
            raise WireError("the SOCKS handshake ended early")
        data += more


async def _relay(
    near_reader: asyncio.StreamReader,
    near_writer: asyncio.StreamWriter,
    far_reader: asyncio.StreamReader,
    far_writer: asyncio.StreamWriter,
) -> None:
    """Copy both ways until both sides have ended; a side that ends is passed on as half-closed."""
    async with asyncio.TaskGroup() as group:
        group.create_task(_copy(near_reader, far_writer))
        group.create_task(_copy(far_reader, near_writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.transport.abort()
