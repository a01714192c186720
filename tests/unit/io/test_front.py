"""The HTTP/1.1 front against clients that send requests and read no answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from meshd.base.keys import MachinePrivate, NodePrivate
from meshd.io.http import front
from meshd.io.http.front import FrontConnection, Request, Response, Upgrade
from meshd.io.noise_server import NoiseServerStream
from meshd.relay import session
from meshd.relay.server import RelayServer
from meshd.relay.session import RelaySession
from meshd.wire.noise import Initiator, Responder

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
UPGRADE = b"GET /up HTTP/1.1\r\nHost: h\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"


class Transport(asyncio.Transport):
    """Keeps what is written until the test takes it, and tells of that as asyncio does: at the transition only."""

    def __init__(self) -> None:
        super().__init__()
        self.protocol: FrontConnection
        self.buffer = bytearray()
        self.high, self.low = 64 * 1024, 16 * 1024
        self.paused = False
        self.reading = True
        self.closing = False
        self.aborted = False

    def write(self, data: bytes) -> None:  # type: ignore[override]
        self.buffer += data
        if len(self.buffer) > self.high and not self.paused:
            self.paused = True
            self.protocol.pause_writing()

    def take(self) -> bytes:
        taken = bytes(self.buffer)
        self.buffer.clear()
        if self.paused:
            self.paused = False
            self.protocol.resume_writing()
        return taken

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high is not None
        self.high, self.low = high, high // 4

    def get_write_buffer_size(self) -> int:
        return len(self.buffer)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = self.aborted = True


class Rig:
    def __init__(self, attach: Callable[[asyncio.Transport], front.Stream] | None = None) -> None:
        self.handled = 0
        self.attach = attach
        self.transport = Transport()
        self.front = FrontConnection(self.handle, False, lambda: None)
        self.transport.protocol = self.front
        self.front.connection_made(self.transport)

    async def handle(self, request: Request) -> Response | Upgrade:
        self.handled += 1
        if request.path == "/up":
            assert self.attach is not None
            return Upgrade(b"", self.attach)
        return Response(200, b"x" * 10_000)

    async def flood(self) -> None:
        """Requests, without reading an answer, until nothing happens any more."""
        self.front.data_received(GET * 100)
        await self.settle()

    async def settle(self) -> None:
        for _ in range(500):
            await asyncio.sleep(0)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(10):
            await scenario()

    asyncio.run(limited())


def test_front_answers_wait_in_bounded_number_for_a_client_that_does_not_read() -> None:
    async def scenario() -> None:
        rig = Rig()
        await rig.flood()
        assert rig.handled < 10
        assert not rig.transport.reading
        seen = 0
        while taken := rig.transport.take():
            seen += taken.count(b"HTTP/1.1 200")
            await rig.settle()
        assert seen == rig.handled == 100
        assert rig.transport.reading
        assert not rig.transport.closing
        rig.front.connection_lost(None)

    run(scenario)


@pytest.mark.parametrize("request_bytes", [GET * 100, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")])
def test_front_client_that_never_reads_is_cut_off(monkeypatch: pytest.MonkeyPatch, request_bytes: bytes) -> None:
    """Also when the connection ends anyway with the answer that it does not read."""

    async def scenario() -> None:
        rig = Rig()
        rig.front.data_received(request_bytes)
        while not rig.transport.aborted:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        rig.front.connection_lost(None)

    monkeypatch.setattr(front, "STUCK_TIMEOUT_S", 0.01)
    run(scenario)


def test_front_bytes_that_come_while_answers_wait_are_kept() -> None:
    async def scenario() -> None:
        rig = Rig()
        await rig.flood()
        before = rig.handled
        rig.front.data_received(GET)
        await rig.settle()
        assert rig.handled == before
        while rig.transport.take():
            await rig.settle()
        assert rig.handled == 101
        rig.front.connection_lost(None)

    run(scenario)


async def paused_upgrade(attach: Callable[[asyncio.Transport], front.Stream]) -> Rig:
    """A connection whose transport is full before a stream takes over: nothing tells the stream of it later."""
    rig = Rig(attach)
    answers = asyncio.Event()
    handle = rig.front._handler

    async def slow(request: Request) -> Response | Upgrade:
        await answers.wait()
        return await handle(request)

    rig.front._handler = slow
    rig.front.data_received(UPGRADE)
    await asyncio.sleep(0)
    rig.transport.write(bytes(rig.transport.high + 1))
    answers.set()
    await rig.settle()
    return rig


def test_front_relay_client_that_upgrades_unread_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions: list[RelaySession] = []

    def attach(transport: asyncio.Transport) -> RelaySession:
        sessions.append(RelaySession(RelayServer(NodePrivate.generate()), transport, "192.0.2.1"))
        sessions[0].start()
        return sessions[0]

    async def scenario() -> None:
        rig = await paused_upgrade(attach)
        assert rig.transport.reading
        size = len(rig.transport.buffer)
        sessions[0].peer_gone(bytes(32), disconnected=True)
        assert len(rig.transport.buffer) == size
        while not rig.transport.aborted:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        rig.front.connection_lost(None)

    monkeypatch.setattr(session, "WRITE_TIMEOUT_S", 0.01)
    run(scenario)


def test_front_relay_client_that_was_slow_has_no_more_time_for_its_greeting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would hold a connection for ever without having said who it is."""

    def attach(transport: asyncio.Transport) -> RelaySession:
        stream = RelaySession(RelayServer(NodePrivate.generate()), transport, "192.0.2.1")
        stream.start()
        return stream

    async def scenario() -> None:
        rig = await paused_upgrade(attach)
        rig.transport.take()
        while not rig.transport.aborted:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        rig.front.connection_lost(None)

    monkeypatch.setattr(session, "HANDSHAKE_TIMEOUT_S", 0.05)
    run(scenario)


def test_front_control_connection_that_upgrades_unread_waits_for_its_client() -> None:
    streams: list[NoiseServerStream] = []

    def attach(transport: asyncio.Transport) -> NoiseServerStream:
        private = MachinePrivate.generate()
        message = Initiator(MachinePrivate.generate(), private.public(), 113).message()
        noise = Responder(private).respond(message)[3]
        streams.append(NoiseServerStream(transport, noise, lambda stream: None))
        return streams[0]

    async def scenario() -> None:
        rig = await paused_upgrade(attach)
        assert not rig.transport.reading
        assert not streams[0]._h2._writable
        rig.transport.take()
        assert rig.transport.reading
        assert streams[0]._h2._writable
        rig.front.connection_lost(None)

    run(scenario)
