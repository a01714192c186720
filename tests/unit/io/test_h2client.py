"""The HTTP/2 client against our server over memory, and against bytes written by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import h2.config
import h2.connection
import h2.errors
import h2.events
import pytest

from meshd.io.http.h2client import MAX_FRAME, STREAM_WINDOW, H2Client


class Pipe:
    """One end of an in-memory connection."""

    def __init__(self) -> None:
        self.inbox: asyncio.Queue[bytes] = asyncio.Queue()
        self.sent = bytearray()
        self.on_write: Callable[[bytes], None] | None = None
        self.closed = False

    async def read(self) -> bytes:
        return await self.inbox.get()

    def write(self, data: bytes) -> None:
        self.sent += data
        if self.on_write is not None:
            self.on_write(data)

    async def drain(self) -> None:
        await asyncio.sleep(0)

    def close(self) -> None:
        self.closed = True
        self.inbox.put_nowait(b"")


class Server:
    """A server on the `h2` library that answers by a callback."""

    def __init__(self, pipe: Pipe, answer: Callable[[Server, int, dict[bytes, bytes], bytes], None]) -> None:
        self.pipe = pipe
        self.conn = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
        self.conn.initiate_connection()
        self.requests: dict[int, tuple[dict[bytes, bytes], bytearray]] = {}
        self.resets: list[int] = []
        self.window: dict[int, int] = {}
        self._answer = answer
        pipe.on_write = self.receive
        self.flush()

    def receive(self, data: bytes) -> None:
        if self.conn.state_machine.state is h2.connection.ConnectionState.CLOSED:
            return
        for event in self.conn.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                self.requests[event.stream_id] = (dict(event.headers), bytearray())
            elif isinstance(event, h2.events.DataReceived):
                self.requests[event.stream_id][1].extend(event.data)
                self.conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                headers, body = self.requests[event.stream_id]
                self._answer(self, event.stream_id, headers, bytes(body))
            elif isinstance(event, h2.events.StreamReset):
                self.resets.append(event.stream_id)
            elif isinstance(event, h2.events.WindowUpdated):
                self.window[event.stream_id] = self.window.get(event.stream_id, 0) + event.delta
        self.flush()

    def respond(self, stream: int, body: bytes = b"", status: bytes = b"200", *, end: bool = True) -> None:
        self.conn.send_headers(stream, [(b":status", status), (b"x-y", b"z")])
        for start in range(0, len(body), self.conn.max_outbound_frame_size):
            self.conn.send_data(stream, body[start : start + self.conn.max_outbound_frame_size])
        if end:
            self.conn.end_stream(stream)

    def flush(self) -> None:
        data = self.conn.data_to_send()
        if data:
            self.pipe.inbox.put_nowait(data)


Answer = Callable[[Server, int, dict[bytes, bytes], bytes], None]


def over(answer: Answer, check: Callable[[H2Client, Server], Awaitable[None]]) -> None:
    async def main() -> None:
        pipe = Pipe()
        client = H2Client(pipe, "host")
        early = bytes(pipe.sent)
        server = Server(pipe, answer)
        server.receive(early)
        async with asyncio.timeout(10):
            await check(client, server)
        client.close()

    asyncio.run(main())


def test_h2client_request_and_answer() -> None:
    async def check(client: H2Client, server: Server) -> None:
        answer = await client.request("POST", "/p", [("content-type", "application/json")], b"{}", limit=100)
        assert (answer.status, answer.body, answer.headers["x-y"]) == (201, b"got {}", "z")
        headers, _ = server.requests[1]
        assert headers[b":authority"] == b"host"
        assert headers[b":scheme"] == b"https"
        assert headers[b"content-length"] == b"2"
        assert client.open_exchanges == 0

    over(lambda s, n, h, b: s.respond(n, b"got " + b, b"201"), check)


def test_h2client_many_exchanges_share_the_connection() -> None:
    async def check(client: H2Client, _: Server) -> None:
        answers = await asyncio.gather(*(client.request("GET", f"/{n}", limit=100) for n in range(50)))
        assert [a.body for a in answers] == [b"/%d" % n for n in range(50)]

    over(lambda s, n, h, b: s.respond(n, h[b":path"]), check)


def test_h2client_probe_ends_a_connection_that_is_silent() -> None:
    """And only that: while a long answer comes in, what answers the probe may stand behind it."""

    async def check(client: H2Client, server: Server) -> None:
        client.probe(0.05)
        await asyncio.sleep(0.1)
        assert client.usable
        exchange = client.open("GET", "/")
        await exchange.head()
        server.pipe.on_write = None
        client.probe(0.05)
        for _ in range(5):
            await asyncio.sleep(0.02)
            server.conn.send_data(exchange.id, b"more")
            server.flush()
        assert client.usable
        await asyncio.sleep(0.1)
        assert not client.usable
        assert await exchange.read() == b"more" * 6
        with pytest.raises(ConnectionError, match="does not answer any more"):
            await exchange.read()

    over(lambda s, n, h, b: s.respond(n, b"more", end=False), check)


def test_h2client_large_request_waits_for_the_window() -> None:
    body = bytes(300_000)

    async def check(client: H2Client, server: Server) -> None:
        assert (await client.request("POST", "/", (), body, limit=100)).body == b"300000"

    over(lambda s, n, h, b: s.respond(n, b"%d" % len(b)), check)


def test_h2client_settings_allow_big_frames_and_windows() -> None:
    async def check(client: H2Client, server: Server) -> None:
        assert server.conn.max_outbound_frame_size == MAX_FRAME
        answer = await client.request("GET", "/", limit=3_000_000)
        assert len(answer.body) == 2_500_000

    over(lambda s, n, h, b: s.respond(n, bytes(2_500_000)), check)


def test_h2client_unread_data_is_bounded_by_the_window() -> None:
    """A server can be no further ahead than the window; reading opens it again."""

    async def check(client: H2Client, server: Server) -> None:
        exchange = client.open("GET", "/")
        await exchange.head()
        for _ in range(10):
            await asyncio.sleep(0)
        assert server.conn.local_flow_control_window(1) == 0
        size = 0
        while size < STREAM_WINDOW:
            size += len(await exchange.read())
        await asyncio.sleep(0)
        assert server.conn.local_flow_control_window(1) > 0
        exchange.cancel()
        assert server.resets == [1]

    over(lambda s, n, h, b: s.respond(n, bytes(STREAM_WINDOW), end=False), check)


def test_h2client_answer_over_the_limit_is_cut_off() -> None:
    async def check(client: H2Client, server: Server) -> None:
        with pytest.raises(ConnectionError, match="longer than 10"):
            await client.request("GET", "/", limit=10)
        assert server.resets == [1]
        assert client.usable

    over(lambda s, n, h, b: s.respond(n, bytes(1000), end=False), check)


def test_h2client_cancelled_request_resets_its_stream_only() -> None:
    async def check(client: H2Client, server: Server) -> None:
        task = asyncio.create_task(client.request("GET", "/", limit=10))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert server.resets == [1]
        assert client.usable
        assert client.open_exchanges == 0

    over(lambda s, n, h, b: None, check)


def test_h2client_goaway_fails_what_is_open() -> None:
    async def check(client: H2Client, _: Server) -> None:
        with pytest.raises(ConnectionError, match="going away"):
            await client.request("GET", "/", limit=10)
        assert not client.usable
        with pytest.raises(ConnectionError):
            client.open("GET", "/")

    over(lambda s, n, h, b: s.conn.close_connection(), check)


def test_h2client_reset_fails_one_exchange() -> None:
    async def check(client: H2Client, _: Server) -> None:
        with pytest.raises(ConnectionError, match="reset the stream"):
            await client.request("GET", "/", limit=10)
        assert client.usable

    over(lambda s, n, h, b: s.conn.reset_stream(n, h2.errors.ErrorCodes.REFUSED_STREAM), check)


def test_h2client_ping_is_answered() -> None:
    async def check(client: H2Client, server: Server) -> None:
        seen = asyncio.Event()
        receive = server.receive

        def watch(data: bytes) -> None:
            if b"12345678" in data:
                seen.set()
            receive(data)

        server.pipe.on_write = watch
        server.conn.ping(b"12345678")
        server.flush()
        await seen.wait()

    over(lambda s, n, h, b: None, check)


def test_h2client_too_many_streams_for_the_server_is_a_connection_error() -> None:
    async def check(client: H2Client, server: Server) -> None:
        server.conn.update_settings({3: 2})
        server.flush()
        for _ in range(5):  # until the client has read them
            await asyncio.sleep(0)
        client.open("GET", "/")
        client.open("GET", "/")
        with pytest.raises(ConnectionError):
            client.open("GET", "/")
        assert client.usable

    over(lambda s, n, h, b: None, check)


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n", bytes(9), b"\xff" * 100, b"\x00\x00"])
def test_h2client_garbage_ends_the_connection(garbage: bytes) -> None:
    async def main() -> None:
        pipe = Pipe()
        lost = asyncio.Event()
        client = H2Client(pipe, "host", on_lost=lost.set)
        exchange = client.open("GET", "/")
        pipe.inbox.put_nowait(garbage)
        pipe.inbox.put_nowait(b"")
        with pytest.raises(ConnectionError):
            await exchange.head()
        assert lost.is_set()
        assert pipe.closed

    asyncio.run(main())
