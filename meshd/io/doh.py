"""Questions over HTTP (RFC 8484): to public resolvers over TLS, to exit nodes inside the network."""

from __future__ import annotations

import asyncio
import socket
from urllib.parse import urlsplit

from meshd.base.addr import AddrPort
from meshd.base.errors import MeshdError
from meshd.io.dial import ATTEMPT_DELAY, first_success
from meshd.io.http.h1client import fetch
from meshd.io.http.h2client import H2Client
from meshd.io.streams import SocketStream
from meshd.io.tls import CertificateCheck
from meshd.io.tlsstream import TlsStream

IDLE_S = 10.0  # how long a connection to a public resolver is kept without a question
DOUBT_S, PROBE_PATIENCE_S = 1.0, 1.5  # without an answer until the server is asked whether it is there, and after that
MAX_MESSAGE = 65535
_MESSAGE = "application/dns-message"
_FIELDS = (("content-type", _MESSAGE), ("accept", _MESSAGE))


async def ask_peer(url: str, where: AddrPort, query: bytes) -> bytes:
    """The response of a peer's PeerAPI. Raises OSError or MeshdError."""
    _, stream = await asyncio.get_running_loop().create_connection(SocketStream, str(where.ip), where.port)
    try:
        ends = stream.ends
        if ends is None or ends[0] == ends[1]:
            raise ConnectionError("it is no peer but this host")
        parts = urlsplit(url)
        fields = (("Host", parts.netloc), *_FIELDS)
        answer = await fetch(stream, "POST", parts.path or "/", fields, query, limit=MAX_MESSAGE)
    finally:
        stream.close()
    return _content(answer.status, answer.headers, answer.body)


class DohClients:
    """Connections to public resolvers, one for each, kept while there are questions. ``close`` when done."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._clients: dict[str, H2Client] = {}
        self._dialling: dict[str, asyncio.Task[H2Client]] = {}
        self._idle: dict[str, asyncio.TimerHandle] = {}

    async def ask(self, url: str, addresses: tuple[AddrPort, ...], query: bytes) -> bytes:
        """The response of the resolver of this URL, at one of these addresses. Raises OSError or MeshdError."""
        reused = url in self._clients
        try:
            return await self._asked(url, addresses, query)
        except ConnectionError:
            if not reused:
                raise
        return await self._asked(url, addresses, query)  # by another connection: that one had died unnoticed

    async def _asked(self, url: str, addresses: tuple[AddrPort, ...], query: bytes) -> bytes:
        parts = urlsplit(url)
        client = await self._client(url, parts.hostname or "", parts.netloc, addresses)
        self._use(url)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        # After a change of the network, another default route say, a connection may get nowhere, and nobody tells.
        doubt = self._loop.call_later(DOUBT_S, client.probe, PROBE_PATIENCE_S)
        try:
            answer = await client.request("POST", path, _FIELDS, query, limit=MAX_MESSAGE)
        finally:
            doubt.cancel()
        return _content(answer.status, answer.headers, answer.body)

    def close(self) -> None:
        for task in self._dialling.values():
            task.cancel()
        for url in list(self._clients):
            self._drop(url)

    async def _client(self, url: str, host: str, authority: str, addresses: tuple[AddrPort, ...]) -> H2Client:
        client = self._clients.get(url)
        if client is not None and client.usable:
            return client
        task = self._dialling.get(url)
        if task is None:
            task = self._dialling[url] = self._loop.create_task(self._dial(url, host, authority, addresses))
            task.add_done_callback(lambda done: self._dialled(url, done))
        return await asyncio.shield(task)  # others may wait for the same connection

    def _dialled(self, url: str, task: asyncio.Task[H2Client]) -> None:
        del self._dialling[url]
        if not task.cancelled():
            task.exception()  # those who waited were told

    async def _dial(self, url: str, host: str, authority: str, addresses: tuple[AddrPort, ...]) -> H2Client:
        stream = await first_success([_secure(host, where) for where in addresses], ATTEMPT_DELAY)
        self._drop(url)
        client = self._clients[url] = H2Client(stream, authority)
        self._use(url)
        return client

    def _use(self, url: str) -> None:
        timer = self._idle.pop(url, None)
        if timer is not None:
            timer.cancel()
        self._idle[url] = self._loop.call_later(IDLE_S, self._rest, url)

    def _rest(self, url: str) -> None:
        client = self._clients.get(url)
        if client is not None and client.usable and client.open_exchanges:
            self._use(url)
        else:
            self._drop(url)

    def _drop(self, url: str) -> None:
        timer = self._idle.pop(url, None)
        if timer is not None:
            timer.cancel()
        client = self._clients.pop(url, None)
        if client is not None:
            client.close()


async def _secure(host: str, where: AddrPort) -> TlsStream:
    """A TLS connection to one address of a host that speaks HTTP/2."""
    loop = asyncio.get_running_loop()
    family = socket.AF_INET if where.ip.version == 4 else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await loop.sock_connect(sock, (str(where.ip), where.port))
        _, inner = await loop.create_connection(SocketStream, sock=sock)
    except BaseException:
        sock.close()
        raise
    stream = TlsStream(inner, CertificateCheck(host), alpn=("h2",))
    try:
        await stream.handshake()
    except BaseException:
        stream.close()
        raise
    if stream.engine.version != "TLSv1.3":
        stream.close()
        raise ConnectionError(f"{host} speaks {stream.engine.version}, wanted is TLSv1.3")
    return stream


def _content(status: int, headers: dict[str, str], body: bytes) -> bytes:
    if status != 200:
        raise MeshdError(f"HTTP status {status}", code="http")
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _MESSAGE:
        raise MeshdError(f"the answer is {kind[:60]!r}, not {_MESSAGE}", code="http")
    return body
