"""Servers that go wrong at each layer: a clear error, no lost state, and recovery when they come to reason."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop

from meshd.base.errors import MeshdError
from meshd.base.keys import DiscoPrivate, MachinePrivate
from meshd.core.controlstatus import ControlStatus, Persist
from meshd.io.systemclock import SystemClock
from meshd.node.control import ControlClient
from meshd.testing.fakecontrol import FakeControl, Fault, Refusal, node_json, welcome
from meshd.wire.control import Hostinfo, RegisterResponse
from meshd.wire.mapframe import encode_map_frame


class Watched:
    """A control client; `error` waits for the next error, `joined` for a netmap."""

    def __init__(self, url: str) -> None:
        self.reports: asyncio.Queue[ControlStatus] = asyncio.Queue()
        self.client = ControlClient(
            server_url=url,
            machine_private=MachinePrivate.generate,
            persist=Persist(),
            hostinfo=Hostinfo(hostname="here", backend_log_id="0" * 64),
            disco_public=DiscoPrivate.generate().public(),
            clock=SystemClock(),
            on_status=self.reports.put_nowait,
        )

    async def next(self, done: Callable[[ControlStatus], object]) -> ControlStatus:
        async with asyncio.timeout(10):
            while True:
                status = await self.reports.get()
                if done(status):
                    return status

    async def error(self) -> MeshdError:
        error = (await self.next(lambda s: s.error)).error
        assert error is not None
        return error

    async def joined(self) -> ControlStatus:
        return await self.next(lambda s: s.netmap and s.change)


def run(main: Callable[[], Awaitable[None]]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        (Fault.KEY_NOT_HTTP, "control-http", "not HTTP"),
        (Fault.KEY_CLOSED, "control-http", "not a coordination server"),
        (Fault.KEY_STATUS, "control-http", "HTTP 503"),
        (Fault.KEY_NOT_JSON, "control-http", "holds no key"),
        (Fault.KEY_ZERO, "control-version", "too old"),
        (Fault.KEY_ENDLESS, "control-http", "longer than 65536 bytes"),
        (Fault.UPGRADE_NOT_HTTP, "control-http", "not HTTP"),
        (Fault.UPGRADE_STATUS, "control-http", "HTTP 301"),
        (Fault.UPGRADE_OTHER, "control-http", "another protocol"),
        (Fault.EOF_AFTER_UPGRADE, "control-noise-refused", "refused the handshake"),
        (Fault.NOISE_GARBAGE, "control-noise", "Noise handshake"),
        (Fault.NOISE_ERROR, "control-noise", "go away"),
        (Fault.EARLY_GARBAGE, "control-noise", "early payload"),
        (Fault.EOF_AFTER_HANDSHAKE, "control-noise-refused", "closed the connection after the handshake"),
        (Fault.RECORD_GARBAGE, "control-noise", "record"),
        (Fault.H2_GARBAGE, "control-closed", "HTTP/2"),
    ],
)
def test_control_client_garbage_below_http2_is_a_clear_error(fault: Fault, code: str, words: str) -> None:
    """The message names the layer; when the server behaves again the login goes through."""

    async def main() -> None:
        async with FakeControl(fault=fault) as control:
            node = Watched(control.url)
            node.client.login()
            error = await node.error()
            assert words in str(error)
            assert error.code == code
            control.fault = Fault.NONE
            await node.joined()
            await node.client.shutdown()

    run(main)


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (b"<html>", "control-garbage", "not valid JSON"),
        (b"[]", "control-garbage", "RegisterResponse"),
        (b"[" * 100_000, "control-garbage", ""),
        (b" " * 2_000_000, "control-closed", "longer than"),
        (Refusal(400, b"unsupported client version: v1.70 (102)"), "control-version", "upgrade meshd"),
        (Refusal(500, b"\x1b[31mboom\x00" * 1000), "control-status", "HTTP 500"),
        (RegisterResponse(error="invalid pre auth key"), "auth-refused", "invalid pre auth key"),
        (RegisterResponse(error="\x1b[2J" + "x" * 100_000), "auth-refused", "refused the login"),
        (RegisterResponse(node_key_expired=True), "auth-refused", "expired"),
        (RegisterResponse(node_key_signature=b"x"), "auth-lock", "tailnet lock"),
    ],
)
def test_control_client_unusable_register_answer_is_told(answer: Any, code: str, words: str) -> None:
    """Nothing is stored, terminal escapes do not get through, and a later good answer is taken."""

    async def main() -> None:
        async with FakeControl(answer_register=lambda _: answer) as control:
            node = Watched(control.url)
            node.client.login()
            error = await node.error()
            assert words in str(error)
            assert error.code == code
            assert len(str(error)) < 1000
            assert "\x1b" not in str(error)
            assert node.client.persist.node_private is None
            control.answer_register = welcome
            await node.joined()
            await node.client.shutdown()

    run(main)


def _framed(message: Any) -> bytes:
    return encode_map_frame(json.dumps(message).encode(), zstd=True)


SELF = node_json(1, "nodekey:" + "1" * 64)
PEER = node_json(2, "nodekey:" + "2" * 64)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"\x05\x00\x00\x00hello", "unreadable map"),  # not zstd
        (b"\xff\xff\xff\xff", "out of range"),
        (b"\x00\x00\x00\x00", "out of range"),
        (encode_map_frame(b"{", zstd=True), "JSON"),
        (encode_map_frame(b"5", zstd=True), "MapResponse"),
        (encode_map_frame(b" " * 70_000_000, zstd=True), "unreadable map"),  # inflates beyond the limit
        (_framed({"Peers": [PEER]}), "no Node"),
        (_framed({"Node": {**SELF, "ID": 5.0}}), "ID"),
        (_framed({"Node": {**SELF, "Addresses": ["100.64.0.1/33"]}}), "Addresses"),
        (_framed({"Node": {**SELF, "Endpoints": ["1.2.3.4:65536"]}}), "Endpoints"),
        (_framed({"Node": {**SELF, "Key": "nodekey:xyz"}}), "Key"),
        (_framed({"Node": {**SELF, "Key": "nodekey:" + "0" * 64}}), "no node key"),
        (_framed({"Node": {**SELF, "Addresses": ["100.64.0.1/24"]}}), "host bits"),
        (_framed({"Node": SELF, "ControlTime": "yesterday"}), "ControlTime"),
    ],
)
def test_control_client_unusable_map_is_dropped_whole(raw: bytes, words: str) -> None:
    """The stream is dropped with a reason, the old netmap stays, the next stream is fine."""

    async def main() -> None:
        async with FakeControl() as control:
            node = Watched(control.url)
            node.client.login()
            await node.joined()
            good = control.first_map
            control.first_map = lambda _request: raw  # type: ignore[method-assign]
            control.drop()
            await node.error()  # the cut
            error = await node.error()
            assert words in str(error)
            assert node.client.netmap is not None
            assert node.client.netmap.domain == "mesh.test"
            control.first_map = good  # type: ignore[method-assign]
            await node.joined()
            await node.client.shutdown()

    run(main)


def test_control_client_messages_before_a_bad_one_of_the_same_read_count() -> None:
    async def main() -> None:
        async with FakeControl() as control:
            node = Watched(control.url)
            node.client.login()
            await node.joined()
            control.push(_framed({"Domain": "other.test"}) + _framed({"PeersChanged": [PEER]}) + _framed({"Node": 5}))
            error = await node.error()
            assert "unreadable map" in str(error)
            assert node.client.netmap is not None
            assert node.client.netmap.domain == "other.test"
            assert list(node.client.netmap.peers) == [2]
            await node.client.shutdown()

    run(main)


def test_control_client_hostile_peers_are_refused_with_a_reason() -> None:
    """A peer with our key, with our address, without key, with a bad id; the others get in."""

    async def main() -> None:
        def first_map(request: Any) -> dict[str, Any]:
            own = node_json(1, request.node_key)
            peers = [
                PEER,
                node_json(3, request.node_key),
                node_json(4, "nodekey:" + "4" * 64, Addresses=own["Addresses"]),
                node_json(5, "nodekey:" + "5" * 64, AllowedIPs=["10.1.2.3/8"]),
                node_json(6, "nodekey:" + "0" * 64),
                node_json(-7, "nodekey:" + "7" * 64),
                node_json(8, "nodekey:" + "2" * 64),
                node_json(9, "nodekey:" + "9" * 64, Endpoints=[f"192.0.2.1:{p}" for p in range(1, 3000)]),
            ]
            return {"Node": own, "Peers": peers}

        async with FakeControl() as control:
            control.first_map = first_map  # type: ignore[method-assign]
            node = Watched(control.url)
            node.client.login()
            status = await node.joined()
            assert status.netmap is not None
            assert sorted(status.netmap.peers) == [2, 5, 9]
            assert status.netmap.peers[5].allowed_ips == ()
            reasons = {r.node_id: r.reason for r in status.netmap.refusals()}
            assert "node key is ours" in reasons[3]
            assert "is ours" in reasons[4]
            assert "host bits" in reasons[5]
            assert "no node key" in reasons[6]
            assert "id is -7" in reasons[-7]
            assert "node key is that of peer 2" in reasons[8]
            assert "endpoints" in reasons[9]
            assert len(status.netmap.peers[9].endpoints) == 64
            await node.client.shutdown()

    run(main)


def test_control_client_unknown_node_is_told_how_to_return() -> None:
    """A deleted node keeps its map request failing: the user must hear what to do."""

    async def main() -> None:
        async with FakeControl(map_status=404) as control:
            node = Watched(control.url)
            node.client.login()
            error = await node.error()
            assert "node not found" in error.message
            assert error.hint is not None
            assert "force-reauth" in error.hint
            await node.client.shutdown()

    run(main)


def test_control_client_nobody_listens_is_connection_refused() -> None:
    async def main() -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        node = Watched(f"http://127.0.0.1:{port}")
        node.client.login()
        error = await node.error()
        assert error.code == "control-unreachable"
        assert "connection refused" in error.message
        assert str(port) in error.message
        await node.client.shutdown()

    run(main)


def test_control_client_unknown_host_is_named() -> None:
    async def main() -> None:
        node = Watched("https://no-such-host.invalid")
        node.client.login()
        error = await node.error()
        assert error.code == "control-unknown-host"
        assert "no-such-host.invalid" in error.message
        await node.client.shutdown()

    run(main)
