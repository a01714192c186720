"""Finding, keeping and losing direct paths, in simulated time."""

from __future__ import annotations

import pytest

from meshd.node.pathtypes import PathPeer
from meshd.testing.memorynet import Link, NatKind
from meshd.wire.disco import TakesBundles
from tests.sim.pathsim import REGION, STUN, PathSimulation

EASY = (None, NatKind.FULL_CONE, NatKind.RESTRICTED, NatKind.PORT_RESTRICTED)


@pytest.fixture
def internet():
    made = []

    def make(**options):
        made.append(PathSimulation(**options))
        return made[-1]

    yield make
    for simulation in made:
        simulation.close()


def behind(kind, **options):
    return {"nat": kind, **options}


@pytest.mark.parametrize("first", EASY)
@pytest.mark.parametrize("second", EASY)
def test_paths_direct_within_a_second_behind_ordinary_nat(internet, first, second):
    sim = internet()
    a, b = sim.pair(behind(first), behind(second))
    a.send(b, b"hello")
    took = sim.until(lambda: a.direct(b) and b.direct(a), 2.0)
    assert took is not None
    assert took < 1.0
    sim.run(0.5)
    assert b.got() == [b"hello"]


@pytest.mark.parametrize("other", [None, NatKind.FULL_CONE, NatKind.RESTRICTED])
def test_paths_symmetric_nat_meets_an_easy_one(internet, other):
    sim = internet()
    a, b = sim.pair(behind(NatKind.SYMMETRIC), behind(other))
    a.send(b, b"hello")
    assert sim.until(lambda: a.direct(b) and b.direct(a), 3.0) is not None


def test_paths_two_symmetric_nats_stay_on_the_relay(internet):
    sim = internet()
    a, b = sim.pair(behind(NatKind.SYMMETRIC), behind(NatKind.SYMMETRIC))
    for n in range(20):
        a.send(b, b"%d" % n)
        sim.run(0.5)
    assert not a.direct(b)
    assert b.got() == [b"%d" % n for n in range(20)]


def test_paths_direct_even_when_the_peer_learns_of_us_late(internet):
    """The call of the first side arrives before the other side knows it: repeated, not lost for 5 s."""
    sim = internet()
    a, b = sim.add(1, nat=NatKind.PORT_RESTRICTED), sim.add(2, nat=NatKind.PORT_RESTRICTED)
    sim.run(1.0)
    a.know(b)
    a.send(b, b"early")
    sim.run(0.3)
    b.know(a)
    took = sim.until(lambda: a.direct(b), 3.0)
    assert took is not None
    assert took < 1.0


def test_paths_loss_delays_but_does_not_prevent(internet):
    sim = internet(seed=7)
    lossy = Link(loss=0.2, jitter_s=0.02)
    a, b = sim.pair(behind(NatKind.PORT_RESTRICTED, link=lossy), behind(NatKind.PORT_RESTRICTED, link=lossy))
    a.send(b, b"hello")
    assert sim.until(lambda: a.direct(b), 10.0) is not None


def test_paths_udp_blocked_uses_the_relay(internet):
    sim = internet()
    a, b = sim.pair({"udp": False}, {})
    a.send(b, b"hello")
    sim.run(1.0)
    assert b.got() == [b"hello"]
    assert not a.direct(b)
    b.send(a, b"back")
    sim.run(1.0)
    assert a.got() == [b"back"]


def test_paths_trusted_path_leaves_the_relay_alone(internet):
    sim = internet()
    a, b = sim.pair()
    a.send(b, b"hello")
    sim.until(lambda: a.direct(b) and b.direct(a), 2.0)
    sim.run(1.0)
    before = sim.relayed
    for n in range(50):
        a.send(b, b"%d" % n)
        b.send(a, b"%d" % n)
        sim.run(0.2)
    assert sim.relayed == before


def test_paths_silent_udp_falls_back_to_relay_and_returns(internet):
    """Trust lapses 6.5 s after the last pong: then both ways are used, until pongs resume (13.2)."""
    sim = internet()
    a, b = sim.pair()
    a.send(b, b"hello")
    assert sim.until(lambda: a.direct(b) and b.direct(a), 2.0) is not None
    b.got()
    a.udp = b.udp = False
    lost_until = 0.0
    for n in range(60):
        a.send(b, b"%d" % n)
        sim.run(0.25)
        if not b.got():
            lost_until = (n + 1) * 0.25
    assert lost_until <= 7.0
    assert not a.direct(b)
    a.udp = b.udp = True
    assert sim.until(lambda: a.direct(b) and b.direct(a), 6.0) is not None


def talking_pair(sim):
    """Two nodes behind routers that let in only whom they sent to, with traffic both ways on a direct path."""
    a, b = sim.pair(behind(NatKind.PORT_RESTRICTED), behind(NatKind.PORT_RESTRICTED))
    a.send(b, b"hello")
    assert sim.until(lambda: a.direct(b) and b.direct(a), 3.0) is not None
    return a, b


def talk(sim, a, b, seconds):
    for _ in range(round(seconds / 0.05)):
        a.send(b, b"ping")
        b.send(a, b"pong")
        sim.run(0.05)


