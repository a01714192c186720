"""A TCP listener whose one port serves plain and TLS connections.

The first byte of a connection decides: 0x16 opens a TLS handshake record (RFC 8446 5.1), everything else is
taken as plain text. The byte is only peeked at, so either transport sees the whole stream.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from meshd.base.addr import parse_ip
from meshd.base.errors import MeshdError
from meshd.base.log import get_logger, kv
from meshd.core.ratelimit import source_network
from meshd.io.descriptors import descriptors_for

log = get_logger(__name__)

TLS_HANDSHAKE_BYTE = b"\x16"
SNIFF_TIMEOUT_S = 10.0
"""How long a connection may stay silent before its first byte."""
TLS_HANDSHAKE_TIMEOUT_S = 10.0
ACCEPT_BATCH = 64
"""Connections accepted per turn of the loop, so that a flood cannot starve it."""
BACKLOG = 1024
KEEPALIVE_IDLE_S = 30
KEEPALIVE_INTERVAL_S = 10
KEEPALIVE_COUNT = 3
UNACKNOWLEDGED_MS = 60_000
"""Sent bytes that nobody acknowledged for this long end the connection."""
SOURCE_SHARE = 4
"""One source (an IPv4 address, the /64 of an IPv6 one) may hold this fraction of all connections, so that a single
host cannot keep everybody else out. This host is exempt: a reverse proxy on it brings everybody's."""
ACCEPT_RETRY_S = 0.2
"""Pause after the process ran out of file descriptors."""

Address = tuple[Any, ...]
ProtocolFactory = Callable[[bool, Callable[[], None]], asyncio.Protocol]
"""Called with (is TLS, function to call when the connection is gone)."""


