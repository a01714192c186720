"""Two and three engines over a simulated network; minutes pass in milliseconds."""

from __future__ import annotations

import itertools
import random
from ipaddress import IPv4Network, IPv6Address, IPv6Network

import pytest

from meshd.base.keys import NodePublic
from meshd.base.ranges import SERVICE_V4
from meshd.core.cookie import CookieJar
from meshd.node.dataplane import EV_CONFIRMED
from meshd.node.enginepeer import PeerConfig
from meshd.testing.fakeplane import REJECT_AFTER_MESSAGES
from meshd.testing.memorynet import Link
from meshd.wire.ippacket import Echo, UDPDatagram, decode_echo, decode_ip, encode_echo, encode_ip, encode_udp
from meshd.wire.tsmp import TsmpReject, decode_tsmp


@pytest.fixture
def pair(simulate):
    simulation = simulate()
    a, b = simulation.add(1), simulation.add(2)
    simulation.connect_all()
    return simulation, a, b


def test_engine_first_packet_makes_a_session_and_arrives(pair):
    simulation, a, b = pair
    a.say(b, b"hello")
    simulation.run(1)
    assert b.heard() == [b"hello"]
    b.say(a, b"hello yourself")
    simulation.run(1)
    assert a.heard() == [b"hello yourself"]
    assert len(a.sessions()) == len(b.sessions()) == 1


def test_engine_packets_before_the_session_arrive_in_order(pair):
    simulation, a, b = pair
    for number in range(50):
        a.say(b, b"%d" % number)
    simulation.run(1)
    assert b.heard() == [b"%d" % number for number in range(50)]


def test_engine_packet_handed_up_while_the_session_is_made_goes_out_at_once(pair):
    """It waited five seconds for another handshake, and what came after it went first."""
    simulation, a, b = pair
    install = a.plane.install_session

    def busy(*arguments, **options):
        a.say(b, b"meanwhile")
        install(*arguments, **options)

    a.plane.install_session = busy
    a.say(b, b"first")
    simulation.run(1)
    assert b.heard() == [b"first", b"meanwhile"]
    simulation.run(10)
    assert len(a.sessions()) == 1


def test_engine_both_sides_start_at_once_and_both_arrive(pair):
    simulation, a, b = pair
    a.say(b, b"from a")
    b.say(a, b"from b")
    simulation.run(1)
    assert a.heard() == [b"from b"]
    assert b.heard() == [b"from a"]


def test_engine_confirmation_whose_event_was_lost_is_found_later(pair):
    simulation, a, b = pair
    real_event = b.plane._event
    b.plane._event = lambda event: None if event[0] == EV_CONFIRMED else real_event(event)
    a.say(b, b"hello")
    simulation.run(1)
    assert len(b.sessions()) == 1
    assert b.engine.peer_status(a.key).last_handshake is not None


def test_engine_idle_peers_fall_silent_and_cost_no_timer(pair):
    """Two idle peers must not keep each other awake."""
    simulation, a, b = pair
    a.say(b, b"hello")
    simulation.run(60)
    sent = simulation.net.sent
    simulation.run(600)
    assert simulation.net.sent == sent
    assert len(a.engine._timers) == len(b.engine._timers) == 0


def test_engine_answers_one_way_data_with_a_keepalive(pair):
    simulation, a, b = pair
    a.say(b, b"hello")
    simulation.run(9)
    assert b.plane.peer_state(0).tx_packets == 0
    simulation.run(2)
    assert b.plane.peer_state(0).tx_packets == 1


@pytest.mark.parametrize("seed", range(5))
def test_engine_rekeys_every_two_minutes_under_load_without_loss(simulate, seed):
    simulation = simulate(seed=seed, link=Link(delay_s=0.02, jitter_s=0.002))
    a, b = simulation.add(1), simulation.add(2)
    simulation.connect_all()
    sent_a = sent_b = 0
    for _ in range(3000):
        a.say(b, b"%d" % sent_a)
        sent_a += 1
        if sent_a % 3 == 0:
            b.say(a, b"%d" % sent_b)
            sent_b += 1
        simulation.run(0.2)
    simulation.run(1)
    assert sorted(map(int, b.heard())) == list(range(sent_a))
    assert sorted(map(int, a.heard())) == list(range(sent_b))
    times = a.sessions()
    assert 5 <= len(times) <= 7
    assert all(110 < later - earlier < 130 for earlier, later in itertools.pairwise(times))


