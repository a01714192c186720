"""HTTP/1.1 in front of a port that hands connections over to other protocols.

`FrontConnection` reads requests with h11, answers ordinary ones, and after an upgrade passes every further byte
to the stream that took over. It stays the transport's protocol for the whole life of the connection, so that
limits and the connection count hold in every phase.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol
from urllib.parse import parse_qs

import h11
import msgspec

from meshd.base.log import get_logger, kv
from meshd.wire.requesttarget import read_target

log = get_logger(__name__)

MAX_HEAD_BYTES = 16 * 1024
"""Request line and headers together."""
MAX_BODY_BYTES = 64 * 1024
"""Bodies outside Noise are tiny (the `/verify` question)."""
REQUEST_TIMEOUT_S = 10.0
"""From the first moment a request may come to its last byte."""
IDLE_TIMEOUT_S = 60.0
"""Silence allowed between two requests of one connection."""
STUCK_TIMEOUT_S = 60.0
"""How long answers may wait for a client that does not read them."""
READ_AHEAD_BYTES = 256 * 1024
"""What may pile up while a request is being handled."""


class Stream(Protocol):
    """What takes a connection over after an upgrade."""

    def data_received(self, data: bytes) -> None: ...
    def connection_lost(self) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


class Request(msgspec.Struct, frozen=True):
    """One request; header names are lower case, repeated headers joined with commas."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    peer_ip: str
    encrypted: bool

    def wants_upgrade(self) -> str:
        """The protocol named by `Upgrade`, in lower case; empty when there is none."""
        return self.headers.get("upgrade", "").strip().lower()


class Response(msgspec.Struct, frozen=True):
    """One complete answer."""

    status: int = 200
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


class Upgrade(msgspec.Struct, frozen=True):
    """Hand the connection over: write `head` (may be empty), then call `attach` with the transport."""

    head: bytes
    attach: Callable[[asyncio.Transport], Stream]


Handler = Callable[[Request], Awaitable[Response | Upgrade]]