class SniffingListener:
    """Accepts on several addresses and starts a plain or TLS transport for each connection."""

    def __init__(
        self,
        factory: ProtocolFactory,
        *,
        tls: ssl.SSLContext | None,
        max_connections: int,
    ) -> None:
        self._factory = factory
        self._tls = tls
        self._max_connections = min(max_connections, descriptors_for(max_connections))
        self._per_source = max(1, self._max_connections // SOURCE_SHARE)
        self._sources: Counter[bytes] = Counter()
        self._sockets: list[socket.socket] = []
        self._sniffing: dict[socket.socket, tuple[asyncio.TimerHandle, bytes]] = {}
        self._starting: set[asyncio.Task[None]] = set()
        self._transports: set[asyncio.Transport] = set()
        self._all_gone = asyncio.Event()
        self._all_gone.set()
        self._connections = 0
        self._loop = asyncio.get_running_loop()
        self.refused = 0

    @property
    def connections(self) -> int:
        """Connections open now, the ones still being sniffed included."""
        return self._connections

    @property
    def port(self) -> int:
        """The port of the first listening socket (useful after listening on port 0)."""
        return int(self._sockets[0].getsockname()[1])

    def listen(self, host: str, port: int) -> None:
        """Start accepting on every address of `host`; an empty host means all addresses.

        Raises MeshdError "host" when an address cannot be bound: it may be there, or free, in a moment.
        """
        try:
            found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            addresses = sorted({(family, address) for family, _, _, _, address in found}, key=lambda a: a[0])
            for family, address in with_support(addresses):
                actual = (address[0], self.port, *address[2:]) if port == 0 and self._sockets else address
                self._sockets.append(_listening_socket(family, actual))
        except OSError as error:
            self.close()
            reason = error.strerror or error
            raise MeshdError(f"cannot listen on {host or '*'}:{port}: {reason}", code="host") from None
        for listening in self._sockets:
            self._loop.add_reader(listening.fileno(), self._accept, listening)

    def close(self) -> None:
        """Stop accepting. Connections that run go on; those still silent are closed."""
        for listening in self._sockets:
            self._loop.remove_reader(listening.fileno())
            listening.close()
        self._sockets.clear()
        for connection in list(self._sniffing):
            self._drop(connection)
        for task in self._starting:
            task.cancel()

    async def close_connections(self, grace_s: float) -> None:
        """End the connections that run: what they have written may still leave within `grace_s`."""
        for transport in list(self._transports):
            transport.close()
        try:
            async with asyncio.timeout(grace_s):
                await self._all_gone.wait()
        except TimeoutError:
            log.debug("connections_cut_off", extra=kv(count=len(self._transports)))
        for transport in list(self._transports):
            transport.abort()
        await asyncio.sleep(0)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(ACCEPT_BATCH):
            try:
                connection, address = listening.accept()
            except (BlockingIOError, ConnectionAbortedError, InterruptedError):
                return
            except OSError as error:
                log.warning("accept_failed", extra=kv(reason=str(error)))
                self._loop.remove_reader(listening.fileno())
                self._loop.call_later(ACCEPT_RETRY_S, self._resume, listening)
                return
            source = source_of(str(address[0]))
            if self._connections >= self._max_connections or self._sources[source] >= self._per_source:
                self.refused += 1
                connection.close()
                continue
            self._count(source, 1)
            connection.setblocking(False)
            _tune(connection)
            timer = self._loop.call_later(SNIFF_TIMEOUT_S, self._drop, connection)
            self._sniffing[connection] = timer, source
            self._loop.add_reader(connection.fileno(), self._sniff, connection)

    def _count(self, source: bytes, change: int) -> None:
        self._connections += change
        if source:
            self._sources[source] += change
            if not self._sources[source]:
                del self._sources[source]

    def _resume(self, listening: socket.socket) -> None:
        if listening in self._sockets:
            self._loop.add_reader(listening.fileno(), self._accept, listening)

    def _sniff(self, connection: socket.socket) -> None:
        try:
            first = connection.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            first = b""
        if not first or (first == TLS_HANDSHAKE_BYTE and self._tls is None):
            self._drop(connection)
            return
        timer, source = self._sniffing.pop(connection)
        timer.cancel()
        self._loop.remove_reader(connection.fileno())
        task = self._loop.create_task(self._start(connection, first == TLS_HANDSHAKE_BYTE, source))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _start(self, connection: socket.socket, encrypted: bool, source: bytes) -> None:
        released = False
        started: asyncio.Transport | None = None

        def release() -> None:
            nonlocal released
            if not released:
                released = True
                self._count(source, -1)
                if started is not None:
                    self._transports.discard(started)
                    if not self._transports:
                        self._all_gone.set()

        try:
            transport, _ = await self._loop.connect_accepted_socket(
                lambda: self._factory(encrypted, release),
                connection,
                ssl=self._tls if encrypted else None,
                ssl_handshake_timeout=TLS_HANDSHAKE_TIMEOUT_S if encrypted else None,
            )
            started = transport
            if not released:
                self._transports.add(started)
                self._all_gone.clear()
        except (TimeoutError, OSError) as error:
            log.debug("handshake_failed", extra=kv(reason=str(error)))
            connection.close()
            release()
        except asyncio.CancelledError:
            connection.close()
            release()
            raise

    def _drop(self, connection: socket.socket) -> None:
        waiting = self._sniffing.pop(connection, None)
        if waiting is None:
            return
        timer, source = waiting
        timer.cancel()
        self._loop.remove_reader(connection.fileno())
        connection.close()
        self._count(source, -1)


def with_support(addresses: Sequence[tuple[int, Address]]) -> Sequence[tuple[int, Address]]:
    """Those of a family that this host has, or all when it has none: every address is offered without IPv6, too."""
    return [entry for entry in addresses if _has_family(entry[0])] or addresses


def _has_family(family: int) -> bool:
    try:
        socket.socket(family, socket.SOCK_DGRAM).close()
    except OSError as error:
        return error.errno != errno.EAFNOSUPPORT
    return True


def source_of(address: str) -> bytes:
    """What counts as one source of connections; empty for this host, which is not counted."""
    ip = parse_ip(address.partition("%")[0])
    return b"" if ip.is_loopback else source_network(ip.packed)


def _tune(connection: socket.socket) -> None:
    """No delay for small writes; notice within about a minute that the other end vanished without a word."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_IDLE_S),
        ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL_S),
        ("TCP_KEEPCNT", KEEPALIVE_COUNT),
        ("TCP_USER_TIMEOUT", UNACKNOWLEDGED_MS),
    ):
        option = getattr(socket, name, None)
        if option is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


def _listening_socket(family: int, address: tuple[object, ...]) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setblocking(False)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening
