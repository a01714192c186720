"""The path machine: every rule with a number."""

from __future__ import annotations

from itertools import count, pairwise

import pytest

from meshd.base.addr import AddrPort
from meshd.base.keys import DiscoPublic, NodePublic
from meshd.core.candidate import MAX_CANDIDATES
from meshd.core.path import (
    DISCOVERY_INTERVAL_S,
    DOUBT_S,
    EAGER_GAPS_S,
    HEARTBEAT_INTERVAL_S,
    MAX_PING_BYTES,
    PING_PACKET_BYTES,
    SESSION_ACTIVE_S,
    TRUST_S,
    UPGRADE_INTERVAL_S,
    NeedCallMeMaybe,
    PathSet,
    PingAnswered,
    SendPing,
    SetPath,
    TrustLapsed,
    WentIdle,
)

A = AddrPort.parse("192.0.2.1:41641")
B = AddrPort.parse("198.51.100.7:1234")
C = AddrPort.parse("203.0.113.9:5")
PRIVATE = AddrPort.parse("192.168.1.5:41641")
T0 = 1000.0


def counting():
    numbers = count(1)
    return lambda size: next(numbers).to_bytes(size, "big")


def make(*endpoints, relay=900, disco=b"\x07" * 32):
    path = PathSet(NodePublic(b"\x01" * 32), DiscoPublic(disco), endpoints, relay, counting())
    path.drain()
    return path


def pings(effects):
    return [e for e in effects if isinstance(e, SendPing)]


def of(kind, effects):
    return [e for e in effects if isinstance(e, kind)]


def answer_all(path, now, *, source=None, effects=None):
    for ping in pings(effects if effects is not None else path.drain()):
        if ping.address is not None:
            path.pong_received(ping.txid, source or ping.address, B, now)


def direct(path, now=T0, latency=0.020):
    """Traffic, and a pong from the first candidate."""
    path.traffic_sent(now)
    first = pings(path.drain())[0]
    path.pong_received(first.txid, first.address, B, now + latency)
    path.drain()
    return now + latency


def run_until(path, now, end):
    """Fire timers up to ``end``, answering nothing; all effects with their time."""
    seen = []
    while (due := path.next_timer()) is not None and due <= end:
        now = max(now, due)
        path.handle_timer(now)
        seen += [(now, effect) for effect in path.drain()]
    return seen


def test_path_new_peer_publishes_its_relay():
    path = PathSet(NodePublic(b"\x01" * 32), DiscoPublic(b"\x02" * 32), (A,), 3, counting())
    assert path.drain() == [SetPath(None, 0.0, 3)]


def test_path_idle_peer_has_no_timer():
    path = make(A, B)
    assert path.next_timer() is None
    path.node_updated(path.disco_key, (A, B, C), T0)
    assert path.next_timer() is None
    assert path.drain() == []


def test_path_first_traffic_pings_every_candidate_and_calls():
    path = make(A, B)
    path.traffic_sent(T0)
    effects = path.drain()
    assert [p.address for p in pings(effects)] == [A, B]
    assert of(NeedCallMeMaybe, effects)


def test_path_no_candidates_still_calls():
    path = make()
    path.traffic_sent(T0)
    assert path.drain() == [NeedCallMeMaybe()]


def test_path_without_relay_does_not_call():
    path = make(A, relay=0)
    path.traffic_sent(T0)
    assert not of(NeedCallMeMaybe, path.drain())


def test_path_without_disco_key_sends_nothing():
    path = make(A, disco=bytes(32))
    path.traffic_sent(T0)
    assert not pings(path.drain())


def test_path_pong_makes_direct_and_trusts_6500_ms():
    path = make(A)
    path.traffic_sent(T0)
    ping = pings(path.drain())[0]
    assert path.pong_received(ping.txid, A, B, T0 + 0.03)
    assert path.drain() == [SetPath(A, T0 + 0.03 + TRUST_S, 900)]
    assert TRUST_S == 6.5
    assert path.trusted(T0 + 0.03 + 6.5)
    assert not path.trusted(T0 + 0.03 + 6.51)


def test_path_pong_counts_for_the_pinged_address_not_its_source():
    path = make(A)
    path.traffic_sent(T0)
    ping = pings(path.drain())[0]
    path.pong_received(ping.txid, C, B, T0 + 0.03)
    assert path.best is not None
    assert path.best.address == A


def test_path_unknown_or_repeated_pong_ignored():
    path = make(A)
    path.traffic_sent(T0)
    ping = pings(path.drain())[0]
    assert not path.pong_received(b"x" * 12, A, B, T0 + 0.01)
    assert path.pong_received(ping.txid, A, B, T0 + 0.01)
    assert not path.pong_received(ping.txid, A, B, T0 + 0.02)


def test_path_pong_after_5_s_is_too_late():
    path = make(A)
    path.traffic_sent(T0)
    ping = pings(path.drain())[0]
    assert not path.pong_received(ping.txid, A, B, T0 + 5.01)
    assert path.best is None


def test_path_pong_by_relay_makes_nothing_direct():
    path = make(A)
    path.traffic_sent(T0)
    ping = pings(path.drain())[0]
    path.pong_received(ping.txid, None, B, T0 + 0.01)
    assert path.best is None


def test_path_heartbeat_every_3_s_for_45_s_then_idle():
    path = make(A)
    now = direct(path, latency=0.001)
    beats, idle = [], None
    while (due := path.next_timer()) is not None:
        now = max(now, due)
        path.handle_timer(now)
        effects = path.drain()
        beats += [now for p in pings(effects)]
        answer_all(path, now + 0.001, effects=effects)
        path.drain()
        if of(WentIdle, effects):
            idle = now
            break
    assert beats == pytest.approx([T0 + HEARTBEAT_INTERVAL_S * n for n in range(1, 16)])
    assert idle == pytest.approx(T0 + SESSION_ACTIVE_S + HEARTBEAT_INTERVAL_S)


def test_path_traffic_keeps_heartbeats_running():
    path = make(A)
    direct(path)
    path.note_send(T0 + 40)
    effects = run_until(path, T0, T0 + 84)
    assert not of(WentIdle, [e for _, e in effects])


def test_path_trust_lapse_starts_discovery_at_once():
    path = make(A, B)
    now = direct(path)
    seen = run_until(path, now, now + TRUST_S)
    for kind in (NeedCallMeMaybe, TrustLapsed):
        assert next(t for t, e in seen if isinstance(e, kind)) == pytest.approx(now + TRUST_S)


def test_path_trust_lapse_keeps_the_address_published():
    path = make(A)
    now = direct(path)
    seen = [e for _, e in run_until(path, now, now + 20)]
    assert not of(SetPath, seen)
    assert path.best is not None
    assert not path.trusted(now + 20)


def test_path_failed_discovery_repeats_eagerly_then_every_5_s():
    path = make(A)
    path.traffic_sent(T0)
    path.drain()
    times = []
    now = T0
    while now < T0 + 30:
        due = path.next_timer()
        now = due
        path.note_send(now)
        path.handle_timer(now)
        if pings(path.drain()):
            times.append(now - T0)
    eager = [sum(EAGER_GAPS_S[: n + 1]) for n in range(len(EAGER_GAPS_S))]
    assert times[: len(eager)] == pytest.approx(eager)
    gaps = [b - a for a, b in pairwise(times[len(eager) - 1 :])]
    assert gaps == pytest.approx([DISCOVERY_INTERVAL_S] * 5)


def test_path_calls_are_5_s_apart_after_the_eager_ones():
    path = make(A)
    path.traffic_sent(T0)
    path.note_send(T0 + 30)
    calls = [t for t, e in run_until(path, T0, T0 + 30) if isinstance(e, NeedCallMeMaybe)]
    late = [t for t in calls if t > T0 + 4]
    assert late
    assert all(b - a >= 5 for a, b in pairwise(late))


def test_path_good_enough_latency_is_not_upgraded():
    path = make(A, B)
    now = direct(path, latency=0.004)
    sent = []
    for _ in range(25):
        now = path.next_timer()
        path.note_send(now)
        path.handle_timer(now)
        effects = path.drain()
        sent += [p.address for p in pings(effects)]
        answer_all(path, now + 0.004, effects=effects)
        path.drain()
    assert set(sent) == {A}


def test_path_slow_path_looks_for_better_every_60_s():
    path = make(A, B)
    now = direct(path, latency=0.030)
    times = []
    while now < T0 + 125:
        now = path.next_timer()
        path.note_send(now)
        path.handle_timer(now)
        effects = path.drain()
        if any(p.address == B for p in pings(effects)):
            times.append(now)
        for ping in pings(effects):
            if ping.address == A:
                path.pong_received(ping.txid, A, B, now + 0.030)
        path.drain()
    assert len(times) == 2
    assert times[1] - times[0] == pytest.approx(UPGRADE_INTERVAL_S, abs=HEARTBEAT_INTERVAL_S)


def test_path_better_candidate_takes_over():
    path = make(A, B)
    path.traffic_sent(T0)
    ping_a, ping_b = pings(path.drain())
    path.pong_received(ping_a.txid, A, B, T0 + 0.050)
    path.pong_received(ping_b.txid, B, B, T0 + 0.060)
    assert path.best.address == A
    path.traffic_sent(T0 + 1)
    path.reset(T0 + 1)
    ping_a, ping_b = pings(path.drain())
    path.pong_received(ping_b.txid, B, B, T0 + 1.010)
    path.pong_received(ping_a.txid, A, B, T0 + 1.050)
    assert path.best.address == B


def test_path_untrusted_best_yields_to_any_answer():
    path = make(A, B)
    now = direct(path, latency=0.001)
    later = now + TRUST_S + 0.1
    path.note_send(later)
    path.handle_timer(later)
    ping_b = next(p for p in pings(path.drain()) if p.address == B)
    path.pong_received(ping_b.txid, B, B, later + 0.2)
    assert path.best.address == B


def test_path_received_ping_adds_candidate_and_pings_back_when_waiting():
    path = make()
    path.traffic_sent(T0)
    path.drain()
    assert path.ping_received(C, b"t" * 12, T0 + 0.1)
    assert [p.address for p in pings(path.drain())] == [C]


def test_path_received_ping_of_idle_peer_sends_nothing():
    path = make(A)
    assert path.ping_received(C, b"t" * 12, T0)
    assert path.drain() == []
    assert C in path.candidates


def test_path_repeated_ping_is_not_answered_twice():
    path = make(A)
    assert path.ping_received(C, b"t" * 12, T0)
    assert not path.ping_received(C, b"t" * 12, T0 + 0.001)
    assert path.ping_received(C, b"u" * 12, T0 + 0.002)


def test_path_candidate_from_ping_forgotten_after_45_s():
    path = make(A)
    path.ping_received(C, b"t" * 12, T0)
    path.traffic_sent(T0 + 44)
    assert C in path.candidates
    path.reset(T0 + 46)
    path.traffic_sent(T0 + 46)
    path.handle_timer(T0 + 47)
    assert C not in path.candidates
    assert A in path.candidates


def test_path_candidates_are_bounded():
    path = make(A)
    for n in range(1, 300):
        path.ping_received(AddrPort.parse(f"203.0.113.{n % 200 + 1}:{n + 1000}"), n.to_bytes(12, "big"), T0)
    assert len(path.candidates) <= MAX_CANDIDATES


def test_path_replayed_ping_keeps_no_address_of_the_peer_out():
    """Anybody can send one captured ping again from as many addresses as he likes."""
    path = make(A)
    for port in range(1, MAX_CANDIDATES + 50):
        path.ping_received(AddrPort.parse(f"203.0.113.1:{port}"), b"t" * 12, T0)
    path.ping_received(C, b"u" * 12, T0 + 1)
    path.call_me_maybe_received([B], T0 + 1)
    assert {A, B, C} <= path.candidates.keys()
    assert len(path.candidates) == MAX_CANDIDATES


def test_path_call_pings_everything_at_once_without_calling_back():
    path = make(A)
    path.traffic_sent(T0)
    path.drain()
    path.call_me_maybe_received([B, C], T0 + 0.1)
    effects = path.drain()
    assert [p.address for p in pings(effects)] == [A, B, C]
    assert not of(NeedCallMeMaybe, effects)


def test_path_silent_best_address_is_trusted_a_moment_only_when_another_answers():
    """The peer moved: it calls, and its new address answers while the proven one does not."""
    path = make(A)
    now = direct(path)
    path.call_me_maybe_received([A, B], now + 1)
    sent = {p.address: p for p in pings(path.drain())}
    path.pong_received(sent[B].txid, B, C, now + 1.020)
    assert path.best.address == A
    until = now + 1.020 + 2 * path.best.latency_s + DOUBT_S
    assert of(SetPath, path.drain()) == [SetPath(A, until, 900)]
    path.handle_timer(until)
    answered = next(p for p in pings(path.drain()) if p.address == B)
    path.pong_received(answered.txid, B, C, until + 0.020)
    assert path.best.address == B
    assert path.trusted(until + TRUST_S)


def test_path_late_answer_of_the_best_address_restores_trust():
    path = make(A)
    now = direct(path)
    path.call_me_maybe_received([A, B], now + 1)
    sent = {p.address: p for p in pings(path.drain())}
    path.pong_received(sent[B].txid, B, C, now + 1.020)
    path.pong_received(sent[A].txid, A, C, now + 1.022)
    assert path.best.address == A
    assert path.trusted_until == now + 1.022 + TRUST_S


def test_path_ping_from_another_address_compares_it_with_the_proven_one():
    """The peer's route or router is another one, which the peer cannot know."""
    path = make(A)
    now = direct(path)
    path.ping_received(B, b"1" * 12, now + 1)
    assert [p.address for p in pings(path.drain())] == [A, B]
    path.ping_received(B, b"2" * 12, now + 4)
    assert pings(path.drain()) == [], "compared already"


def test_path_verified_address_has_a_moment_to_answer():
    path = make(A)
    now = direct(path) + 1
    path.verify(now)
    (ping,) = pings(path.drain())
    assert ping.address == A
    assert not path.trusted(now + 1)
    path.pong_received(ping.txid, A, B, now + 0.020)
    assert path.trusted(now + TRUST_S)


