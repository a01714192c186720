"""HTTP/2 with prior knowledge from the client's side, over any byte stream (RFC 9113).

One `H2Client` per connection, many exchanges on it; a response may stay open for hours. Unread response data
is bounded by the receive window of its stream: reading is what opens it again. When the connection breaks,
or the server says GOAWAY, every exchange raises `ConnectionError` and ``usable`` turns false.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import msgspec

from meshd.io.http.h2frames import FRAME_HEADER_BYTES, DataMerger
from meshd.io.streams import ByteStream

STREAM_WINDOW = 4 * 1024 * 1024  # bytes a response may be ahead of its reader
CONNECTION_WINDOW = 64 * 1024 * 1024
MAX_FRAME = 1024 * 1024
MAX_HEADERS = 64 * 1024  # bytes of one header list
_DEFAULT_WINDOW = 65535
_SETTINGS_FRAME = 4  # the frame that each side must send first

Headers = Sequence[tuple[str, str]]


class Response(msgspec.Struct, frozen=True):
    """A complete answer. ``headers`` has lower-case names."""

    status: int
    headers: dict[str, str]
    body: bytes


class Exchange:
    """One request and its answer: `head` first, then `read` until ``b""``; `cancel` at any time."""

    def __init__(self, client: H2Client, stream_id: int, body: bytes) -> None:
        self._client = client
        self.id = stream_id
        self.status = 0
        self.headers: dict[str, str] = {}
        self.unsent = memoryview(body)
        self._buffer = bytearray()
        self.charged = 0
        """Window bytes of what nobody read yet."""
        self._wakeup = asyncio.Event()
        self._ended = False
        self._error: ConnectionError | None = None

    async def head(self) -> int:
        """Status of the answer; ``headers`` is filled. Raises ConnectionError."""
        while not self.status:
            await self._wait()
        return self.status

    async def read(self) -> bytes:
        """Some bytes of the body, ``b""`` at its end. Raises ConnectionError."""
        while not self._buffer:
            if self._ended:
                return b""
            await self._wait()
        data, self._buffer = bytes(self._buffer), bytearray()
        charged, self.charged = self.charged, 0
        self._client.acknowledge(self, charged)
        return data

    async def read_all(self, limit: int) -> bytes:
        """The whole body; ConnectionError when it is longer than ``limit`` bytes."""
        parts: list[bytes] = []
        size = 0
        while data := await self.read():
            size += len(data)
            if size > limit:
                self.cancel()
                raise ConnectionError(f"the answer is longer than {limit} bytes")
            parts.append(data)
        return b"".join(parts)

    def cancel(self) -> None:
        """No more of the answer is wanted."""
        self._client.forget(self, cancel=True)
        self.fail(ConnectionError("cancelled"))

    # -- called by the client ------------------------------------------------------------------------------

    def started(self, status: int, headers: dict[str, str]) -> None:
        self.status, self.headers = status, headers
        self._wakeup.set()

    def received(self, data: bytes, charged: int) -> None:
        self._buffer += data
        self.charged += charged
        self._wakeup.set()

    def finished(self) -> None:
        self._ended = True
        if not self.status:
            self.fail(ConnectionError("the answer has no head"))
        self._wakeup.set()

    def fail(self, error: ConnectionError) -> None:
        if self._error is None and not self._ended:
            self._error = error
            self._wakeup.set()

    async def _wait(self) -> None:
        if self._error is not None:  # kept without the frames that raise it: what those hold would live as long
            raise ConnectionError(*self._error.args)
        self._wakeup.clear()
        await self._wakeup.wait()


class H2Client:
    """The client end of one connection. ``on_lost`` is called once, when it is over."""

    def __init__(
        self, stream: ByteStream, authority: str, *, scheme: str = "https", on_lost: Callable[[], None] | None = None
    ) -> None:
        self._stream = stream
        self._authority = authority
        self._scheme = scheme
        self._on_lost = on_lost
        self._exchanges: dict[int, Exchange] = {}
        self._error: ConnectionError | None = None
        self._patience: asyncio.TimerHandle | None = None  # with the answer to a probe
        self._patience_s = 0.0
        self._h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, header_encoding=None, validate_outbound_headers=False)
        )
        codes = h2.settings.SettingCodes
        self._h2.local_settings = h2.settings.Settings(
            client=True,
            initial_values={
                codes.ENABLE_PUSH: 0,
                codes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                codes.MAX_FRAME_SIZE: MAX_FRAME,
                codes.MAX_HEADER_LIST_SIZE: MAX_HEADERS,
            },
        )
        # The library applies changed settings when they are acknowledged; initial ones are up to us.
        self._h2.max_inbound_frame_size = MAX_FRAME
        self._h2.incoming_buffer.max_frame_size = MAX_FRAME
        self._h2.decoder.max_header_list_size = MAX_HEADERS
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(CONNECTION_WINDOW - _DEFAULT_WINDOW)
        self._flush()
        self._reader = asyncio.create_task(self._read())

    @property
    def usable(self) -> bool:
        """New requests can be made."""
        return self._error is None

    @property
    def open_exchanges(self) -> int:
        return len(self._exchanges)

    def open(self, method: str, path: str, headers: Headers = (), body: bytes = b"") -> Exchange:
        """Send a request. Raises ConnectionError when the connection cannot take one (any more)."""
        if self._error is not None:
            raise ConnectionError(*self._error.args)
        fields = [
            (":method", method),
            (":scheme", self._scheme),
            (":authority", self._authority),
            (":path", path),
            *headers,
        ]
        if body or method in ("POST", "PUT", "PATCH"):
            fields.append(("content-length", str(len(body))))
        try:
            stream_id = self._h2.get_next_available_stream_id()
            self._h2.send_headers(stream_id, fields, end_stream=not body)
        except h2.exceptions.ProtocolError as error:
            raise ConnectionError(f"HTTP/2: {error}") from None
        exchange = Exchange(self, stream_id, body)
        self._exchanges[stream_id] = exchange
        self._pump(exchange)
        self._flush()
        return exchange

    async def request(
        self, method: str, path: str, headers: Headers = (), body: bytes = b"", *, limit: int
    ) -> Response:
        """Send a request and read the whole answer, at most ``limit`` bytes. Cancelling cancels the stream."""
        exchange = self.open(method, path, headers, body)
        try:
            status = await exchange.head()
            return Response(status, exchange.headers, await exchange.read_all(limit))
        finally:
            self.forget(exchange, cancel=True)

    def close(self) -> None:
        """End the connection; open exchanges fail."""
        if self._error is None:
            try:
                self._h2.close_connection()
                self._flush()
            except h2.exceptions.ProtocolError as error:
                self._lost(ConnectionError(f"HTTP/2: {error}"))
        self._lost(ConnectionError("closed"))
        self._reader.cancel()

    def probe(self, patience_s: float) -> None:
        """Ask whether the server is still there. The connection is lost when nothing comes for so long."""
        if self._error is None and self._patience is None:
            self._h2.ping(bytes(8))
            self._flush()
            self._patience_s = patience_s
            self._wait_for_probe()

    def _wait_for_probe(self) -> None:
        silent = ConnectionError("the server does not answer any more")
        self._patience = asyncio.get_running_loop().call_later(self._patience_s, self._lost, silent)

    def _end_probe(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    # -- for exchanges -------------------------------------------------------------------------------------

    def acknowledge(self, exchange: Exchange, charged: int) -> None:
        """The reader of an exchange took bytes; let the server send as many."""
        if charged and self._error is None:
            self._h2.acknowledge_received_data(charged, exchange.id)
            self._flush()

    def forget(self, exchange: Exchange, *, cancel: bool) -> None:
        """The exchange is over; with ``cancel`` the server is told if it does not know."""
        if self._exchanges.pop(exchange.id, None) is None or self._error is not None:
            return
        if exchange.charged:
            self._h2.acknowledge_received_data(exchange.charged, exchange.id)
        if cancel:
            try:
                self._h2.reset_stream(exchange.id, h2.errors.ErrorCodes.CANCEL)
            except h2.exceptions.StreamClosedError:
                pass  # both sides had ended it
        self._flush()

    # -- connection ----------------------------------------------------------------------------------------

    async def _read(self) -> None:
        try:
            first: bytes | None = b""
            merger = DataMerger(MAX_FRAME)
            while data := await self._stream.read():
                if first is not None:
                    first += data
                    if len(first) < FRAME_HEADER_BYTES:
                        continue
                    if first[3] != _SETTINGS_FRAME:
                        raise ConnectionError("HTTP/2: the server speaks something else")
                    data, first = first, None
                if self._patience is not None:  # the answer may be behind a lot of other data
                    self._end_probe()
                    self._wait_for_probe()
                for event in self._h2.receive_data(merger.feed(data)):
                    self._event(event)
                self._flush()
                await self._stream.drain()
            self._lost(ConnectionError("the server closed the connection"))
        except h2.exceptions.ProtocolError as error:
            self._flush()
            self._lost(ConnectionError(f"HTTP/2: {error or type(error).__name__}"))
        except ConnectionError as error:
            self._lost(ConnectionError(*error.args))

    def _event(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.DataReceived):
            self._data(event)
        elif isinstance(event, h2.events.ResponseReceived):
            self._head(event)
        elif isinstance(event, h2.events.StreamEnded):
            ended = self._exchanges.get(event.stream_id or 0)
            if ended is not None:
                ended.finished()
        elif isinstance(event, h2.events.StreamReset):
            reset = self._exchanges.pop(event.stream_id or 0, None)
            if reset is not None:
                reset.fail(ConnectionError(f"the server reset the stream ({_code(event.error_code)})"))
        elif isinstance(event, h2.events.WindowUpdated | h2.events.RemoteSettingsChanged):
            for exchange in list(self._exchanges.values()):
                self._pump(exchange)
        elif isinstance(event, h2.events.PingAckReceived):
            self._end_probe()
        elif isinstance(event, h2.events.ConnectionTerminated):
            self._lost(ConnectionError(f"the server is going away ({_code(event.error_code)})"))

    def _data(self, event: h2.events.DataReceived) -> None:
        charged = event.flow_controlled_length or 0
        exchange = self._exchanges.get(event.stream_id or 0)
        if exchange is not None and event.data:
            exchange.received(bytes(event.data), charged)
        elif charged:
            self._h2.acknowledge_received_data(charged, event.stream_id or 0)

    def _head(self, event: h2.events.ResponseReceived) -> None:
        exchange = self._exchanges.get(event.stream_id or 0)
        if exchange is None:
            return
        headers = {bytes(n).decode("latin-1"): bytes(v).decode("latin-1") for n, v in event.headers or ()}
        status = headers.pop(":status", "")
        if not status.isdecimal() or len(status) != 3:
            self.forget(exchange, cancel=True)
            exchange.fail(ConnectionError("HTTP/2: the answer has no status"))
            return
        exchange.started(int(status), headers)

    def _pump(self, exchange: Exchange) -> None:
        """Send what the windows allow of a request's body."""
        try:
            while exchange.unsent:
                room = min(self._h2.local_flow_control_window(exchange.id), self._h2.max_outbound_frame_size)
                if room <= 0:
                    return
                part, exchange.unsent = exchange.unsent[:room], exchange.unsent[room:]
                self._h2.send_data(exchange.id, bytes(part), end_stream=not exchange.unsent)
        except h2.exceptions.StreamClosedError:
            exchange.unsent = memoryview(b"")  # the server answered without waiting for the rest

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data:
            self._stream.write(data)

    def _lost(self, error: ConnectionError) -> None:
        if self._error is not None:
            return
        self._error = error
        self._end_probe()
        exchanges, self._exchanges = list(self._exchanges.values()), {}
        for exchange in exchanges:
            exchange.fail(error)
        self._stream.close()
        if self._on_lost is not None:
            self._on_lost()


def _code(code: object) -> str:
    return code.name.lower() if isinstance(code, h2.errors.ErrorCodes) else f"code {code}"
