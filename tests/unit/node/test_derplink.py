"""How a relay link takes frames from the data plane; connecting is in test_magicsock.py and test_derper.py."""

from __future__ import annotations

import asyncio
import select
import socket
import struct
from collections import deque
from typing import Any

import pytest
import uvloop

from meshd.base.clock import Clock
from meshd.base.keys import NodePrivate
from meshd.core.derpclient import DerpClient
from meshd.core.relaymap import RelayNode, RelayRegion
from meshd.io.relaydial import Dialled
from meshd.io.systemclock import SystemClock
from meshd.node import derplink
from meshd.node.derplink import QUEUE_PACKETS, WRITE_BYTES, WRITES_PER_TURN, RelayLink
from meshd.wire import derp

FRAME = derp.encode_send_packet(bytes(32), b"\x04" + bytes(1300))


class Owner:
    """A data plane with frames, as many pieces as the test says."""

    prefer_v6 = False

    def __init__(self, pieces: int) -> None:
        self.pieces = deque(FRAME + number.to_bytes(4, "big") for number in range(pieces))
        self.limits: list[int] = []

    def link_take(self, region: int, limit: int = 0) -> bytes:
        self.limits.append(limit)
        return self.pieces.popleft() if self.pieces else b""

    def link_changed_state(self, region: int, is_open: bool) -> None: ...

    def link_failed(self, region: int) -> None: ...