def test_path_call_replaces_earlier_call():
    path = make(A)
    path.call_me_maybe_received([B], T0)
    path.call_me_maybe_received([C], T0 + 1)
    assert list(path.candidates) == [A, C]


def test_path_call_skips_link_local_v6_and_mesh_addresses():
    path = make()
    unusable = ["[fe80::1]:1", "100.64.0.5:1", "[fd7a:115c:a1e0::5]:1", "224.0.0.1:9", "192.0.2.1:0"]
    path.call_me_maybe_received([AddrPort.parse(text) for text in unusable], T0)
    assert path.candidates == {}
    assert path.drain() == []


def test_path_call_with_thousands_of_addresses_is_bounded():
    path = make()
    flood = [AddrPort.parse(f"203.0.113.1:{port}") for port in range(1, 4000)]
    path.call_me_maybe_received(flood, T0)
    assert len(pings(path.drain())) == MAX_CANDIDATES


def test_path_command_ping_tries_relay_and_candidates():
    path = make(A, B)
    path.command_ping(1, 0, T0)
    effects = path.drain()
    assert [p.address for p in pings(effects)] == [None, A, B]
    assert of(NeedCallMeMaybe, effects)
    relay, a, _ = pings(effects)
    path.pong_received(relay.txid, None, B, T0 + 0.04)
    path.pong_received(a.txid, A, B, T0 + 0.05)
    answers = of(PingAnswered, path.drain())
    assert [(x.token, x.address, x.relay) for x in answers] == [(1, None, 900), (1, A, 0)]


def test_path_command_ping_on_trusted_path_uses_it_alone():
    path = make(A, B)
    now = direct(path)
    path.command_ping(2, 0, now)
    assert [p.address for p in pings(path.drain())] == [A]


@pytest.mark.parametrize(("size", "padding"), [(0, 0), (124, 0), (125, 1), (1280, 1156), (10**6, MAX_PING_BYTES - 124)])
def test_path_command_ping_size_becomes_padding(size, padding):
    path = make(A)
    path.command_ping(1, size, T0)
    assert PING_PACKET_BYTES == 124
    assert all(p.padding == padding for p in pings(path.drain()))


def test_path_new_disco_key_forgets_the_path():
    """A restarted peer (13.1)."""
    path = make(A)
    now = direct(path)
    path.node_updated(DiscoPublic(b"\x09" * 32), (A,), now + 1)
    effects = path.drain()
    assert of(SetPath, effects)[0].address is None
    assert [p.address for p in pings(effects)] == [A]


def test_path_no_route_clears_best_and_searches():
    path = make(A, B)
    now = direct(path)
    path.send_failed(A, now + 1)
    effects = path.drain()
    assert of(SetPath, effects)[0] == SetPath(None, 0.0, 900)
    assert {p.address for p in pings(effects)} >= {A}


def test_path_no_route_to_another_candidate_keeps_best():
    path = make(A, B)
    now = direct(path)
    path.send_failed(B, now + 1)
    assert path.best.address == A
    assert not of(SetPath, path.drain())


def test_path_candidate_removed_from_netmap_takes_best_with_it():
    path = make(A, B)
    now = direct(path)
    path.node_updated(path.disco_key, (B,), now)
    assert path.best is None
    assert A not in path.candidates
    assert any(change.what.startswith("deleteEndpointLocked-bestAddr") for change in path.changes)


def test_path_new_endpoint_while_waiting_is_pinged_at_once():
    path = make()
    path.traffic_sent(T0)
    path.drain()
    path.node_updated(path.disco_key, (A,), T0 + 0.3)
    assert [p.address for p in pings(path.drain())] == [A]


def test_path_relay_change_is_published():
    path = make(A)
    path.set_relay(5, T0)
    assert path.drain() == [SetPath(None, 0.0, 5)]


def test_path_early_timer_does_nothing():
    path = make(A)
    direct(path)
    path.handle_timer(T0 + 0.1)
    assert path.drain() == []


def test_path_change_log_is_a_ring():
    path = PathSet(NodePublic(b"\x01" * 32), DiscoPublic(b"\x02" * 32), (A,), 1, counting(), change_limit=2)
    for n in range(10):
        path.set_relay(n + 2, T0 + n)
    assert [change.after for change in path.changes] == [10, 11]


def test_path_private_address_preferred_at_equal_latency():
    path = make(A, PRIVATE)
    path.traffic_sent(T0)
    a, private = pings(path.drain())
    path.pong_received(a.txid, A, B, T0 + 0.010)
    path.pong_received(private.txid, PRIVATE, B, T0 + 0.010)
    assert path.best.address == PRIVATE