class FrontConnection(asyncio.Protocol):
    """The server side of one connection."""

    def __init__(self, handler: Handler, encrypted: bool, released: Callable[[], None]) -> None:
        self._handler = handler
        self._encrypted = encrypted
        self._released = released
        self._http: h11.Connection | None = h11.Connection(h11.SERVER, MAX_HEAD_BYTES)
        self._stream: Stream | None = None
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._request: h11.Request | None = None
        self._body = bytearray()
        self._held = bytearray()
        self._lost = False
        self._paused = False
        self._peer_ip = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]
        peer = transport.get_extra_info("peername")
        self._peer_ip = str(peer[0]) if isinstance(peer, tuple) and peer else ""
        self._arm(REQUEST_TIMEOUT_S)

    def data_received(self, data: bytes) -> None:
        if self._stream is not None:
            self._stream.data_received(data)
            return
        if self._task is not None or self._paused:
            self._held += data
            if len(self._held) > READ_AHEAD_BYTES:
                self._abort()
            return
        http = self._http
        if http is None:
            return
        http.receive_data(data)
        self._advance(http)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._disarm()
        if self._task is not None:
            self._task.cancel()
        if self._stream is not None:
            self._stream.connection_lost()
        self._http = None
        self._released()

    def pause_writing(self) -> None:
        self._paused = True
        if self._stream is not None:
            self._stream.pause_writing()
        elif self._transport is not None and not self._transport.is_closing():
            # Whoever sends requests and reads no answer would fill our memory with answers.
            self._transport.pause_reading()
            self._arm(STUCK_TIMEOUT_S)

    def resume_writing(self) -> None:
        self._paused = False
        if self._stream is not None:
            self._stream.resume_writing()
        elif self._transport is not None and not self._transport.is_closing():
            self._disarm()
            self._transport.resume_reading()
            if self._http is not None and self._task is None:
                self._proceed(self._http)

    def _advance(self, http: h11.Connection) -> None:
        try:
            while True:
                event = http.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    return
                if isinstance(event, h11.Request):
                    self._request = event
                    self._body.clear()
                    if sum(len(name) + len(value) for name, value in event.headers) > MAX_HEAD_BYTES:
                        self._refuse(http, 431, b"request headers too large\n")
                        return
                    # After a 2xx answer to it a connection would be a tunnel (RFC 9110, 9.3.6).
                    if event.method == b"CONNECT":
                        self._refuse(http, 405, b"CONNECT is for proxies\n")
                        return
                    if http.they_are_waiting_for_100_continue:
                        self._refuse(http, 417, b"send the request without Expect\n")
                        return
                elif isinstance(event, h11.Data):
                    self._body += event.data
                    if len(self._body) > MAX_BODY_BYTES:
                        self._refuse(http, 413, b"request body too large\n")
                        return
                elif isinstance(event, h11.EndOfMessage):
                    self._disarm()
                    self._begin(http)
                    return
                else:
                    self._close()
                    return
        except h11.RemoteProtocolError as error:
            self._refuse(http, error.error_status_hint, b"malformed request\n")

    def _begin(self, http: h11.Connection) -> None:
        assert self._request is not None
        try:
            request = self._parse(self._request)
        except ValueError:
            self._refuse(http, 400, b"malformed target or query\n")
            return
        self._task = asyncio.get_running_loop().create_task(self._answer(request))

    def _parse(self, event: h11.Request) -> Request:
        headers: dict[str, str] = {}
        for raw_name, raw_value in event.headers:
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        target = read_target(event.target.decode("latin-1"))
        if target.authority:
            headers["host"] = target.authority
        query = {name: values[0] for name, values in parse_qs(target.query, max_num_fields=32).items()}
        return Request(
            event.method.decode("latin-1"),
            target.path,
            query,
            headers,
            bytes(self._body),
            self._peer_ip,
            self._encrypted,
        )

    async def _answer(self, request: Request) -> None:
        try:
            answer = await self._handler(request)
        except Exception as error:
            log.error("request_failed", extra=kv(path=request.path, reason=repr(error)), exc_info=error)
            answer = Response(500, b"internal error\n")
        self._task = None
        http, transport = self._http, self._transport
        if self._lost or http is None or transport is None or transport.is_closing():
            return
        if isinstance(answer, Upgrade):
            self._take_over(http, transport, answer)
            return
        self._send(http, answer, head=request.method == "HEAD")
        if http.our_state is h11.MUST_CLOSE or http.their_state is not h11.DONE:
            self._close()
            return
        if not self._paused:
            self._proceed(http)

    def _proceed(self, http: h11.Connection) -> None:
        """Go on to the next request, of which a part may be there already."""
        if http.our_state is h11.DONE:
            http.start_next_cycle()
        self._arm(IDLE_TIMEOUT_S)
        if self._held:
            held = bytes(self._held)
            self._held.clear()
            http.receive_data(held)
        self._advance(http)

    def _take_over(self, http: h11.Connection, transport: asyncio.Transport, upgrade: Upgrade) -> None:
        leftover = bytes(http.trailing_data[0]) + bytes(self._held)
        self._http = None
        self._request = None
        self._held = bytearray()
        if upgrade.head:
            transport.write(upgrade.head)
        self._stream = upgrade.attach(transport)
        if self._paused and not transport.is_closing():
            # The transport speaks of it once only, and has done so before there was a stream.
            self._disarm()
            transport.resume_reading()
            self._stream.pause_writing()
        if leftover and not transport.is_closing():
            self._stream.data_received(leftover)

    def _send(self, http: h11.Connection, answer: Response, *, head: bool) -> None:
        headers = [("Content-Length", str(len(answer.body))), *answer.headers]
        if answer.body:
            headers.append(("Content-Type", answer.content_type))
        parts = [http.send(h11.Response(status_code=answer.status, headers=headers))]
        if not head:
            parts.append(http.send(h11.Data(data=answer.body)))
        parts.append(http.send(h11.EndOfMessage()))
        assert self._transport is not None
        self._transport.write(b"".join(part for part in parts if part))

    def _refuse(self, http: h11.Connection, status: int, text: bytes) -> None:
        if http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            asked = self._request if http.our_state is h11.SEND_RESPONSE else None
            head = asked is not None and asked.method == b"HEAD"
            self._send(http, Response(status, text, headers=(("Connection", "close"),)), head=head)
        self._close()

    def _arm(self, delay_s: float) -> None:
        self._disarm()
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._abort)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close(self) -> None:
        self._disarm()
        if self._transport is not None:
            self._transport.close()
            if not self._lost:
                # The transport itself waits for ever for the last answer to be read.
                self._arm(STUCK_TIMEOUT_S)

    def _abort(self) -> None:
        self._disarm()
        if self._transport is not None:
            self._transport.abort()