class Connection:
    """In place of the TLS protocol; refuses more after ``room`` writes."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.written: list[bytes] = []

    @property
    def paused(self) -> bool:
        return len(self.written) >= self.room

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None: ...


def linked(owner: Owner, connection: Connection, loop: asyncio.AbstractEventLoop) -> RelayLink:
    key, clock = NodePrivate.generate(), SystemClock()
    stand_in: Any = owner
    region = RelayRegion(id=1, code="x", name="X", nodes=())
    link = RelayLink(loop, clock, region, key, stand_in, random=bytes, mark=False)
    client = DerpClient(key, host="x", random=bytes, server_key=NodePrivate.generate().public().raw)
    start(client, clock)
    link._client, link._protocol = client, connection  # type: ignore[assignment]
    return link


def start(client: DerpClient, clock: Clock) -> None:
    client.start(clock.monotonic())
    client.drain()
    client.data_to_send()


def test_relay_link_reset_at_once_leaves_the_descriptor_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay, or what stands before it, may reset a connection as soon as it is made. The number of the descriptor is
    then given to the next connection, which must not be closed with the memory of this one."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        far.close()
        wait_for_reset(near)

    async def dialled(*_: object, **__: object) -> Dialled:
        return Dialled(near, RelayNode("1a", 1, "relay.example"))

    monkeypatch.setattr(derplink, "dial_region", dialled)

    async def main() -> None:
        stand_in: Any = Owner(0)
        node = RelayNode("1a", 1, "relay.example")
        region = RelayRegion(id=1, code="x", name="X", nodes=(node,))
        loop = asyncio.get_running_loop()
        link = RelayLink(loop, SystemClock(), region, NodePrivate.generate(), stand_in, random=bytes, mark=False)
        assert await link._attempt()
        assert near.fileno() == -1
        link.close()

    uvloop.run(main())


def wait_for_reset(connected: socket.socket) -> None:
    """Until the kernel knows; looking at the error itself would take it away."""
    poll = select.poll()
    poll.register(connected, 0)
    assert poll.poll(10_000)


def test_relay_link_takes_pieces_in_turns_until_there_are_none() -> None:
    async def main() -> None:
        owner, connection = Owner(WRITES_PER_TURN + 2), Connection(1000)
        link = linked(owner, connection, asyncio.get_running_loop())
        wanted = list(owner.pieces)
        link.flush()
        assert connection.written == wanted[:WRITES_PER_TURN]
        await asyncio.sleep(0)
        assert connection.written == wanted
        assert set(owner.limits) == {WRITE_BYTES}
        link.close()

    asyncio.run(main())


def test_relay_link_leaves_frames_where_they_are_while_the_connection_is_full() -> None:
    async def main() -> None:
        owner, connection = Owner(5), Connection(2)
        link = linked(owner, connection, asyncio.get_running_loop())
        link.flush()
        link.flush()
        assert (len(connection.written), len(owner.pieces)) == (2, 3)
        connection.room = 1000
        link._writable()
        await asyncio.sleep(0)
        assert (len(connection.written), len(owner.pieces)) == (5, 0)
        link.close()

    asyncio.run(main())


def test_relay_link_that_lost_its_connection_takes_nothing() -> None:
    async def main() -> None:
        owner, connection = Owner(WRITES_PER_TURN + 2), Connection(1000)
        link = linked(owner, connection, asyncio.get_running_loop())
        link.flush()
        link.close()
        await asyncio.sleep(0)
        assert len(owner.pieces) == 2

    asyncio.run(main())


def test_relay_link_keeps_a_few_packets_while_the_relay_does_not_read() -> None:
    """Handshakes and disco; the oldest fall out. They go before the frames of the data plane."""

    async def main() -> None:
        owner, connection = Owner(1), Connection(0)
        link = linked(owner, connection, asyncio.get_running_loop())
        for number in range(QUEUE_PACKETS + 3):
            link.send(bytes(32), bytes([number]))
        assert connection.written == []
        connection.room = 1000
        link._writable()
        kept = [derp.encode_send_packet(bytes(32), bytes([number])) for number in range(3, QUEUE_PACKETS + 3)]
        assert connection.written == [b"".join(kept), FRAME + bytes(4)]
        link.send(bytes(32), b"x")
        assert connection.written[2:] == [derp.encode_send_packet(bytes(32), b"x")]
        link.close()

    asyncio.run(main())


def test_relay_link_answers_no_pings_of_a_relay_that_does_not_read() -> None:
    async def main() -> None:
        connection = Connection(0)
        link = linked(Owner(0), connection, asyncio.get_running_loop())
        link._data(derp.encode_ping(bytes(8)) * 1000)
        assert connection.written == []
        connection.room = 1
        link._data(derp.encode_ping(bytes(8)))
        assert connection.written == [derp.encode_pong(bytes(8))]
        link.close()

    asyncio.run(main())


def test_relay_link_tries_again_after_a_fault_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody starts its task again: the relay would be lost for as long as the daemon runs."""

    async def main() -> None:
        attempts = asyncio.Queue[str]()

        async def dial_region(region: RelayRegion, **_: object) -> None:
            attempts.put_nowait(region.code)
            raise ValueError("not foreseen: secret")

        monkeypatch.setattr(derplink, "dial_region", dial_region)
        monkeypatch.setattr(derplink, "LONGEST_PAUSE_S", 0.0)
        stand_in: Any = Owner(0)
        region = RelayRegion(id=1, code="x", name="X", nodes=())
        loop = asyncio.get_running_loop()
        link = RelayLink(loop, SystemClock(), region, NodePrivate.generate(), stand_in, random=bytes, mark=False)
        link.set_home(True)
        link.start()
        async with asyncio.timeout(5):
            for _ in range(3):
                await attempts.get()
        assert link.last_error == "internal error: ValueError"
        link.close()

    asyncio.run(main())


@pytest.mark.parametrize("local", ["192.0.2.99", "127.0.0.1"])
def test_relay_link_whose_address_goes_during_the_handshake_gives_up_at_once(local: str) -> None:
    """TLS would be waited for ten seconds."""

    async def main() -> None:
        link = linked(Owner(0), Connection(1), asyncio.get_running_loop())
        link._client = None
        link._local = local
        link._lost = asyncio.get_running_loop().create_future()
        link.network_changed()
        assert link._lost.done() is (local != "127.0.0.1")

    asyncio.run(main())
