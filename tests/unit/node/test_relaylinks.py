"""Which relay connections a node has, and when they are made and closed; time is simulated."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from meshd.base.errors import MeshdError
from meshd.base.keys import NodePrivate
from meshd.core.derpclient import DerpClient, PacketsReceived, PeerGone
from meshd.core.relaymap import RelayMap, RelayNode, RelayRegion
from meshd.node.derp import IDLE_CHECK_S, IDLE_CLOSE_S, RelayLinks
from meshd.node.derplink import DEMAND_S, RelayLink
from meshd.testing.clock import FakeClock
from meshd.testing.loop import FakeTimeLoop

SERVER_KEY = NodePrivate.generate().public().raw
PEER = bytes(32)


class Events:
    """Keeps what ``RelayLinks`` tells; ``frames`` wait for whoever takes them."""

    def __init__(self) -> None:
        self.changes: list[tuple[int, bool]] = []
        self.failures: list[int] = []
        self.frames = b""

    def relay_packets(self, region: int, packets: PacketsReceived) -> None: ...

    def relay_peer_gone(self, region: int, gone: PeerGone) -> None: ...

    def relay_changed(self, region: int, is_open: bool) -> None:
        self.changes.append((region, is_open))

    def relay_failed(self, region: int) -> None:
        self.failures.append(region)

    def relay_health_changed(self) -> None: ...

    def take_relayed(self, region: int, limit: int = 0) -> bytes:
        frames, self.frames = self.frames, b""
        return frames


class Connection:
    """In place of the TLS protocol."""

    paused = False

    def write(self, data: bytes) -> None: ...

    def close(self) -> None: ...


class World:
    """Relays 1 and 2 that answer at once unless they are ``down``. ``dials`` are times and regions."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = FakeClock()
        self.loop = FakeTimeLoop(self.clock)
        self.down = False
        self.patience = 0.0
        self.refusal = MeshdError("no answer", code="relay-unreachable")
        self.dials: list[tuple[float, int]] = []
        self.events = Events()
        monkeypatch.setattr(RelayLink, "_connect", lambda link: self.connect(link))
        self.links = RelayLinks(self.loop, self.clock, self.events, random=bytes, mark=False)
        self.links.set_key(NodePrivate.generate())
        self.links.set_map(RelayMap({1: region(1), 2: region(2)}))

    async def connect(self, link: Any) -> asyncio.Future[str]:
        self.dials.append((self.clock.monotonic(), link.region.id))
        await asyncio.sleep(self.patience)
        if self.down:
            raise self.refusal
        link._lost = self.loop.create_future()
        link._protocol = Connection()
        link._client = DerpClient(link._key, host="x", random=bytes, server_key=SERVER_KEY, preferred=link._home)
        link._client.start(self.clock.monotonic())
        link._step()
        return link._lost

    def close(self) -> None:
        self.links.close()
        self.loop.run_for(1)
        self.loop.close()


def region(number: int) -> RelayRegion:
    return RelayRegion(number, str(number), str(number), (RelayNode(f"{number}a", number, "host"),))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Any:
    world = World(monkeypatch)
    yield world
    world.close()


def test_relay_links_former_home_closes_when_nobody_writes_to_it(world: World) -> None:
    world.links.set_home(1)
    world.loop.run_for(10)
    world.links.set_home(2)
    world.loop.run_for(1)
    assert world.links.open_regions() == [1, 2]
    world.loop.run_for(IDLE_CLOSE_S + IDLE_CHECK_S)
    assert world.links.open_regions() == [2]
    assert world.events.changes == [(1, True), (2, True), (1, False)]


def test_relay_links_tell_that_a_relay_cannot_be_reached(world: World) -> None:
    """SM-02: who waits for a relay must hear that there may never be one."""
    world.down = True
    world.links.set_home(1)
    world.loop.run_for(30)
    assert len(world.dials) > 2
    assert set(world.events.failures) == {1}
    assert world.links.last_error(1)
    world.down = False
    world.loop.run_for(30)
    assert (world.links.last_error(1), world.events.changes) == ("", [(1, True)])
    world.down = True
    world.links.break_all()
    world.loop.run_for(30)
    assert world.events.changes == [(1, True), (1, False)]