@pytest.mark.parametrize("age_s", [8.0, 15.0, 16.5, 18.5])
def test_paths_router_that_gives_another_port_costs_the_trust_and_no_more(internet, age_s):
    """The other side's router is closed to the new port until somebody asks a STUN server which one it is."""
    sim = internet()
    a, b = talking_pair(sim)
    talk(sim, a, b, age_s)
    a.magic.restun()  # so the next check of the usual rhythm is far
    talk(sim, a, b, 0.2)
    a.nat.reboot()
    talk(sim, a, b, 7.5)  # trust lasts for 6.5 s
    assert a.direct(b)
    assert b.direct(a)
    assert b.direct(a).port == a.nat.next_port - 1


def test_paths_many_silent_peers_cause_few_network_checks(internet):
    sim = internet()
    a, b = talking_pair(sim)
    checks = []
    sim.net.tap = lambda source, to, data: to != STUN or checks.append(sim.clock.monotonic()) or True
    for _ in range(100):
        a.magic.path_lapsed()
        talk(sim, a, b, 0.1)
    begun = [at for at, before in zip(checks, [0.0, *checks], strict=False) if at - before > 1.0]
    assert 3 <= len(begun) <= 4, "one in 3 s"


def test_paths_idle_node_without_its_home_relay_looks_for_another_one_now_and_then(internet):
    sim = internet()
    a = sim.add(1)
    sim.run(60.0)
    checks = []
    sim.net.tap = lambda source, to, data: to != STUN or checks.append(sim.clock.monotonic()) or True
    for _ in range(60):
        a.magic.relay_failed(REGION)
        a.magic.relay_failed(REGION + 1)
        sim.run(2.0)
    assert len({round(at) for at in checks}) == 4, "every 30 s"
    checks.clear()
    a.magic._local_addresses = lambda: []
    a.magic.link_changed()
    sim.run(60.0)
    checks.clear()
    a.magic.relay_failed(REGION)
    sim.run(2.0)
    assert not checks, "without a network there is nobody to ask"


def test_paths_idle_session_goes_quiet_after_45_s(internet):
    sim = internet()
    a, b = sim.pair()
    a.send(b, b"hello")
    sim.run(70.0)
    before = sim.net.sent + sim.relayed
    sim.run(300.0)
    assert sim.net.sent + sim.relayed == before


def test_paths_traffic_after_a_pause_is_direct_again(internet):
    sim = internet()
    a, b = sim.pair(behind(NatKind.PORT_RESTRICTED), behind(NatKind.PORT_RESTRICTED))
    a.send(b, b"hello")
    sim.run(60.0)
    b.got()
    a.send(b, b"again")
    took = sim.until(lambda: a.direct(b), 3.0)
    assert took is not None
    assert took < 1.0
    assert b.got() == [b"again"]


def test_paths_roaming_host_is_found_again(internet):
    sim = internet()
    a, b = sim.pair()
    a.send(b, b"hello")
    sim.until(lambda: a.direct(b) and b.direct(a), 2.0)
    a.move("192.0.2.77")
    took = sim.until(lambda: a.direct(b), 2.0)
    assert took is not None
    a.send(b, b"from elsewhere")
    sim.run(8.0)
    assert b.got()[-1] == b"from elsewhere"
    assert str(b.direct(a).ip) == "192.0.2.77"


def test_paths_roaming_host_is_reached_within_a_second(internet):
    """The other side need not wait until it trusts the old address no more."""
    sim = internet()
    a, b = sim.pair()
    a.send(b, b"hello")
    b.send(a, b"hello")
    sim.until(lambda: a.direct(b) and b.direct(a), 2.0)
    sim.run(10.0)
    a.move("192.0.2.77")
    a.got()

    def reached():
        b.send(a, b"still there?")
        return a.got()

    took = sim.until(reached, 8.0)
    assert took is not None
    assert took < 1.0
    took = sim.until(lambda: str(b.direct(a) and b.direct(a).ip) == "192.0.2.77", 2.0)
    assert took is not None
    assert took < 1.0


def test_paths_no_route_turns_to_the_relay_at_once(internet):
    sim = internet()
    a, b = sim.pair()
    a.send(b, b"hello")
    sim.run(1.0)
    assert a.direct(b)
    b.got()
    a.sockets.errors[b.local] = 113
    a.magic.send_error(b.key, 113)
    assert not a.direct(b)
    a.send(b, b"by relay")
    sim.run(0.5)
    assert b.got() == [b"by relay"]


def test_paths_restarted_peer_is_reached_again(internet):
    """A new disco key voids the path and the session (13.1)."""
    sim = internet()
    a, b = sim.pair()
    a.send(b, b"hello")
    sim.until(lambda: a.direct(b), 2.0)
    b.got()
    b.restart()
    sim.run(0.5)
    b.know(a)
    a.know(b)
    a.send(b, b"after restart")
    assert sim.until(lambda: a.direct(b), 3.0) is not None
    sim.run(0.5)
    assert b.got()[-1:] == [b"after restart"]


