"""An HTTP proxy through which programs of this host reach the mesh (RFC 9110 7.6, 9.3.6).

CONNECT makes a tunnel; a request with an absolute URL is passed on with its body, one request a connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from urllib.parse import urlsplit

import h11

from meshd.base.errors import WireError
from meshd.feature.proxy.listener import LAST_BYTE_S, Dial, Serve
from meshd.io.joinstreams import close_within, join_streams

REQUEST_S = 10.0  # for the head of a request
CONNECT_S = 30.0
MAX_HEAD_BYTES = 64 * 1024
_CHUNK = 1 << 16
_HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"proxy-authorization", b"te", b"trailer", b"upgrade")
)
"""Headers that end here (RFC 9110 7.6.1); what Connection names goes with them."""

_Headers = list[tuple[bytes, bytes]]


class _Refused(Exception):
    """The client is answered with a status and one line."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def http_proxy(dial: Dial) -> Serve:
    """Serves connections of HTTP clients that use us as their proxy."""

    async def serve(first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = _Peer(h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES), reader, writer)
        client.http.receive_data(first)
        try:
            async with asyncio.timeout(REQUEST_S):
                request = await client.next_event()
            if not isinstance(request, h11.Request):
                return
            if request.method == b"CONNECT":
                await _tunnel(dial, client, request.target)
            else:
                await _forward(dial, client, request)
        except _Refused as refused:
            await _refuse(client, refused)
        except h11.RemoteProtocolError as error:
            await _refuse(client, _Refused(error.error_status_hint, str(error)))

    return serve


class _Peer:
    """An HTTP/1.1 connection: h11 and the streams below it."""

    def __init__(self, http: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.http = http
        self.reader = reader
        self.writer = writer

    async def next_event(self) -> object:
        while True:
            event = self.http.next_event()
            if event is not h11.NEED_DATA:
                return event
            self.http.receive_data(await self.reader.read(_CHUNK))

    async def send(self, event: h11.Event) -> None:
        data = self.http.send(event)
        if data:
            self.writer.write(data)
            await self.writer.drain()


async def _tunnel(dial: Dial, client: _Peer, target: bytes) -> None:
    host, port = _authority(target, None)
    far_reader, far_writer = await _dial(dial, host, port)
    try:
        client.writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        rest, _ = client.http.trailing_data
        if rest:
            far_writer.write(rest)
        await join_streams(client.reader, client.writer, far_reader, far_writer)
    finally:
        await close_within(far_writer, LAST_BYTE_S)


async def _forward(dial: Dial, client: _Peer, request: h11.Request) -> None:
    try:
        parts = urlsplit(request.target)
    except ValueError:
        raise _Refused(400, "bogus RequestURI; it is no URL") from None
    if parts.scheme.lower() != b"http" or not parts.netloc:
        raise _Refused(400, "bogus RequestURI; must be absolute URL or CONNECT")
    host, port = _authority(parts.netloc.rpartition(b"@")[2], 80)
    far = _Peer(h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES), *await _dial(dial, host, port))
    target = (parts.path or b"/") + (b"?" + parts.query if parts.query else b"")
    headers = [(name, value) for name, value in _end_to_end(request.headers) if name != b"host"]
    headers = [(b"host", parts.netloc.rpartition(b"@")[2]), *headers, (b"connection", b"close")]
    try:
        await far.send(h11.Request(method=request.method, target=target, headers=headers))
        await _exchange(client, far)
    except (h11.RemoteProtocolError, h11.LocalProtocolError, OSError) as problem:
        if client.http.our_state is not h11.SEND_RESPONSE and client.http.our_state is not h11.IDLE:
            raise ConnectionError(str(problem)) from None  # the answer has begun: all there is is an end
        raise _Refused(502, f"the server does not answer properly: {problem}") from None
    finally:
        far.writer.transport.abort()  # its answer is over: what it has not taken yet is of no use


async def _exchange(client: _Peer, far: _Peer) -> None:
    """The body goes to the server while its answer comes back; the answer ends both, as does a failure of either."""
    upload = asyncio.ensure_future(_pass_on(client, far))
    answer = asyncio.ensure_future(_answer(far, client))
    try:
        await asyncio.wait((upload, answer), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            upload.result()
        await answer
    finally:
        upload.cancel()
        answer.cancel()
        await asyncio.gather(upload, answer, return_exceptions=True)


async def _pass_on(source: _Peer, to: _Peer) -> None:
    """The body of a message."""
    while True:
        event = await source.next_event()
        if not isinstance(event, h11.Data | h11.EndOfMessage):
            raise ConnectionError("the connection ended within a message")
        await to.send(event)
        if isinstance(event, h11.EndOfMessage):
            return


async def _answer(far: _Peer, client: _Peer) -> None:
    while True:
        event = await far.next_event()
        if isinstance(event, h11.InformationalResponse):
            await client.send(event)
        elif isinstance(event, h11.Response):
            headers = [*_end_to_end(event.headers), (b"connection", b"close")]
            await client.send(h11.Response(status_code=event.status_code, headers=headers, reason=event.reason))
            await _pass_on(far, client)
            return
        else:
            raise ConnectionError("the connection ended before an answer")


def _end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> _Headers:
    named = {word.strip().lower() for name, value in headers if name == b"connection" for word in value.split(b",")}
    return [(name, value) for name, value in headers if name not in _HOP_BY_HOP and name not in named]


def _authority(text: bytes, default: int | None) -> tuple[str, int]:
    host, colon, digits = text.rpartition(b":")
    if colon and digits.isdigit() and len(digits) <= 5 and 0 < int(digits) <= 65535:
        port: int | None = int(digits)
    else:
        host, port = text, None if colon and not text.endswith(b"]") else default
    name = host.strip(b"[]").decode("latin-1")
    if port is None or not name:
        raise _Refused(400, "the request names no host and port")
    return name, port


async def _dial(dial: Dial, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        async with asyncio.timeout(CONNECT_S):
            return await dial(host, port)
    except TimeoutError:
        raise _Refused(504, f"{host} port {port} does not answer") from None
    except (OSError, UnicodeError) as error:
        raise _Refused(502, f"cannot connect to {host} port {port}: {error}") from None


async def _refuse(client: _Peer, refused: _Refused) -> None:
    """Tell the client, as far as it can still be told."""
    text = "".join(c if c.isprintable() else "?" for c in str(refused))[:200].encode("latin-1", "replace")
    headers = [
        (b"content-type", b"text/plain"),
        (b"content-length", b"%d" % (len(text) + 1)),
        (b"connection", b"close"),
    ]
    try:
        await client.send(h11.Response(status_code=refused.status, headers=headers))
        await client.send(h11.Data(text + b"\n"))
        await client.send(h11.EndOfMessage())
    except h11.LocalProtocolError:
        raise WireError(str(refused)) from None
