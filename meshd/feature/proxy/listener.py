"""What proxies have in common: a TCP listener with a limit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from meshd.base.errors import MeshdError, WireError
from meshd.base.log import get_logger, kv
from meshd.io.descriptors import descriptors_for
from meshd.io.joinstreams import close_within
from meshd.io.listenaddress import parse_listen

log = get_logger(__name__)

MAX_CONNECTIONS = 1024  # per listener; each holds two descriptors
SHARE = 8  # of the descriptors for one listener's connections: any user may have them, and root's are to be left
FIRST_BYTE_S = 10.0
LAST_BYTE_S = 30.0  # for either end to take what is left
_SOCKS_VERSION = 5

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Dial = Callable[[str, int], Awaitable[Connection]]
Serve = Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""Serves one connection; the bytes are the first that came."""


class ProxyListener:
    """``start`` listens, ``close`` ends every connection. ``flag`` is named where the address cannot be had."""

    def __init__(self, serve: Serve, flag: str) -> None:
        self._serve = serve
        self._flag = flag
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._most = MAX_CONNECTIONS

    async def start(self, address: str) -> None:
        """MeshdError when the address cannot be listened on."""
        host, port = parse_listen(address, self._flag)
        self._most = min(MAX_CONNECTIONS, max(1, descriptors_for(MAX_CONNECTIONS * SHARE) // SHARE))
        try:
            self._server = await asyncio.start_server(self._accept, host or None, port)
        except (OSError, UnicodeError) as error:  # the latter for what can be no host's name
            reason = getattr(error, "strerror", None) or "there can be no such host"
            raise MeshdError(f"{self._flag}: cannot listen on {address}: {reason}", code="usage") from None

    @property
    def port(self) -> int:
        assert self._server is not None
        number: int = self._server.sockets[0].getsockname()[1]
        return number

    @property
    def address(self) -> str:
        """Where it listens, as host:port."""
        assert self._server is not None
        host, number, *_ = self._server.sockets[0].getsockname()
        return f"[{host}]:{number}" if ":" in host else f"{host}:{number}"

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2.0)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= self._most:
            writer.close()
            return
        task = asyncio.get_running_loop().create_task(self._run(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(FIRST_BYTE_S):
                first = await reader.read(1)
            if first:
                await self._serve(first, reader, writer)
        except (WireError, TimeoutError, OSError) as error:
            log.debug("proxy_connection_ended", extra=kv(reason=error))
        except asyncio.CancelledError:
            writer.transport.abort()  # the end of the daemon waits for no client
            raise
        finally:
            await close_within(writer, LAST_BYTE_S)


def either(socks: Serve, http: Serve) -> Serve:
    """Both kinds of proxy at one address: the first byte of SOCKS5 is its version, which begins no HTTP request."""

    async def serve(first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await (socks if first[0] == _SOCKS_VERSION else http)(first, reader, writer)

    return serve