def test_paths_both_directly_attached_prefer_the_private_address(internet):
    sim = internet()
    nat = {"nat": NatKind.PORT_RESTRICTED}
    a = sim.add(1, **nat)
    b = sim.add(2, **nat)
    b.socket.close()
    b.nat = a.nat
    b.attach()
    sim.run(1.0)
    b.magic.restun()
    sim.run(1.0)
    a.know(b)
    b.know(a)
    a.send(b, b"hello")
    sim.run(2.0)
    assert a.direct(b).ip == b.local


def timed_ping(sim, a, b):
    started = sim.clock.monotonic()
    outcome = sim.loop.run(a.magic.ping(b.key))
    return outcome, sim.clock.monotonic() - started


@pytest.mark.parametrize("kind", EASY)
def test_paths_first_ping_already_answers_direct(internet, kind):
    sim = internet()
    a, b = sim.pair(behind(kind), behind(kind))
    outcome, took = timed_ping(sim, a, b)
    assert outcome.address is not None
    assert took < 0.5


def test_paths_new_peer_is_direct_before_its_addresses_are_known(internet):
    """Control has told its keys only: our own relay is tried, and the call brings its pings."""
    sim = internet()
    a, b = sim.pair({}, behind(NatKind.PORT_RESTRICTED))
    a.magic.remove_peer(b.key)
    a.magic.update_peer(PathPeer(b.key, b.magic.disco_public, 0, ()))
    outcome, took = timed_ping(sim, a, b)
    assert outcome.address is not None
    assert took < 0.5


def test_paths_ping_by_relay_waits_for_a_direct_one_only_once(internet):
    sim = internet()
    a, b = sim.pair({"udp": False}, {"udp": False})
    first, first_took = timed_ping(sim, a, b)
    second, second_took = timed_ping(sim, a, b)
    assert first.relay == second.relay == 900
    assert first.latency_s == pytest.approx(0.1)
    assert first_took == pytest.approx(0.35)
    assert second_took == pytest.approx(0.1)


def test_paths_ping_is_sent_again_when_lost(internet):
    sim = internet()
    a, b = sim.pair({"udp": False}, {"udp": False})
    a.links.up = False
    sim.clock.call_later(0.6, setattr, a.links, "up", True)
    outcome, took = timed_ping(sim, a, b)
    assert outcome.relay == 900
    assert took < 1.5


def test_paths_ping_without_answer_ends_after_5_s(internet):
    sim = internet()
    a, b = sim.pair({"udp": False}, {"udp": False})
    b.links.up = False
    outcome, took = timed_ping(sim, a, b)
    assert outcome is None
    assert took == pytest.approx(5.0)


def test_paths_handshake_lost_before_the_path_was_known_is_sent_again(internet):
    """The first initiation to a peer that was not reachable yet must not cost WireGuard's 5 s."""
    sim = internet()
    a, b = sim.pair({}, {})
    a.magic.remove_peer(b.key)
    a.magic.update_peer(PathPeer(b.key, b.magic.disco_public, REGION, ()))
    b.links.up = False
    a.send(b, b"hello")
    sim.run(0.5)
    assert b.inbox == []
    a.magic.update_peer(PathPeer(b.key, b.magic.disco_public, REGION, b.endpoints))
    sim.run(1.0)
    assert len(b.inbox) == 1


def test_paths_peers_on_a_relay_agree_on_bundles_for_each_session(internet):
    sim = internet()
    a, b = sim.pair({"udp": False}, {})
    a.send(b, b"one way")
    sim.run(1.0)
    assert takes_bundles(a, b)  # it sends, so it was told
    b.send(a, b"and back")
    sim.run(1.0)
    assert takes_bundles(b, a)
    b.restart()
    b.know(a)
    a.know(b)
    assert not takes_bundles(b, a)
    b.send(a, b"again")
    sim.run(1.0)
    a.send(b, b"again")
    sim.run(1.0)
    assert b"again" in b.got()
    assert takes_bundles(a, b)
    assert takes_bundles(b, a)


def test_paths_peer_that_knows_no_bundles_is_asked_less_and_less(internet, monkeypatch):
    sim = internet()
    a, b = sim.pair({"udp": False}, {})
    asked = []
    monkeypatch.setattr(type(b.magic._paths.bundles), "offered", lambda self, peer, question: asked.append(question))
    for _ in range(100):
        b.send(a, b"data")
        sim.run(1.0)
    assert not takes_bundles(a, b)
    assert not takes_bundles(b, a)
    assert 2 <= len(asked) <= 10
    assert all(asked)


def test_paths_bundles_are_not_agreed_on_by_udp(internet):
    sim = internet()
    a, b = sim.pair()
    a.send(b, b"hello")
    assert sim.until(lambda: a.direct(b) and b.direct(a), 2.0)
    a.plane.set_bundles(0, False)
    packet = b.magic._paths.disco.seal(a.magic.disco_public, TakesBundles(question=True))
    b.magic.sockets.send(packet, b.direct(a))
    sim.run(1.0)
    assert not takes_bundles(a, b)


def takes_bundles(node, other):
    return node.plane.takes_bundles(node.engine.peer_index(other.key))