@pytest.mark.parametrize("seed", range(5))
def test_engine_on_a_bad_network_keeps_sessions_for_ten_minutes(simulate, seed):
    link = Link(delay_s=0.05, jitter_s=0.1, loss=0.1, duplicate=0.05)
    simulation = simulate(seed=seed, link=link)
    nodes = [simulation.add(number) for number in (1, 2, 3)]
    simulation.connect_all()
    said = {node.number: 0 for node in nodes}
    got = {node.number: set() for node in nodes}
    for second in range(600):
        for node in nodes:
            for peer in nodes:
                if peer is not node and (second + node.number) % 2:
                    node.say(peer, b"%d %d" % (node.number, second))
                    said[node.number] += 1
        simulation.run(1)
        for node in nodes:
            texts = node.heard()
            assert len(texts) == len(set(texts)), "a duplicate came through"
            assert not got[node.number] & set(texts), "a duplicate came through"
            got[node.number] |= set(texts)
    received = sum(len(texts) for texts in got.values())
    expected = sum(said.values()) * 0.9**2
    assert received > expected * 0.93
    for node in nodes:
        assert len(node.engine._context.indices) <= 2 * 4


def test_engine_handshake_survives_a_dead_minute(pair):
    simulation, a, b = pair
    a.socket.link.up = False
    a.say(b, b"patient")
    simulation.run(62)
    assert b.heard() == []
    a.socket.link.up = True
    simulation.run(6)
    assert b.heard() == [b"patient"]


def test_engine_peer_that_restarts_is_reached_again_within_fifteen_seconds(pair):
    """Nobody tells us: plain WireGuard timers find out."""
    simulation, a, b = pair
    a.say(b, b"before")
    simulation.run(1)
    b.heard()
    b.crash_and_restart()
    b.know(a)
    for _ in range(20):
        a.say(b, b"still there?")
        simulation.run(1)
    assert 3 <= len(b.heard()) <= 6


def test_engine_changed_disco_key_restarts_the_session_at_once(pair):
    """SM row of a restarted peer: traffic must not stall for 15 seconds."""
    simulation, a, b = pair
    a.say(b, b"before")
    simulation.run(1)
    b.heard()
    b.crash_and_restart()
    b.know(a)
    a.know(b)
    a.say(b, b"after")
    simulation.run(1)
    assert b.heard() == [b"after"]


def test_engine_same_peer_again_changes_nothing(pair):
    simulation, a, b = pair
    a.say(b, b"before")
    simulation.run(1)
    sent = simulation.net.sent
    a.know(b)
    a.engine.set_private_key(a.private)
    a.say(b, b"after")
    simulation.run(1)
    assert b.heard() == [b"before", b"after"]
    assert simulation.net.sent == sent + 1


def test_engine_removed_peer_gets_and_gives_nothing_until_it_is_back(pair):
    simulation, a, b = pair
    a.say(b, b"before")
    simulation.run(1)
    b.heard()
    a.engine.remove_peer(b.key)
    a.say(b, b"lost")
    b.say(a, b"refused")
    simulation.run(30)
    assert a.heard() == []
    assert b.heard() == []
    assert a.engine.peer_status(b.key) is None
    a.know(b)
    a.say(b, b"back")
    simulation.run(6)
    assert b.heard() == [b"back"]


def test_engine_private_key_change_ends_old_sessions(pair):
    simulation, a, b = pair
    a.say(b, b"before")
    simulation.run(1)
    b.heard()
    old = a.key
    a.private = type(a.private).generate()
    a.engine.set_private_key(a.private)
    a.say(b, b"as a stranger")
    simulation.run(3)
    assert b.heard() == []
    assert b.engine.counters()["initiation_unknown_peer"] == 1
    b.engine.remove_peer(old)
    b.know(a)
    simulation.run(6)
    assert b.heard() == [b"as a stranger"]


