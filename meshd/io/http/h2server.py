"""The server side of HTTP/2 over any byte stream (RFC 9113, prior knowledge).

`H2Server` takes bytes in and calls `write` with bytes to send. A request reaches the handler when its body is
complete. An answer may be a stream that stays open for hours: `H2Stream.write` queues, flow control of the peer and
back-pressure of the transport decide when it leaves, and `on_drained` tells when everything has left.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from meshd.base.log import get_logger, kv
from meshd.io.http.h2frames import FrameGuard
from meshd.io.http.h2headers import RequestHeaderDecoder

log = get_logger(__name__)

MAX_BODY_BYTES = 1024 * 1024
"""Largest request body."""
MAX_HELD_BYTES = 4 * 1024 * 1024
"""Bodies not yet complete, all streams of a connection together."""
MAX_STREAMS = 100
MAX_HEADER_LIST_BYTES = 64 * 1024
RECEIVE_WINDOW = 1024 * 1024
CONNECTION_WINDOW = 4 * 1024 * 1024
BODY_TIMEOUT_S = 30.0
"""From the head of a request to the end of its body."""
STALL_TIMEOUT_S = 60.0
"""An answer of which the client's windows let no byte through for this long is broken off."""
FIRST_REQUEST_TIMEOUT_S = 30.0
IDLE_TIMEOUT_S = 300.0
"""A connection without any stream is closed after this."""
RESET_BURST = 200.0
RESETS_PER_SECOND = 2.0
"""Streams a client may cancel; more is an attack (opening and resetting costs it nothing)."""
DEFAULT_CONNECTION_WINDOW = 65535


class H2Stream:
    """One request and its answer."""

    __slots__ = (
        "_queue",
        "_server",
        "_started",
        "body",
        "closed",
        "complete",
        "ended",
        "headers",
        "id",
        "method",
        "on_closed",
        "on_drained",
        "path",
        "stall",
        "stalled_since",
        "timer",
        "unsent",
    )

    def __init__(self, server: H2Server, stream_id: int, headers: dict[str, str]) -> None:
        self._server = server
        self._queue: deque[memoryview] = deque()
        self._started = False
        self.id = stream_id
        self.headers = headers
        self.method = headers.get(":method", "")
        self.path = headers.get(":path", "")
        self.body = bytearray()
        self.complete = False
        """The request's body is here."""
        self.closed = False
        """Nothing can be sent any more."""
        self.ended = False
        self.unsent = 0
        """Bytes queued that the peer's windows or the transport hold back."""
        self.on_closed: Callable[[], None] | None = None
        """Called when the client gave the stream up or the connection ended."""
        self.on_drained: Callable[[], None] | None = None
        """Called each time `unsent` falls to zero."""
        self.timer: asyncio.TimerHandle | None = None
        self.stall: asyncio.TimerHandle | None = None
        """Set while something is unsent."""
        self.stalled_since = 0.0
        """Loop time of the last byte that left, or of the first that could not."""

    def start(self, status: int, content_type: str = "application/json") -> None:
        """Send the head of an answer whose body follows by `write`. The request's body is not kept longer."""
        if self.closed or self._started:
            return
        self._started = True
        self._server._release_body(self)
        self._server._send_headers(self, status, content_type)

    def write(self, data: bytes) -> None:
        """Queue a part of the body."""
        if self.closed or not data:
            return
        self._queue.append(memoryview(data))
        self.unsent += len(data)
        self._server._pump(self)

    def end(self) -> None:
        """No more will be written; the stream closes when all has left."""
        if not self.closed:
            self.ended = True
            self._server._pump(self)

    def respond(self, status: int, body: bytes, content_type: str = "application/json") -> None:
        """A complete answer at once."""
        self.start(status, content_type)
        self.write(body)
        self.end()

    def reset(self) -> None:
        """Break the stream off."""
        self._server._reset(self, h2.errors.ErrorCodes.CANCEL)


