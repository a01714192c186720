"""One HTTP/1.1 connection of a server: an asyncio protocol around h11 (RFC 9112)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from typing import cast

import h11

from meshd.base.log import get_logger, kv
from meshd.io.http.h1limits import ConnectionOwner, Limits
from meshd.io.http.h1message import (
    ClientGone,
    Headers,
    HttpError,
    Request,
    Response,
    TakeOver,
    parse_query,
    reason_phrase,
    text_response,
)
from meshd.io.joinstreams import close_within
from meshd.io.peercred import PeerIdentity
from meshd.wire.requesttarget import read_target

log = get_logger(__name__)

Handler = Callable[[Request], Awaitable[Response]]

READ_AHEAD_BYTES = 64 * 1024
"""Bytes taken from a client before anything asked for them; reading pauses beyond."""
LINGER_BYTES = 8 << 20
"""Bytes of a refused body that are read and thrown away before the connection is cut."""
LINGER_S = 1.0
"""Seconds that this may take."""


_BODY_HEADERS = (b"content-length", b"transfer-encoding")


class _Closed(Exception):
    """Nothing more comes from the client."""


class _TimedOut(Exception):
    """The client kept us waiting for longer than its limit."""


class Connection(asyncio.Protocol):
    """Reads requests, runs the handler for each, writes the answers; ends itself."""

    def __init__(
        self, handler: Handler, limits: Limits, identify: Callable[[int], PeerIdentity | None], owner: ConnectionOwner
    ) -> None:
        self._handler = handler
        self._limits = limits
        self._identify = identify
        self._owner = owner
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.header_bytes)
        self._incoming = bytearray()
        self._paused_reading = False
        self._eof = False
        self._lost = False
        self._data_waiter: asyncio.Future[None] | None = None
        self._write_waiter: asyncio.Future[None] | None = None
        self._write_paused = False
        self._cut: asyncio.TimerHandle | None = None
        self._gone_task: asyncio.Task[None] | None = None
        self._gone_fired = False
        self._handed_over = False
        self._method = b""  # of the request whose head is being read
        self.idle = True
        """Between requests: may be closed at any time without harm."""
        self.peer: PeerIdentity | None = None
        self.task: asyncio.Task[None] | None = None

    # -- asyncio.Protocol ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family == socket.AF_UNIX:
            self.peer = self._identify(sock.fileno())
        if not self._owner.admit(self):
            log.warning("http_connection_refused", extra=kv(uid=self.peer.uid if self.peer else None))
            self._transport.abort()
            return
        self.task = asyncio.get_running_loop().create_task(self._run())

    def data_received(self, data: bytes) -> None:
        self._incoming += data
        if len(self._incoming) > READ_AHEAD_BYTES and not self._paused_reading:
            self._paused_reading = True
            self._transport.pause_reading()
        self._wake_reader()

    def eof_received(self) -> bool:
        self._eof = True
        self._wake_reader()
        self._fire_gone()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._eof = self._lost = True
        if self._cut is not None:
            self._cut.cancel()
        self._wake_reader()
        self._wake_writer()
        self._fire_gone()
        self._owner.forget(self)

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        self._wake_writer()

    # -- what a request uses ---------------------------------------------------------------------------------

    async def read_body_part(self, patience_s: float | None = None) -> bytes:
        if self._http.their_state is not h11.SEND_BODY:
            return b""
        if self._http.they_are_waiting_for_100_continue:
            self._write(self._http.send(h11.InformationalResponse(status_code=100, headers=[])))
        try:
            event = await self._next_event(self._limits.body_s if patience_s is None else patience_s)
        except (_Closed, h11.RemoteProtocolError):
            raise ClientGone from None
        except _TimedOut:
            raise HttpError(408, "request body not received in time") from None
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    def cancel_if_gone(self) -> AbstractContextManager[None]:
        return self._cancel_if_gone()

    @contextlib.contextmanager
    def _cancel_if_gone(self) -> Iterator[None]:
        if self._eof:
            raise ClientGone
        task = asyncio.current_task()
        self._gone_task, self._gone_fired = task, False
        try:
            yield
        except asyncio.CancelledError:
            if self._gone_fired and task is not None and task.uncancel() == 0:
                raise ClientGone from None
            raise
        finally:
            self._gone_task = None

    def _fire_gone(self) -> None:
        if self._gone_task is not None and not self._gone_fired:
            self._gone_fired = True
            self._gone_task.cancel()

    # -- the life of the connection --------------------------------------------------------------------------

    async def _run(self) -> None:
        first = True
        try:
            while await self._serve_one(self._limits.header_s if first else self._limits.idle_s):
                first = False
        except (ClientGone, _Closed, _TimedOut):
            log.debug("http_connection_ended")
        except Exception:
            log.exception("http_connection_failed")
        finally:
            if not self._handed_over:
                self._close()

    async def _serve_one(self, patience_s: float) -> bool:
        """Answer one request; False when the connection cannot carry another one."""
        try:
            request = await self._read_request(patience_s)
        except h11.RemoteProtocolError as error:
            self._refuse(error.error_status_hint, str(error))
            return False
        except HttpError as error:
            self._refuse(error.status, error.text)
            return False
        self.idle = False
        response = await self._answer(request)
        if response.take_over is not None:
            refusal = await self._hand_over(response, response.take_over)
            if refusal is None:
                return False
            response = refusal
        await self._send(request.method, response)
        await self._skip_body()
        if self._http.their_state is h11.SEND_BODY:
            await self._linger()
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE or self._owner.closing:
            return False
        self._http.start_next_cycle()
        self.idle = True
        return True

    async def _answer(self, request: Request) -> Response:
        try:
            return await self._handler(request)
        except HttpError as error:
            return _refusal(error)
        except ClientGone:
            raise
        except Exception:
            log.exception("http_handler_failed", extra=kv(method=request.method, path=request.raw_path))
            return text_response(500, "internal error, see the log of the daemon")

    async def _read_request(self, patience_s: float) -> Request:
        if not self._incoming and not self._http.trailing_data[0]:
            await self._wait_for_data(patience_s)
        self._method = b""
        event = await self._next_event(self._limits.header_s)
        if not isinstance(event, h11.Request):
            raise _Closed
        self._method = event.method
        if event.method == b"CONNECT":  # after a 2xx answer to it a connection is a tunnel (RFC 9110, 9.3.6)
            raise HttpError(405, "CONNECT is for proxies")
        if not any(name in _BODY_HEADERS for name, _ in event.headers):
            self._http.next_event()  # the end of a request without body, already here
        try:
            target = read_target(event.target.decode("ascii"))
        except ValueError as error:
            raise HttpError(400, f"malformed request target: {error}") from None
        headers = [(name.decode("ascii"), value.decode("latin-1")) for name, value in event.headers]
        if target.authority:
            headers = [("host", target.authority), *(pair for pair in headers if pair[0] != "host")]
        return Request(
            method=event.method.decode("ascii"),
            raw_path=target.path,
            query=parse_query(target.query),
            headers=headers,
            peer=self.peer,
            body_limit=self._limits.body_bytes,
            _side=self,
        )

    async def _next_event(self, patience_s: float) -> h11.Event | type[h11.PAUSED]:
        """The next thing the client says. A deadline, not a pause: dribbling does not prolong it."""
        deadline = asyncio.get_running_loop().time() + patience_s
        while True:
            if self._incoming:
                self._http.receive_data(bytes(self._incoming))
                self._incoming.clear()
                self._resume_reading()
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                await self._wait_for_data(deadline - asyncio.get_running_loop().time())
                if not self._incoming:
                    self._http.receive_data(b"")
            elif isinstance(event, h11.ConnectionClosed):
                raise _Closed
            else:
                return cast("h11.Event | type[h11.PAUSED]", event)

    async def _wait_for_data(self, patience_s: float) -> None:
        if self._incoming or self._eof:
            return
        loop = asyncio.get_running_loop()
        self._data_waiter = loop.create_future()
        timer = loop.call_later(max(patience_s, 0.0), self._wake_reader)
        try:
            await self._data_waiter
        finally:
            timer.cancel()
            self._data_waiter = None
        if not self._incoming and not self._eof:
            raise _TimedOut

    async def _skip_body(self) -> None:
        """Read what the handler left of the request, so that the connection can be used again."""
        skipped = 0
        while self._http.their_state is h11.SEND_BODY and self._http.our_state is h11.DONE:
            try:
                part = await self.read_body_part()
            except HttpError:  # it never came, and the answer is out already
                return
            skipped += len(part)
            if not part or skipped > READ_AHEAD_BYTES:
                return

    async def _linger(self) -> None:
        """Discard what a refused client is still sending: closing on it would destroy the answer on its way."""
        if self._transport.can_write_eof():
            self._transport.write_eof()
        discarded = 0
        deadline = asyncio.get_running_loop().time() + LINGER_S
        while discarded < LINGER_BYTES:
            discarded += len(self._incoming)
            self._incoming.clear()
            self._resume_reading()
            if self._eof:
                return
            await self._wait_for_data(deadline - asyncio.get_running_loop().time())

    # -- writing ---------------------------------------------------------------------------------------------

    async def _send(self, method: str, response: Response) -> None:
        body = response.body
        headers = [*response.headers]
        unread = self._http.their_state is h11.SEND_BODY and response.status >= 400
        if unread or self._http.they_are_waiting_for_100_continue or self._owner.closing:
            headers.append(("Connection", "close"))
        if isinstance(body, bytes):
            bodiless = method == "HEAD" or response.status in (204, 304)
            if response.status != 204:
                headers.append(("Content-Length", str(len(body))))
            self._write(
                self._head(response.status, headers)
                + (self._http.send(h11.Data(data=body)) or b"" if body and not bodiless else b"")
                + (self._http.send(h11.EndOfMessage()) or b"")
            )
            await self._drain(self._limits.write_s)
        else:
            await self._send_stream(self._head(response.status, headers), body, method, ends=response.ends)

    async def _send_stream(self, head: bytes, body: AsyncIterator[bytes], method: str, *, ends: bool) -> None:
        """Send parts until the source ends or the client leaves; the source is closed in either case."""
        patience_s = self._limits.write_s if ends else self._limits.pause_s
        try:
            self._write(head)
            if method != "HEAD":
                with contextlib.nullcontext() if ends else self.cancel_if_gone():
                    async for part in body:
                        if part:
                            self._write(self._http.send(h11.Data(data=part)))
                            await self._drain(patience_s)
            self._write(self._http.send(h11.EndOfMessage()))
        finally:
            close = getattr(body, "aclose", None)
            if close is not None:
                await close()

    def _close(self) -> None:
        """End the connection when the client has taken what was written, or takes nothing."""
        self._transport.close()
        if not self._lost and self._transport.get_write_buffer_size():
            loop = asyncio.get_running_loop()
            self._cut = loop.call_later(self._limits.write_s, self._transport.abort)

    def _head(self, status: int, headers: list[tuple[str, str]]) -> bytes:
        reason = reason_phrase(status).encode()
        return self._http.send(h11.Response(status_code=status, headers=headers, reason=reason)) or b""

    def _refuse(self, status: int, text: str) -> None:
        """Answer something that is not a request."""
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE) or self._lost:
            return
        body = text.encode() + b"\n"
        headers = [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ]
        head = self._head(status, headers)
        self._write(head + (self._http.send(h11.Data(data=body)) or b"" if self._method != b"HEAD" else b""))

    async def _hand_over(self, response: Response, take_over: TakeOver) -> Response | None:
        """Give the connection away until it ends; a refusal when the request did not come whole."""
        switched = False
        try:
            while self._http.their_state is h11.SEND_BODY:
                await self.read_body_part()
            reader, writer = self._switch(response.headers)
            switched = True
        except HttpError as error:
            return _refusal(error)
        finally:
            if not switched and response.abandon is not None:
                response.abandon()
        try:
            await take_over(reader, writer)
        except asyncio.CancelledError:
            self._transport.abort()
            raise
        finally:
            await close_within(writer, self._limits.write_s)
            self._owner.forget(self)
        return None

    def _switch(self, headers: Headers) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Say so, and make streams of the connection."""
        self._write(self._http.send(h11.InformationalResponse(status_code=101, headers=[*headers])))
        leftover = self._http.trailing_data[0] + bytes(self._incoming)
        self._incoming.clear()
        self._resume_reading()
        self._handed_over = True
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=READ_AHEAD_BYTES, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        if leftover:
            reader.feed_data(leftover)
        if self._eof:
            reader.feed_eof()
        return reader, asyncio.StreamWriter(self._transport, protocol, reader, loop)

    def _write(self, data: bytes | None) -> None:
        if self._lost:
            raise ClientGone
        if data:
            self._transport.write(data)

    async def _drain(self, patience_s: float) -> None:
        """Wait until the client has taken most of what was written; give up and cut it off after `patience_s`."""
        if not self._write_paused:
            return
        loop = asyncio.get_running_loop()
        self._write_waiter = loop.create_future()
        timer = loop.call_later(patience_s, self._transport.abort)
        try:
            await self._write_waiter
        finally:
            self._write_waiter = None
            timer.cancel()
        if self._lost:
            raise ClientGone

    def _wake_reader(self) -> None:
        if self._data_waiter is not None and not self._data_waiter.done():
            self._data_waiter.set_result(None)

    def _wake_writer(self) -> None:
        if self._write_waiter is not None and not self._write_waiter.done():
            self._write_waiter.set_result(None)

    def _resume_reading(self) -> None:
        if self._paused_reading and not self._lost:
            self._paused_reading = False
            self._transport.resume_reading()


def _refusal(error: HttpError) -> Response:
    response = text_response(error.status, error.text)
    response.headers += error.headers
    return response