def test_engine_without_private_key_drops_everything(pair):
    simulation, a, b = pair
    b.engine.set_private_key(None)
    a.say(b, b"anybody?")
    b.say(a, b"no")
    simulation.run(1)
    assert b.heard() == []
    assert b.engine.counters()["no_private_key"] >= 2


def test_engine_own_key_is_no_peer(pair):
    _, a, _ = pair
    with pytest.raises(ValueError, match="own peer"):
        a.engine.update_peer(PeerConfig(a.key, ()))


def test_engine_moved_address_goes_to_its_new_owner_in_either_order(simulate):
    simulation = simulate()
    a, b, c = (simulation.add(number) for number in (1, 2, 3))
    simulation.connect_all()
    prefixes = {node: a.engine._peers[node.key].config for node in (b, c)}
    both = prefixes[b].allowed_ips + prefixes[c].allowed_ips
    a.engine.update_peer(PeerConfig(c.key, both, c.disco))
    a.engine.update_peer(PeerConfig(b.key, (), b.disco))
    assert set(a.plane._routes.values()) == {a.engine.peer_index(c.key)}
    a.engine.update_peer(PeerConfig(c.key, prefixes[c].allowed_ips, c.disco))
    a.engine.update_peer(prefixes[b])
    a.say(b, b"to b")
    simulation.run(1)
    assert b.heard() == [b"to b"]
    assert c.heard() == []


def test_engine_source_of_another_peer_is_refused(simulate):
    """One peer must not send from what belongs to another, however specific its own prefixes are."""
    simulation = simulate()
    a, b, c = (simulation.add(number) for number in (1, 2, 3))
    simulation.connect_all()
    true_address, b.address = b.address, c.address
    b.say(a, b"I am c")
    simulation.run(1)
    b.address = true_address
    assert a.heard() == []
    assert a.plane.counters()["in_source"] == 1


def test_engine_status_counts_bytes_and_handshake_time(pair):
    simulation, a, b = pair
    assert a.engine.peer_status(b.key).last_handshake is None
    assert not a.engine.peer_status(b.key).in_engine
    a.say(b, b"hello")
    simulation.run(1)
    status, theirs = a.engine.peer_status(b.key), b.engine.peer_status(a.key)
    assert status.in_engine
    assert simulation.clock.wall() - 1 < status.last_handshake <= simulation.clock.wall()
    assert status.tx_bytes == theirs.rx_bytes == 148 + 32 + 16 + 48 + 16
    assert status.rx_bytes == theirs.tx_bytes == 92


def test_engine_persistent_keepalive_holds_a_session_open(simulate):
    simulation = simulate()
    a, b = simulation.add(1), simulation.add(2)
    b.know(a)
    a.know(b, keepalive_s=25)
    simulation.run(600)
    state = b.plane.peer_state(0)
    assert 20 <= state.rx_packets <= 40
    assert len(a.sessions()) >= 4


def test_engine_tsmp_ping_makes_a_session_and_is_answered(pair):
    simulation, a, b = pair
    pong = simulation.loop.run(a.engine.ping_tsmp(b.key, b.address))
    assert 0.02 < pong.latency_s < 0.2
    assert pong.peerapi_port == 0
    assert b.inbox == []


def test_engine_ping_of_a_silent_peer_returns_none_in_time(pair):
    simulation, a, b = pair
    b.socket.link.up = False
    before = simulation.clock.monotonic()
    assert simulation.loop.run(a.engine.ping_tsmp(b.key, b.address, timeout_s=3)) is None
    assert simulation.clock.monotonic() - before == pytest.approx(3)
    assert not a.engine.pings._waiting


def test_engine_icmp_ping_is_answered_by_a_userspace_node(simulate):
    simulation = simulate()
    a, b = simulation.add(1), simulation.add(2, userspace=True)
    simulation.connect_all()
    pong = simulation.loop.run(a.engine.ping_icmp(b.key, b.address))
    assert pong.latency_s < 0.2
    assert a.inbox == []


def test_engine_clock_steps_back_and_rekeying_goes_on(pair):
    simulation, a, b = pair
    a.say(b, b"before")
    simulation.run(1)
    for node in (a, b):
        node.heard()
    simulation.clock.step_wall(-3600)
    simulation.run(700)
    a.say(b, b"after")
    simulation.run(1)
    assert b.heard() == [b"after"]


@pytest.mark.parametrize("known", [True, False])
def test_engine_flood_of_initiations_draws_cookies_and_lets_a_peer_through(simulate, known):
    """Under load a source must return a cookie; a peer that does gets through."""
    simulation = simulate()
    a, b, flooder = simulation.add(1), simulation.add(2), simulation.add(3)
    a.know(b)
    b.know(a)
    if known:
        b.know(flooder)
    flooder.know(b)
    captured = []
    simulation.net.tap = lambda source, to, data: bool(captured.append(data))
    flooder.say(b, b"x")
    simulation.run(0.1)
    flooder.socket.receiver = lambda source, datagram: None
    flooder.close()
    simulation.nodes.remove(flooder)
    simulation.net.tap = None
    for number in range(90):
        for _ in range(600):
            simulation.clock.call_later(0.1 * number, flooder.socket.send, b.socket.address, captured[0])
    simulation.run(1)
    a.say(b, b"through the flood")
    simulation.run(7)
    assert b.heard() == [b"through the flood"]
    counters = b.engine.counters()
    assert counters["cookie_asked"] > 10_000
    assert counters.get("initiation_replayed", 0) + counters.get("initiation_unknown_peer", 0) < 1000


def test_engine_noise_never_brings_us_under_load(pair):
    """Datagrams without a valid mac1 take no place in the queue and get no answer."""
    simulation, a, b = pair
    sent = simulation.net.sent
    for _ in range(3000):
        simulation.net.clock.call_later(0, a.socket.send, b.socket.address, b"\1\0\0\0" + bytes(144))
    simulation.run(1)
    assert simulation.net.sent == sent + 3000
    assert b.engine.counters() == {"mac1": 3000}
    a.say(b, b"hello")
    simulation.run(1)
    assert b.heard() == [b"hello"]


def test_engine_oversized_and_odd_datagrams_are_dropped_or_handed_on(pair):
    """An oversized datagram crashed another implementation."""
    simulation, a, b = pair
    handed_on = []
    b.engine.hooks.datagram = lambda address, port, data: handed_on.append(data)
    odd = [b"", b"\1", b"\1\0\0\0", b"\1" * 65507, b"\4\0\0\0" + bytes(12), bytes(148), b"\5\0\0\0" * 300]
    for datagram in odd:
        b._received(a.socket.address, datagram)
    for kind, size in ((1, 148), (2, 92), (3, 64), (4, 2000)):
        b._received(a.socket.address, bytes([kind, 0, 0, 0]) + b"\xff" * (size - 4))
    simulation.run(1)
    assert handed_on == odd
    assert b.engine.counters() == {"mac1": 2, "cookie_unexpected": 1}


def test_engine_two_thousand_silent_peers_have_no_tunnel_and_no_timer(simulate):
    simulation = simulate()
    a = simulation.add(1)
    for number in range(2000):
        key = NodePublic(number.to_bytes(32, "big"))
        a.engine.update_peer(PeerConfig(key, (IPv4Network((0x64500000 + number, 32)),), a.disco))
    simulation.run(3600)
    assert simulation.net.sent == 0
    assert len(a.engine._timers) == 0
    assert all(peer.tunnel is None for peer in a.engine._peers.values())


def test_engine_denied_connection_draws_a_reject_that_says_why(pair):
    simulation, a, b = pair
    notes = []
    a.engine.pings.tsmp_received = lambda peer, packet: notes.append(decode_tsmp(decode_ip(packet).payload))
    local = [(b.address.packed, 32)]
    syn = bytes.fromhex("04d201bb0000000000000000500200000000") + bytes(2)
    for shields_up in (False, True):
        b.engine.set_filter([], local, shields_up=shields_up)
        a.plane.tun_write(encode_ip(a.address, b.address, 6, syn))
        simulation.run(1)
    assert b.inbox == []
    assert notes == [TsmpReject(6, "A", 1234, 443), TsmpReject(6, "S", 1234, 443)]


def test_engine_service_address_answers_pings_itself(pair):
    _, a, _ = pair
    seen = []
    a.engine.hooks.service = seen.append
    a.plane.tun_write(encode_echo(a.address, SERVICE_V4, Echo(False, 1, 2, b"x")))
    a.plane.tun_write(encode_udp(a.address, SERVICE_V4, UDPDatagram(1, 53, b"query")))
    a.simulation.run(0.1)
    (reply,) = a.inbox
    assert decode_echo(decode_ip(reply)) == Echo(True, 1, 2, b"x")
    assert len(seen) == 1
    a.inbox.clear()


def test_engine_echo_reply_to_the_host_is_not_swallowed(pair):
    """The host may ping with the identifier that we use ourselves."""
    simulation, a, b = pair
    a.say(b, b"hello")
    simulation.run(1)
    reply = encode_echo(b.address, a.address, Echo(True, a.engine.pings.echo_identifier, 1, b"host"))
    b.plane.send_packet(b.engine.peer_index(a.key), reply)
    simulation.run(1)
    assert a.inbox == [reply]
    a.inbox.clear()


def test_engine_forgets_keys_after_nine_minutes(pair):
    simulation, a, b = pair
    a.say(b, b"hello")
    simulation.run(530)
    assert a.engine.peer_status(b.key).in_engine
    simulation.run(30)
    assert not a.engine.peer_status(b.key).in_engine
    assert len(a.plane._sessions) == len(b.plane._sessions) == 0
    a.say(b, b"again")
    simulation.run(1)
    assert b.heard() == [b"hello", b"again"]


def test_engine_session_is_refused_after_three_minutes(pair):
    """Another implementation kept sessions longer than the specification allows."""
    simulation, a, b = pair
    a.say(b, b"hello")
    simulation.run(1)
    captured = []
    simulation.net.tap = lambda source, to, data: bool(captured.append(data))
    a.say(b, b"held back")
    simulation.net.tap = None
    simulation.run(185)
    b._received(a.socket.address, captured[0])
    assert b.heard() == [b"hello"]
    assert b.plane.counters()["in_no_session"] == 1
    a.say(b, b"new session")
    simulation.run(1)
    assert b.heard() == [b"new session"]
    assert len(a.sessions()) == 2


def test_engine_counter_never_reaches_the_limit(pair):
    """Other implementations let the counter wrap, or used 32 bits of it."""
    simulation, a, b = pair
    a.say(b, b"hello")
    simulation.run(6)
    session = next(iter(a.plane._sessions.values()))
    session.send_counter = REJECT_AFTER_MESSAGES - 1
    a.say(b, b"last")
    a.say(b, b"with new keys")
    simulation.run(1)
    assert b.heard() == [b"hello", b"last", b"with new keys"]
    assert session.send_counter == REJECT_AFTER_MESSAGES
    assert len(a.sessions()) == 2


def test_engine_relayed_datagrams_travel_by_key(pair):
    """Without an address everything goes to the relay, framed for it; handshakes are attributed by decryption."""
    simulation, a, b = pair
    for node, peer in ((a, b), (b, a)):
        node.plane.set_path(node.engine.peer_index(peer.key), None, 0, 0.0, 900)
        node.engine._send = lambda key, data, node=node, peer=peer: simulation.loop.call_soon(
            peer.engine.receive, data, node.key
        )
        node.engine.hooks.relay = lambda relay, node=node, peer=peer: _carry(node, peer, relay)
    sent = simulation.net.sent
    a.say(b, b"by relay")
    simulation.run(1)
    assert b.heard() == [b"by relay"]
    assert simulation.net.sent == sent


def _carry(node, peer, relay):
    frames = node.plane.take_relayed(relay)
    while frames:
        kind, size = frames[0], int.from_bytes(frames[1:5], "big")
        assert (kind, frames[5:37]) == (4, peer.key.raw)
        assert peer.plane.open_from([frames[37 : 5 + size]]) == []
        frames = frames[5 + size :]


def test_engine_mutated_handshakes_with_valid_mac1_are_counted_and_dropped(pair):
    """Whoever knows our public key can get this far."""
    simulation, a, b = pair
    captured = []
    simulation.net.tap = lambda source, to, data: bool(captured.append(data))
    a.say(b, b"x")
    simulation.run(0.1)
    simulation.net.tap = None
    rng = random.Random(5)
    jar = CookieJar(b.key.raw)
    initiation, response = captured[0], b"\2\0\0\0" + rng.randbytes(88)
    for _ in range(300):
        for message in (initiation, response):
            mutated = bytearray(message)
            for _ in range(rng.randint(1, 4)):
                mutated[rng.randrange(4, len(mutated))] = rng.randrange(256)
            b.engine.receive(jar.sign(bytes(mutated), 0.0), a.socket.address)
        simulation.run(0.01)
    counters = b.engine.counters()
    assert set(counters) <= {"initiation_forged", "initiation_replayed", "response_unexpected", "cookie_asked"}
    # After a few of them the source has to prove itself with a cookie first, which costs no key agreement.
    assert 3 <= counters["initiation_forged"] < 50
    assert 3 <= counters["response_unexpected"] < 50
    assert sum(counters.values()) > 550
    simulation.run(6)
    assert b.heard() == [b"x"]


SITE = IPv6Network("fd7a:115c:a1e0:b1a:0:7:a01:200/120")
OWN6 = IPv6Address("fd7a:115c:a1e0::1")


def test_engine_via_route_is_translated_both_ways(simulate):
    """RT-08: what a peer sends to the address of a site reaches the IPv4 host, and its answer the peer."""
    simulation = simulate()
    a, b = simulation.add(1), simulation.add(2)
    network = IPv4Network((a.address, 32)), IPv6Network((OWN6, 128))
    a.engine.update_peer(PeerConfig(b.key, (IPv4Network((b.address, 32)), SITE), b.disco))
    b.engine.update_peer(PeerConfig(a.key, network, a.disco, ipv4=a.address))
    b.engine.set_via([SITE], [b.address])
    for one, other in ((a, b), (b, a)):
        one.known[other.key] = other.socket.address
        address = other.socket.address
        one.plane.set_path(one.engine.peer_index(other.key), address.ip.packed, address.port, float("inf"), 0)
    host, target = IPv4Network("10.1.2.3").network_address, IPv6Address("fd7a:115c:a1e0:b1a:0:7:a01:203")
    a.plane.tun_write(encode_udp(OWN6, target, UDPDatagram(4000, 53, b"ask")))
    simulation.run(1)
    assert b.inbox[0][12:20] == a.address.packed + host.packed
    assert b.heard() == [b"ask"]
    b.plane.tun_write(encode_udp(host, a.address, UDPDatagram(53, 4000, b"answer")))
    simulation.run(1)
    assert a.inbox[0][8:40] == target.packed + OWN6.packed
    assert a.heard() == [b"answer"]
    # Without the peer's IPv4 address there is no way back, and without the route nothing is translated.
    b.engine.update_peer(PeerConfig(a.key, network, a.disco))
    a.plane.tun_write(encode_udp(OWN6, target, UDPDatagram(4000, 53, b"again")))
    simulation.run(1)
    assert b.heard() == []
    assert b.engine.peer_drops()[a.key] == {"in_via_no_ipv4": 1}
    b.engine.set_via([], [])
    b.plane.tun_write(encode_udp(host, a.address, UDPDatagram(53, 4000, b"plain")))
    simulation.run(1)
    assert a.inbox == []  # a lets nothing in from 10.1.2.3 by this peer
