"""The HTTP/1.1 server, over real Unix sockets, on asyncio and uvloop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from meshd.io.http.h1server import HttpError, HttpServer, Limits, Request, Response, text_response
from meshd.io.peercred import PeerIdentity, peer_identity

Scenario = Callable[["Rig"], Awaitable[None]]


class Rig:
    """A server whose handler a test may replace, and raw connections to it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.seen: list[Request] = []
        self.gone = asyncio.Event()
        self.released = asyncio.Event()
        self.abandoned = asyncio.Event()
        self.writers: list[asyncio.StreamWriter] = []
        self.handler: Callable[[Request], Awaitable[Response]] = self.default

    async def default(self, request: Request) -> Response:
        self.seen.append(request)
        match request.path:
            case "/echo":
                return Response(200, [("X-Test", "1")], await request.body())
            case "/fail":
                raise RuntimeError("secret detail")
            case "/refuse":
                raise HttpError(418, "no tea")
            case "/value":
                return text_response(200, await request.value("a"))
            case "/stream":
                return Response(200, [], Stream(self))
            case "/hang":
                try:
                    with request.cancel_if_gone():
                        await asyncio.Event().wait()
                finally:
                    self.gone.set()
            case "/big":
                return Response(200, [], b"x" * (4 << 20))
            case "/upgrade":
                headers = [("Upgrade", "test"), ("Connection", "upgrade")]
                return Response(101, headers, take_over=self.shout, abandon=self.abandoned.set)
            case "/status":
                return Response(int(await request.value("n")), [], b"words")
        return Response(200, [], b"hello")

    async def shout(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line.upper())

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_unix_connection(self.path)
        self.writers.append(writer)
        return reader, writer

    async def close(self) -> None:
        """End what tests left open: a transport that outlives its loop is an error."""
        for writer in self.writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def ask(self, text: str, *, eof: bool = False) -> bytes:
        reader, writer = await self.connect()
        writer.write(text.encode())
        if eof:
            writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        return answer


class Stream:
    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.count = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        self.count += 1
        if self.count > 2:
            await self.rig.released.wait()
            raise StopAsyncIteration
        return b"part%d\n" % self.count

    async def aclose(self) -> None:
        self.rig.gone.set()


@pytest.fixture(params=["asyncio", "uvloop"])
def serve(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., None]:
    def run(scenario: Scenario, **options: object) -> None:
        async def main() -> None:
            rig = Rig(str(tmp_path / "s"))
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(rig.path)
            listener.listen()
            server = HttpServer(lambda r: rig.handler(r), **options)  # type: ignore[arg-type]
            rig.server = server  # type: ignore[attr-defined]
            await server.start(listener)
            try:
                await scenario(rig)
            finally:
                await server.close(grace_s=0.01)
                await rig.close()
            assert server.connections == 0

        factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())

    return run


GET = "GET {} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"


def test_h1server_get_answers(serve) -> None:
    async def scenario(rig: Rig) -> None:
        answer = await rig.ask(GET.format("/x%20y?a=1&a=2&b="))
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\nhello")
        request = rig.seen[0]
        assert (request.path, request.raw_path) == ("/x y", "/x%20y")
        assert request.query == [("a", "1"), ("a", "2"), ("b", "")]
        assert request.header("host") == "h"

    serve(scenario)


def test_h1server_peer_is_who_connected(serve) -> None:
    """LA-04, LA-03: the identity comes from the kernel."""
    import os

    async def scenario(rig: Rig) -> None:
        await rig.ask(GET.format("/"))
        assert rig.seen[0].peer == PeerIdentity(os.getuid(), os.getgid(), os.getpid())

    serve(scenario)


def test_peer_identity_of_other_sockets_is_none() -> None:
    with socket.socket(socket.AF_INET) as sock:
        assert peer_identity(sock.fileno()) is None
    assert peer_identity(1 << 20) is None


