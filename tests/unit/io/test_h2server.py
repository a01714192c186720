"""The HTTP/2 server against clients that write their requests in unusual ways."""

from __future__ import annotations

import asyncio

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import pytest

from meshd.io.http import h2server
from meshd.io.http.h2server import H2Server, H2Stream

HEAD = [(":method", "GET"), (":scheme", "http"), (":path", "/a"), (":authority", "there:8080")]


class Talk:
    """One connection in memory, with the library as a client that checks nothing of what it sends."""

    def __init__(self) -> None:
        self.client = h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=True, validate_outbound_headers=False, normalize_outbound_headers=False
            )
        )
        self.seen: list[dict[str, str]] = []
        self.events: list[h2.events.Event] = []
        self.server = H2Server(self._from_server, lambda: None, self._handle)
        self.client.initiate_connection()
        self.server.start()

    def _from_server(self, data: bytes) -> None:
        self.events += self.client.receive_data(data)

    def _handle(self, stream: H2Stream) -> None:
        self.seen.append(stream.headers)
        stream.respond(200, b"answer")

    def ask(self, headers: list[tuple[str, str]]) -> None:
        stream = self.client.get_next_available_stream_id()
        self.client.send_headers(stream, headers, end_stream=True)
        self.server.data_received(self.client.data_to_send())

    def statuses(self) -> list[str]:
        heads = [event.headers for event in self.events if isinstance(event, h2.events.ResponseReceived)]
        return [dict(head)[b":status"].decode() for head in heads]

    def ended(self) -> bool:
        return any(isinstance(event, h2.events.ConnectionTerminated) for event in self.events)


@pytest.mark.parametrize("host", ["there", "there:8080", "elsewhere", ""])
def test_h2server_host_means_nothing_beside_an_authority(host: str) -> None:
    """RFC 9113 8.3.1. Some clients write the port in one of them only."""

    async def scenario() -> None:
        talk = Talk()
        talk.ask([*HEAD, ("host", host)])
        talk.ask([*HEAD, ("host", host)])  # by reference to the first one, which the compression remembers
        assert talk.statuses() == ["200", "200"]
        assert [headers.get("host") for headers in talk.seen] == [None, None]
        assert talk.seen[0][":authority"] == "there:8080"
        talk.server.connection_lost()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "headers",
    [
        HEAD[:3],
        HEAD[1:],
        [*HEAD, (":path", "/b")],
        [*HEAD, ("Upper", "x")],
        [*HEAD, ("connection", "close")],
        [("a", "b"), *HEAD],
    ],
)
def test_h2server_malformed_request_ends_the_connection(headers: list[tuple[str, str]]) -> None:
    async def scenario() -> None:
        talk = Talk()
        talk.ask(headers)
        assert talk.ended()
        assert talk.seen == []
        talk.server.connection_lost()

    asyncio.run(scenario())


class StallTalk(Talk):
    """A client that lets no byte of an answer through until it says so, and answers that the test writes."""

    def __init__(self) -> None:
        self.streams: list[H2Stream] = []
        super().__init__()
        self.client.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
        self.ask(HEAD)

    def _handle(self, stream: H2Stream) -> None:
        self.streams.append(stream)
        stream.start(200)

    def allow(self, size: int) -> None:
        self.client.increment_flow_control_window(size, 1)
        self.server.data_received(self.client.data_to_send())

    def broken_off(self) -> bool:
        return any(isinstance(event, h2.events.StreamReset) for event in self.events)


def test_h2server_answer_that_the_client_lets_not_through_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        talk = StallTalk()
        talk.streams[0].write(bytes(1000))
        while not talk.broken_off():  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        assert talk.streams[0].closed
        assert talk.streams[0].unsent == talk.server.streams == 0
        talk.server.connection_lost()

    monkeypatch.setattr(h2server, "STALL_TIMEOUT_S", 0.02)
    asyncio.run(asyncio.wait_for(scenario(), 5))


def test_h2server_answer_that_goes_on_or_waits_for_the_server_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        talk = StallTalk()
        (stream,) = talk.streams
        stream.write(bytes(10))
        for _ in range(10):  # slow, but not stuck
            await asyncio.sleep(0.03)
            talk.allow(1)
        assert not stream.unsent
        await asyncio.sleep(0.15)  # nothing to send
        assert not talk.broken_off()
        talk.server.set_writable(False)  # the transport is watched by its owner
        talk.allow(10)
        stream.write(bytes(10))
        await asyncio.sleep(0.15)
        talk.server.set_writable(True)
        assert not talk.broken_off()
        assert not stream.unsent
        talk.server.connection_lost()

    monkeypatch.setattr(h2server, "STALL_TIMEOUT_S", 0.1)
    asyncio.run(asyncio.wait_for(scenario(), 5))


def test_h2server_body_is_let_go_when_its_answer_starts() -> None:
    async def scenario() -> None:
        talk = StallTalk()
        stream_id = talk.client.get_next_available_stream_id()
        talk.client.send_headers(stream_id, HEAD)
        talk.client.send_data(stream_id, bytes(10_000), end_stream=True)
        talk.server.data_received(talk.client.data_to_send())
        stream = talk.streams[1]
        stream.write(b"not found")
        assert stream.unsent
        assert not stream.body
        assert talk.server._held == 0
        talk.server.connection_lost()
        assert talk.server._held == 0

    asyncio.run(scenario())