def test_relay_links_former_home_stays_while_it_is_written_to(world: World) -> None:
    world.links.set_home(1)
    world.loop.run_for(10)
    world.links.set_home(2)
    for _ in range(4):
        world.loop.run_for(25)
        world.links.send(1, PEER, b"x")
    assert world.links.open_regions() == [1, 2]


def test_relay_links_frames_alone_are_demand(world: World) -> None:
    """The data plane does not announce frames while its queue never becomes empty."""
    world.links.send(2, PEER, b"x")
    world.loop.run_for(1)
    for _ in range(4):
        world.loop.run_for(25)
        world.events.frames = b"frames"
        world.links._links[2].flush()
    assert world.links.open_regions() == [2]


def test_relay_links_demand_wakes_a_link_that_sleeps(world: World) -> None:
    """A handshake must not wait a minute for the relay of its peer."""
    world.down = True
    link = RelayLink(world.loop, world.clock, region(2), NodePrivate.generate(), world.links, random=bytes, mark=False)
    link.wanted(world.clock.monotonic())
    link.start()
    world.loop.run_for(DEMAND_S + 10)
    world.down = False
    tried = len(world.dials)
    world.loop.run_for(5)
    assert len(world.dials) == tried, "nobody wants it"
    wanted_at = world.clock.monotonic()
    link.wanted(wanted_at)
    world.loop.run_for(1)
    assert link.is_open
    assert world.dials[tried:] == [(wanted_at, 2)]
    link.close()


def outage(world: World, seconds: float, *, traffic: bool) -> list[float]:
    """The home relay is away; the times between attempts of the second half."""
    world.links.set_home(1)
    world.loop.run_for(10)
    world.down = True
    world.links.break_all()
    begun = world.clock.monotonic()
    while world.clock.monotonic() - begun < seconds:
        if traffic:
            world.links.send(1, PEER, b"x")
        world.loop.run_for(0.1)
    times = [at for at, _ in world.dials if at > begun + seconds / 2]
    return [after - before for before, after in pairwise(times)]


def test_relay_links_relay_that_was_away_is_back_at_once_for_those_who_need_it(world: World) -> None:
    assert max(outage(world, 30, traffic=True)) < 0.7
    world.down = False
    world.links.send(1, PEER, b"x")
    world.loop.run_for(0.7)
    assert world.links.is_open(1)


def test_relay_links_relay_that_is_away_is_left_alone_by_those_who_do_not(world: World) -> None:
    assert min(outage(world, 60, traffic=False)) > 2.4


def test_relay_links_one_packet_ends_a_long_pause(world: World) -> None:
    outage(world, 60, traffic=False)
    tried = len(world.dials)
    while len(world.dials) == tried:
        world.loop.run_for(0.1)
    world.loop.run_for(0.7)
    world.links.send(1, PEER, b"x")
    world.loop.run_for(0.01)
    assert len(world.dials) == tried + 2


def test_relay_links_relay_that_refuses_is_not_asked_more_often_for_traffic(world: World) -> None:
    world.refusal = MeshdError("certificate expired", code="tls")
    assert min(outage(world, 60, traffic=True)) > 2.4


def test_relay_links_every_attempt_in_vain_is_told(world: World) -> None:
    outage(world, 5, traffic=False)
    assert world.events.failures == [1] * (len(world.dials) - 1)


def test_relay_links_network_that_comes_up_during_an_attempt_makes_another_one_at_once(world: World) -> None:
    """The attempt over the network that was will fail, and a long pause after it would keep us away."""
    outage(world, 60, traffic=False)
    world.patience = 1.0
    tried = len(world.dials)
    while len(world.dials) == tried:
        world.loop.run_for(0.1)
    world.links.link_changed()
    world.loop.run_for(1.1)
    assert len(world.dials) == tried + 2
    world.loop.run_for(2.0)
    assert len(world.dials) == tried + 2, "one more, and then the pauses go on"