class H2Server:
    """One connection. Feed it with `data_received`; it ends itself by calling `close`."""

    def __init__(
        self,
        write: Callable[[bytes], None],
        close: Callable[[], None],
        handler: Callable[[H2Stream], None],
    ) -> None:
        self._write = write
        self._close = close
        self._handler = handler
        self._loop = asyncio.get_running_loop()
        self._h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=False,
                header_encoding=None,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self._h2.decoder = RequestHeaderDecoder(MAX_HEADER_LIST_BYTES)
        self._guard = FrameGuard()
        self._streams: dict[int, H2Stream] = {}
        self._held = 0
        self._writable = True
        self._batching = False
        self._ended = False
        self._resets = RESET_BURST
        self._resets_at = self._loop.time()
        codes = h2.settings.SettingCodes
        self._h2.local_settings = h2.settings.Settings(
            client=False,
            initial_values={
                codes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
                codes.MAX_HEADER_LIST_SIZE: MAX_HEADER_LIST_BYTES,
                codes.INITIAL_WINDOW_SIZE: RECEIVE_WINDOW,
            },
        )
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(CONNECTION_WINDOW - DEFAULT_CONNECTION_WINDOW)
        self._timer: asyncio.TimerHandle | None = self._loop.call_later(FIRST_REQUEST_TIMEOUT_S, self._idle)

    def start(self) -> None:
        """Send the server's settings."""
        self._flush()

    @property
    def streams(self) -> int:
        """Requests being received or answered."""
        return len(self._streams)

    def data_received(self, data: bytes) -> None:
        """Bytes from the client; malformed ones end the connection."""
        if self._ended:
            return
        if not self._guard.allows(data):
            self._h2.close_connection(h2.errors.ErrorCodes.FRAME_SIZE_ERROR)
            self._flush()
            self._end()
            return
        self._batching = True
        try:
            for event in self._h2.receive_data(data):
                self._event(event)
                if self._over():
                    return
        except h2.exceptions.ProtocolError as error:
            log.debug("h2_protocol_error", extra=kv(reason=str(error)))
            self._batching = False
            self._flush()
            self._end()
            return
        finally:
            self._batching = False
        self._flush()

    def set_writable(self, writable: bool) -> None:
        """Whether the transport takes more bytes now."""
        self._writable = writable
        if writable:
            self._pump_all()

    def connection_lost(self) -> None:
        """The transport is gone; every stream is told."""
        self._ended = True
        self._disarm()
        for stream in list(self._streams.values()):
            self._forget(stream)

    def _event(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self._request(event)
        elif isinstance(event, h2.events.DataReceived):
            self._body(event)
        elif isinstance(event, h2.events.StreamEnded):
            self._complete(event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            self._was_reset(event.stream_id)
        elif isinstance(event, h2.events.WindowUpdated):
            stream = self._streams.get(event.stream_id or 0)
            if stream is not None:
                self._pump(stream)
            elif not event.stream_id:
                self._pump_all()
        elif isinstance(event, h2.events.RemoteSettingsChanged):
            self._pump_all()
        elif isinstance(event, h2.events.ConnectionTerminated) and not self._streams:
            self._end()

    def _request(self, event: h2.events.RequestReceived) -> None:
        assert event.stream_id is not None
        headers: dict[str, str] = {}
        for name, value in event.headers or ():
            headers.setdefault(bytes(name).decode("latin-1"), bytes(value).decode("latin-1"))
        stream = H2Stream(self, event.stream_id, headers)
        self._streams[stream.id] = stream
        self._disarm()
        stream.timer = self._loop.call_later(BODY_TIMEOUT_S, self._reset, stream, h2.errors.ErrorCodes.CANCEL)

    def _body(self, event: h2.events.DataReceived) -> None:
        assert event.stream_id is not None
        if event.flow_controlled_length:
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        stream = self._streams.get(event.stream_id)
        data = event.data or b""
        if stream is None or stream._started:
            return
        stream.body += data
        self._held += len(data)
        if len(stream.body) > MAX_BODY_BYTES or self._held > MAX_HELD_BYTES:
            self._release_body(stream)
            stream.respond(413, b"request body too large\n", "text/plain; charset=utf-8")

    def _complete(self, stream_id: int | None) -> None:
        stream = self._streams.get(stream_id or 0)
        if stream is None or stream._started or stream.closed:
            return
        if stream.timer is not None:
            stream.timer.cancel()
            stream.timer = None
        self._held -= len(stream.body)
        stream.complete = True
        try:
            self._handler(stream)
        except Exception as error:
            log.error("request_failed", extra=kv(path=stream.path, reason=repr(error)), exc_info=error)
            stream.respond(500, b"internal error\n", "text/plain; charset=utf-8")

    def _release_body(self, stream: H2Stream) -> None:
        if not stream.complete:
            self._held -= len(stream.body)
        stream.body = bytearray()

    def _was_reset(self, stream_id: int | None) -> None:
        now = self._loop.time()
        self._resets = min(RESET_BURST, self._resets + (now - self._resets_at) * RESETS_PER_SECOND) - 1
        self._resets_at = now
        stream = self._streams.get(stream_id or 0)
        if stream is not None:
            self._forget(stream)
        if self._resets < 0:
            self._h2.close_connection(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
            self._batching = False
            self._flush()
            self._end()

    def _send_headers(self, stream: H2Stream, status: int, content_type: str) -> None:
        try:
            self._h2.send_headers(stream.id, [(b":status", b"%d" % status), (b"content-type", content_type.encode())])
        except h2.exceptions.ProtocolError:
            self._forget(stream)
            return
        self._flush()

    def _pump(self, stream: H2Stream) -> None:
        """Send what the windows and the transport allow."""
        had = stream.unsent
        queue = stream._queue
        sent = 0
        try:
            while queue and self._writable:
                chunk = queue[0]
                room = min(self._h2.local_flow_control_window(stream.id), self._h2.max_outbound_frame_size)
                if room <= 0:
                    break
                if len(chunk) > room:
                    queue[0] = chunk[room:]
                    chunk = chunk[:room]
                else:
                    queue.popleft()
                stream.unsent -= len(chunk)
                sent += len(chunk)
                self._h2.send_data(stream.id, chunk)
                if not self._batching:
                    self._flush()
            if stream.ended and not queue and not stream.closed:
                self._h2.end_stream(stream.id)
                self._flush()
                self._forget(stream)
                return
        except h2.exceptions.ProtocolError:
            self._forget(stream)
            return
        self._watch(stream, moved=sent > 0)
        if had and not stream.unsent and stream.on_drained is not None:
            stream.on_drained()

    def _watch(self, stream: H2Stream, *, moved: bool) -> None:
        """Begin or end the wait for a client that lets nothing through."""
        if not stream.unsent:
            if stream.stall is not None:
                stream.stall.cancel()
                stream.stall = None
            return
        if moved or stream.stall is None:
            stream.stalled_since = self._loop.time()
        if stream.stall is None:
            stream.stall = self._loop.call_later(STALL_TIMEOUT_S, self._check_stall, stream)

    def _check_stall(self, stream: H2Stream) -> None:
        now = self._loop.time()
        if not self._writable:
            # The transport holds it back, and whoever owns that watches it.
            stream.stalled_since = now
        left = stream.stalled_since + STALL_TIMEOUT_S - now
        if left > 0:
            stream.stall = self._loop.call_later(left, self._check_stall, stream)
            return
        log.info("h2_stream_stalled", extra=kv(path=stream.path, bytes=stream.unsent))
        self._reset(stream, h2.errors.ErrorCodes.CANCEL)

    def _pump_all(self) -> None:
        for stream in list(self._streams.values()):
            if stream.unsent or stream.ended:
                self._pump(stream)

    def _reset(self, stream: H2Stream, code: h2.errors.ErrorCodes) -> None:
        if stream.closed:
            return
        try:
            self._h2.reset_stream(stream.id, code)
        except h2.exceptions.ProtocolError:
            log.debug("h2_reset_too_late", extra=kv(stream=stream.id))
        self._flush()
        self._forget(stream)

    def _forget(self, stream: H2Stream) -> None:
        if stream.closed:
            return
        stream.closed = True
        if stream.timer is not None:
            stream.timer.cancel()
        if stream.stall is not None:
            stream.stall.cancel()
        self._release_body(stream)
        stream._queue.clear()
        stream.unsent = 0
        self._streams.pop(stream.id, None)
        if stream.on_closed is not None:
            stream.on_closed()
        if not self._streams and not self._ended:
            self._disarm()
            self._timer = self._loop.call_later(IDLE_TIMEOUT_S, self._idle)

    def _idle(self) -> None:
        self._timer = None
        try:
            self._h2.close_connection()
        except h2.exceptions.ProtocolError:
            log.debug("h2_closed_twice")
        self._flush()
        self._end()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _over(self) -> bool:
        return self._ended

    def _flush(self) -> None:
        if self._batching:
            return
        data = self._h2.data_to_send()
        if data:
            self._write(data)

    def _end(self) -> None:
        if not self._ended:
            self.connection_lost()
            self._close()
