"""An HTTP/1.1 server on one listening socket, Unix or TCP.

    server = HttpServer(handler)
    await server.start(listening_socket)
    …
    await server.close()

`handler` is `async (Request) -> Response`; it may raise HttpError. Requests of one connection run one after the other,
those of different connections at the same time.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable

from meshd.io.http.h1connection import Connection, Handler
from meshd.io.http.h1limits import ConnectionOwner, Limits
from meshd.io.http.h1message import ClientGone, HttpError, Request, Response, parse_query, reason_phrase, text_response
from meshd.io.peercred import PeerIdentity, peer_identity

__all__ = [
    "LISTEN_BACKLOG",
    "ClientGone",
    "HttpError",
    "HttpServer",
    "Limits",
    "Request",
    "Response",
    "parse_query",
    "reason_phrase",
    "text_response",
]

LISTEN_BACKLOG = 4096
"""Clients that may wait to be accepted, as far as the system lets (net.core.somaxconn). A Unix socket turns away at
once who finds no room, and programs take that for a daemon that does not run."""


class HttpServer:
    """Serves until closed."""

    def __init__(
        self,
        handler: Handler,
        *,
        limits: Limits = Limits(),  # noqa: B008 (immutable)
        identify: Callable[[int], PeerIdentity | None] = peer_identity,
    ) -> None:
        self._handler = handler
        self._identify = identify
        self._limits = limits
        self._owner = ConnectionOwner(limits)
        self._server: asyncio.AbstractServer | None = None

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._owner.open)

    async def start(self, sock: socket.socket, *, tls: ssl.SSLContext | None = None) -> None:
        """Accept on a bound socket from now on; the server closes it in the end."""
        loop = asyncio.get_running_loop()
        if sock.family == socket.AF_UNIX:
            self._server = await loop.create_unix_server(self._connection, sock=sock, backlog=LISTEN_BACKLOG)
        else:
            self._server = await loop.create_server(self._connection, sock=sock, ssl=tls, backlog=LISTEN_BACKLOG)

    async def close(self, grace_s: float = 1.0) -> None:
        """Stop accepting, end idle connections, give running requests `grace_s` seconds, then cut them."""
        self._owner.closing = True
        if self._server is not None:
            self._server.close()
        tasks = [c.task for c in self._owner.open if c.task is not None and c.task is not asyncio.current_task()]
        for connection in self._owner.open:
            if connection.idle and connection.task is not None:
                connection.task.cancel()
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=grace_s)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=grace_s)

    def _connection(self) -> Connection:
        return Connection(self._handler, self._limits, self._identify, self._owner)