def test_h1server_keep_alive_serves_several_requests(serve) -> None:
    """LA-03: one connection, request after request; also when they are sent at once."""

    async def scenario(rig: Rig) -> None:
        reader, writer = await rig.connect()
        for _ in range(2):
            writer.write(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc")
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"200 OK" in head
            assert await reader.readexactly(3) == b"abc"
        writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" * 2)
        for _ in range(2):
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(5) == b"hello"
        writer.close()

    serve(scenario)


def test_h1server_idle_connection_is_closed(serve) -> None:
    """LA-03."""

    async def scenario(rig: Rig) -> None:
        reader, _writer = await rig.connect()
        assert await asyncio.wait_for(reader.read(), 5) == b""

    serve(scenario, limits=Limits(header_s=0.01))


def test_h1server_dribbled_header_times_out(serve) -> None:
    """A deadline for the whole head: a byte now and then does not prolong it."""

    async def scenario(rig: Rig) -> None:
        reader, writer = await rig.connect()
        writer.write(b"GET / HT")
        assert await asyncio.wait_for(reader.read(), 5) == b""

    serve(scenario, limits=Limits(header_s=0.01))


def test_h1server_oversize_body_is_refused_unread(serve) -> None:
    async def scenario(rig: Rig) -> None:
        answer = await rig.ask("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 2000000\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"connection: close" in answer.lower()

    serve(scenario)


def test_h1server_oversize_chunked_body_is_refused(serve) -> None:
    async def scenario(rig: Rig) -> None:
        chunk = "4000\r\n" + "x" * 0x4000 + "\r\n"
        head = "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        reader, writer = await rig.connect()
        writer.write((head + chunk * 2).encode())
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 413 ")
        writer.close()

    serve(scenario, limits=Limits(body_bytes=20_000))


def test_h1server_huge_header_is_refused(serve) -> None:
    async def scenario(rig: Rig) -> None:
        answer = await rig.ask("GET / HTTP/1.1\r\nHost: h\r\nX: " + "x" * 40_000)
        assert answer.startswith(b"HTTP/1.1 431 ")

    serve(scenario)


@pytest.mark.parametrize(
    "text",
    [
        "nonsense\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "\x16\x03\x01\r\n\r\n",
    ],
)
def test_h1server_garbage_gets_400(serve, text: str) -> None:
    async def scenario(rig: Rig) -> None:
        answer = await rig.ask(text)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert rig.seen == []

    serve(scenario)


def test_h1server_whole_url_as_target_is_taken(serve) -> None:
    """RFC 9112 3.2.2: its authority takes the place of Host, whatever Host says."""

    async def scenario(rig: Rig) -> None:
        answer = await rig.ask(
            "GET http://there:8080/a%20b?c=d HTTP/1.1\r\nHost: elsewhere\r\nConnection: close\r\n\r\n"
        )
        assert answer.startswith(b"HTTP/1.1 200 ")
        (request,) = rig.seen
        assert (request.path, request.query) == ("/a b", [("c", "d")])
        assert [pair for pair in request.headers if pair[0] == "host"] == [("host", "there:8080")]

    serve(scenario)


@pytest.mark.parametrize("target", ["here", "http:///a", "http://user@host/", "ftp://host/a", "a/b", "?"])
def test_h1server_target_that_is_neither_path_nor_url_gets_400(serve, target: str) -> None:
    async def scenario(rig: Rig) -> None:
        answer = await rig.ask(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert rig.seen == []

    serve(scenario)


def test_h1server_refused_head_has_no_body(serve) -> None:
    async def scenario(rig: Rig) -> None:
        answer = await rig.ask("HEAD nowhere HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.endswith(b"\r\n\r\n")

    serve(scenario)


def test_h1server_connect_is_refused(serve) -> None:
    async def scenario(rig: Rig) -> None:
        answer = await rig.ask("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 405 ")
        assert rig.seen == []

    serve(scenario)


def test_h1server_handler_failure_is_500_without_details(serve) -> None:
    async def scenario(rig: Rig) -> None:
        answer = await rig.ask(GET.format("/fail"))
        assert answer.startswith(b"HTTP/1.1 500 ")
        assert b"secret" not in answer

    serve(scenario)


def test_h1server_http_error_is_text(serve) -> None:
    async def scenario(rig: Rig) -> None:
        answer = await rig.ask(GET.format("/refuse"))
        assert answer.startswith(b"HTTP/1.1 418 ")
        assert answer.endswith(b"no tea\n")

    serve(scenario)


def test_h1server_form_value_wins_over_query(serve) -> None:
    async def scenario(rig: Rig) -> None:
        head = "POST /value?a=query HTTP/1.1\r\nHost: h\r\nConnection: close\r\n"
        form = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 6\r\n\r\na=form"
        assert (await rig.ask(head + form)).endswith(b"form\n")
        assert (await rig.ask(head + form.replace("x-www-form", "X-WWW-Form"))).endswith(b"form\n")  # RFC 9110 8.3.1
        assert (await rig.ask(head + "Content-Length: 0\r\n\r\n")).endswith(b"query\n")

    serve(scenario)


def test_h1server_expect_100_gets_its_answer(serve) -> None:
    async def scenario(rig: Rig) -> None:
        reader, writer = await rig.connect()
        writer.write(b"POST /echo HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        writer.write(b"hi")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.close()

    serve(scenario)


def test_h1server_head_has_length_and_no_body(serve) -> None:
    async def scenario(rig: Rig) -> None:
        answer = await rig.ask("HEAD / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        assert b"content-length: 5" in answer.lower()
        assert answer.endswith(b"\r\n\r\n")

    serve(scenario)


def test_h1server_half_closed_client_still_gets_its_answer(serve) -> None:
    async def scenario(rig: Rig) -> None:
        answer = await rig.ask("GET / HTTP/1.1\r\nHost: h\r\n\r\n", eof=True)
        assert answer.endswith(b"hello")

    serve(scenario)


def test_h1server_stream_sends_parts_at_once_and_ends(serve) -> None:
    async def scenario(rig: Rig) -> None:
        reader, writer = await rig.connect()
        writer.write(GET.format("/stream").encode())
        assert b"chunked" in await reader.readuntil(b"\r\n\r\n")
        assert await reader.readuntil(b"part2\n\r\n") == b"6\r\npart1\n\r\n6\r\npart2\n\r\n"
        rig.released.set()
        assert await reader.read() == b"0\r\n\r\n"
        await asyncio.wait_for(rig.gone.wait(), 5)

    serve(scenario)


@pytest.mark.parametrize("path", ["/stream", "/hang"])
@pytest.mark.parametrize("half", [True, False])
def test_h1server_client_leaving_ends_what_runs_for_it(serve, path: str, half: bool) -> None:
    """LA-14: streams and waits stop when nobody listens any more, half-closed or closed."""

    async def scenario(rig: Rig) -> None:
        reader, writer = await rig.connect()
        writer.write(GET.format(path).encode())
        if path == "/stream":
            await reader.readuntil(b"part2\n")
        else:
            while not rig.seen:  # noqa: ASYNC110
                await asyncio.sleep(0)
        if half:
            writer.write_eof()
        else:
            writer.close()
        await asyncio.wait_for(rig.gone.wait(), 5)

    serve(scenario)


def test_h1server_client_gone_before_the_stream_began_closes_the_source(serve) -> None:
    async def scenario(rig: Rig) -> None:
        entered, leave = asyncio.Event(), asyncio.Event()

        async def slow(request: Request) -> Response:
            entered.set()
            await leave.wait()
            return Response(200, [], Stream(rig))

        rig.handler = slow
        _reader, writer = await rig.connect()
        writer.write(GET.format("/").encode())
        await entered.wait()
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(0)
        leave.set()
        await asyncio.wait_for(rig.gone.wait(), 5)

    serve(scenario)


def test_h1server_reader_that_takes_nothing_is_cut_off(serve) -> None:
    async def scenario(rig: Rig) -> None:
        reader, writer = await rig.connect()
        writer.transport.pause_reading()  # type: ignore[union-attr]
        writer.write(GET.format("/big").encode())
        while rig.server.connections or not rig.seen:  # type: ignore[attr-defined]  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        writer.transport.resume_reading()  # type: ignore[union-attr]
        try:
            answer = await reader.read()
        except ConnectionError:
            answer = b""
        assert len(answer) < 4 << 20

    serve(scenario, limits=Limits(write_s=0.01))


@pytest.mark.parametrize("ends", [True, False])
def test_h1server_reader_of_a_stream_that_takes_too_little_is_cut_off(serve, ends: bool) -> None:
    """LA-14: a byte now and then does not hold it, be it of an answer that ends or of one that goes on for ever."""

    async def parts() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * (1 << 20)

    async def scenario(rig: Rig) -> None:
        async def handler(request: Request) -> Response:
            return Response(200, [], parts(), ends=ends)

        rig.handler = handler
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX) as client:
            client.setblocking(False)
            await loop.sock_connect(client, rig.path)
            await loop.sock_sendall(client, GET.format("/").encode())
            await loop.sock_recv(client, 1)
            while rig.server.connections:  # type: ignore[attr-defined]
                await loop.sock_recv(client, 1)
                await asyncio.sleep(0.001)

    patience = {"write_s" if ends else "pause_s": 0.05, "pause_s" if ends else "write_s": 100.0}
    serve(scenario, limits=Limits(**patience))


def test_h1server_answer_that_is_not_taken_ends_with_its_connection(serve) -> None:
    """What is left in the transport is less than it ever waits for."""

    async def scenario(rig: Rig) -> None:
        async def handler(request: Request) -> Response:
            return Response(200, [], b"x" * 50_000)

        rig.handler = handler
        with socket.socket(socket.AF_UNIX) as client:
            client.setblocking(False)
            await asyncio.get_running_loop().sock_connect(client, rig.path)
            client.send(GET.format("/").replace("close", "keep-alive").encode() * 8)
            while not rig.server.connections:  # type: ignore[attr-defined]  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            while rig.server.connections:  # type: ignore[attr-defined]  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    serve(scenario, limits=Limits(write_s=0.05, idle_s=0.01))


def test_h1server_answer_that_ends_reaches_a_client_that_has_said_all(serve) -> None:
    """As `printf … | nc -N`: it has closed its half, and reads on."""

    async def parts() -> AsyncIterator[bytes]:
        for number in range(3):
            await asyncio.sleep(0)
            yield b"part%d\n" % number

    async def scenario(rig: Rig) -> None:
        async def handler(request: Request) -> Response:
            return Response(200, [], parts(), ends=True)

        rig.handler = handler
        answer = await rig.ask(GET.format("/"), eof=True)
        assert answer.endswith(b"part2\n\r\n0\r\n\r\n")

    serve(scenario)


def test_h1server_upgrade_hands_the_bytes_over(serve) -> None:
    async def scenario(rig: Rig) -> None:
        reader, writer = await rig.connect()
        writer.write(b"POST /upgrade HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: test\r\n\r\nearly\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        assert await reader.readline() == b"EARLY\n"
        writer.write(b"late\n")
        assert await reader.readline() == b"LATE\n"
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 5) == b""
        assert not rig.abandoned.is_set()

    serve(scenario)


def test_h1server_upgrade_whose_client_does_not_take_the_rest_counts_until_it_is_cut_off(serve) -> None:
    """Any user of the host could have the daemon hold connections beyond their share."""

    async def scenario(rig: Rig) -> None:
        given = asyncio.Event()

        async def much(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while not writer.transport.get_write_buffer_size():
                writer.write(bytes(60_000))
            given.set()

        async def handler(request: Request) -> Response:
            return Response(101, [("Upgrade", "test"), ("Connection", "upgrade")], take_over=much)

        rig.handler = handler
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(rig.path)
            client.sendall(b"POST /upgrade HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: test\r\n\r\n")
            await asyncio.wait_for(given.wait(), 5)
            await asyncio.sleep(0)
            assert rig.server.connections == 1  # type: ignore[attr-defined]
            client.setblocking(False)
            await asyncio.sleep(0.3)
            assert rig.server.connections == 0  # type: ignore[attr-defined]
            async with asyncio.timeout(5):
                while await asyncio.get_running_loop().sock_recv(client, 1 << 20):
                    pass

    serve(scenario, limits=Limits(write_s=0.1))


def test_h1server_upgrade_whose_body_never_comes_is_refused(serve, caplog: pytest.LogCaptureFixture) -> None:
    """What was opened for it is let go."""

    async def scenario(rig: Rig) -> None:
        reader, writer = await rig.connect()
        head = "POST /upgrade HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: test\r\nContent-Length: 5\r\n\r\n"
        writer.write(head.encode())
        answer = await asyncio.wait_for(reader.read(), 5)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"connection: close" in answer.lower()
        assert rig.abandoned.is_set()

    serve(scenario, limits=Limits(body_s=0.01))
    assert not caplog.records


@pytest.mark.parametrize(("length", "cut"), [(5, False), (0, True)])
def test_h1server_upgrade_of_a_client_that_left_is_abandoned(serve, length: int, cut: bool) -> None:
    """It left before the end of its body, or the connection broke while the handler was at work."""

    async def scenario(rig: Rig) -> None:
        entered, leave = asyncio.Event(), asyncio.Event()

        async def slow(request: Request) -> Response:
            entered.set()
            await leave.wait()
            return await rig.default(request)

        rig.handler = slow
        reader, writer = await rig.connect()
        head = "POST /upgrade HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: test\r\n"
        writer.write(f"{head}Content-Length: {length}\r\n\r\n".encode())
        await entered.wait()
        if cut:
            (connection,) = rig.server._owner.open  # type: ignore[attr-defined]
            connection._transport.abort()
            await reader.read()
        writer.close()
        leave.set()
        await asyncio.wait_for(rig.abandoned.wait(), 5)

    serve(scenario)


def test_h1server_unread_body_that_never_comes_ends_the_connection(serve, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(rig: Rig) -> None:
        answer = await rig.ask("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n")
        assert answer.endswith(b"hello")

    serve(scenario, limits=Limits(body_s=0.01))
    assert not caplog.records


def test_h1server_status_that_is_in_no_book_is_answered(serve) -> None:
    async def scenario(rig: Rig) -> None:
        answer = await rig.ask(GET.format("/status?n=520"))
        assert answer.startswith(b"HTTP/1.1 520 Unknown\r\n")
        assert answer.endswith(b"words")

    serve(scenario)


@pytest.mark.parametrize("status", [204, 304])
def test_h1server_status_that_allows_no_body_is_sent_without(serve, status: int) -> None:
    async def scenario(rig: Rig) -> None:
        answer = await rig.ask(GET.format(f"/status?n={status}"))
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert answer.endswith(b"\r\n\r\n")

    serve(scenario)


def test_h1server_many_watchers_do_not_block_others(serve) -> None:
    """LA-14: two hundred open streams, and a request between them is answered."""

    async def scenario(rig: Rig) -> None:
        watchers = [await rig.connect() for _ in range(200)]
        for _, writer in watchers:
            writer.write(GET.format("/stream").encode())
        for reader, _ in watchers:
            await reader.readuntil(b"part2\n")
        assert (await rig.ask(GET.format("/"))).endswith(b"hello")
        for _, writer in watchers:
            writer.close()

    serve(scenario)


@pytest.mark.skipif(
    int(Path("/proc/sys/net/core/somaxconn").read_text()) < 300, reason="this system keeps fewer clients waiting"
)
def test_h1server_many_clients_may_come_at_once(serve) -> None:
    """LA-14: three hundred while the daemon is busy: a Unix socket with no more room turns clients away at once."""

    async def scenario(rig: Rig) -> None:
        clients = [socket.socket(socket.AF_UNIX) for _ in range(300)]
        try:
            for client in clients:
                client.setblocking(False)
                client.connect(rig.path)
        finally:
            for client in clients:
                client.close()
        assert (await rig.ask(GET.format("/"))).endswith(b"hello")

    serve(scenario, limits=Limits(connections_of_root=0))


@pytest.mark.parametrize(
    ("users", "limits"),
    [
        pytest.param([1000, 1000, 1000, 0], Limits(connections_per_user=2), id="one user"),
        pytest.param([1000, 1001, 1002, 0], Limits(connections=3, connections_of_root=1), id="many users together"),
    ],
)
def test_h1server_others_cannot_take_all_connections_from_root(serve, users: list[int], limits: Limits) -> None:
    uids = iter(users)

    async def scenario(rig: Rig) -> None:
        held = [await rig.connect() for _ in range(2)]
        reader, writer = await rig.connect()
        writer.write(GET.format("/").encode())
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        assert (await rig.ask(GET.format("/"))).endswith(b"hello")
        for _, held_writer in held:
            held_writer.close()

    serve(
        scenario,
        limits=limits,
        identify=lambda fd: PeerIdentity(next(uids), 0, None),
    )


def test_h1server_close_ends_streams(serve) -> None:
    async def scenario(rig: Rig) -> None:
        reader, writer = await rig.connect()
        writer.write(GET.format("/stream").encode())
        await reader.readuntil(b"part2\n")
        await rig.server.close(grace_s=0.01)  # type: ignore[attr-defined]
        await asyncio.wait_for(reader.read(), 5)
        assert rig.gone.is_set()

    serve(scenario)


def test_h1server_keep_alive_survives_a_refusal(serve) -> None:
    async def scenario(rig: Rig) -> None:
        reader, writer = await rig.connect()
        for _ in range(2):
            writer.write(b"GET /refuse HTTP/1.1\r\nHost: h\r\n\r\n")
            assert (await reader.readuntil(b"no tea\n")).startswith(b"HTTP/1.1 418 ")
        writer.close()

    serve(scenario)


def test_h1server_refused_body_does_not_destroy_the_answer(serve) -> None:
    """The client sends all of its megabytes and then reads why they were not wanted."""

    async def scenario(rig: Rig) -> None:
        reader, writer = await rig.connect()
        writer.write(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3000000\r\n\r\n" + b"x" * 3_000_000)
        await asyncio.wait_for(writer.drain(), 5)
        assert (await reader.read()).startswith(b"HTTP/1.1 413 ")
        writer.close()

    serve(scenario)
