"""The path to a peer that speaks WireGuard and nothing else."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.base.addr import AddrPort
from meshd.base.keys import DiscoPublic, NodePublic
from meshd.core.candidate import MAX_CANDIDATES
from meshd.core.path import SESSION_ACTIVE_S, TRUST_S, SendPing, SetPath, TrustLapsed, WentIdle
from meshd.core.wireguardpath import PATIENCE_S, WireGuardOnlyPath

A = AddrPort.parse("192.0.2.1:51820")
B = AddrPort.parse("[2001:db8::1]:51820")
ELSEWHERE = AddrPort.parse("203.0.113.9:5")
T0 = 1000.0


def make(*endpoints):
    path = WireGuardOnlyPath(NodePublic(b"\x01" * 32), endpoints, bytes)
    assert path.drain() == [SetPath(None, 0.0, 0)]
    return path


def initiation(path, now):
    path.traffic_sent(now)
    return path.handshake_addresses(now, initiation=True)


def proven(*endpoints, address=A):
    path = make(*endpoints)
    initiation(path, T0)
    path.authenticated(address, T0)
    path.drain()
    return path


def test_wireguard_path_first_traffic_takes_an_address_and_asks_all():
    path = make(A, B)
    assert initiation(path, T0) == (A, B)
    assert path.drain() == [SetPath(A, T0 + TRUST_S, 0)]
    assert path.trusted(T0 + 3600), "there is nothing else to use"


def test_wireguard_path_the_address_that_answers_is_used():
    path = make(A, B)
    assert initiation(path, T0) == (A, B)
    path.authenticated(B, T0 + 0.1)
    assert path.drain()[-1] == SetPath(B, T0 + 0.1 + TRUST_S, 0)
    assert initiation(path, T0 + 120) == (B,)
    assert path.handshake_addresses(T0 + 120, initiation=False) == (B,)


def test_wireguard_path_that_is_used_never_says_that_it_fell_silent():
    path = proven(A)
    for second in (*range(1, 60), 180, *range(300, 320)):  # with a pause
        if second != 180:
            path.traffic_sent(T0 + second)
        path.handle_timer(T0 + second)
    assert not any(isinstance(effect, TrustLapsed) for effect in path.drain())
    assert path.published.address == A


def test_wireguard_path_peer_that_moved_is_answered_there():
    path = proven(A)
    path.authenticated(ELSEWHERE, T0 + 50)
    assert path.published.address == ELSEWHERE
    assert path.handshake_addresses(T0 + 50, initiation=False) == (ELSEWHERE,)


def test_wireguard_path_all_addresses_are_asked_when_the_proven_one_is_silent():
    path = proven(A, B)
    assert initiation(path, T0 + 120) == (A,)
    assert initiation(path, T0 + 125) == (A,)
    assert initiation(path, T0 + 120 + PATIENCE_S) == (A, B)
    assert path.published.address == A, "a session may still work there"
    path.authenticated(B, T0 + 136)
    assert path.published.address == B
    assert initiation(path, T0 + 256) == (B,)


def test_wireguard_path_answers_do_not_count_as_questions():
    path = proven(A, B)
    assert path.handshake_addresses(T0, initiation=False) == (A,)
    assert initiation(path, T0 + 120) == (A,)


def test_wireguard_path_all_addresses_are_asked_after_a_send_error_or_a_rebind():
    path = proven(A, B)
    path.send_failed(B, T0 + 1)
    assert initiation(path, T0 + 120) == (A,)
    path.authenticated(A, T0 + 120)
    path.send_failed(A, T0 + 121)
    assert path.published.address == A
    assert initiation(path, T0 + 122) == (A, B)
    path.authenticated(A, T0 + 122)
    path.reset(T0 + 130)
    assert path.published.address == A
    assert initiation(path, T0 + 131) == (A, B)


def test_wireguard_path_address_that_the_netmap_drops_is_replaced_at_once():
    path = proven(A)
    path.node_updated(DiscoPublic.zero(), (B,), T0 + 60)
    assert path.published.address == B
    assert initiation(path, T0 + 61) == (B,)


def test_wireguard_path_without_endpoints_nothing_is_sent():
    path = proven(A, address=ELSEWHERE)
    path.node_updated(DiscoPublic.zero(), (), T0 + 1)
    assert path.published.address is None
    assert initiation(path, T0 + 2) == ()
    path.node_updated(DiscoPublic.zero(), (A,), T0 + 3)
    assert initiation(path, T0 + 4)[0] == A


def test_wireguard_path_goes_idle_and_keeps_its_address():
    path = proven(A)
    seen = []
    while (due := path.next_timer()) is not None:
        assert due <= T0 + SESSION_ACTIVE_S + 10
        path.handle_timer(due)
        seen += path.drain()
    assert seen == [WentIdle()]
    assert path.published.address == A


STEPS = st.tuples(
    st.sampled_from(["traffic", "timer", "heard", "netmap", "error", "reset", "command", "initiation"]),
    st.integers(0, 8),
    st.floats(0, 30),
)


@settings(max_examples=200)
@given(st.lists(STEPS, max_size=60))
def test_wireguard_path_keeps_its_promises(steps):
    addresses = [A, B, ELSEWHERE] + [AddrPort.parse(f"198.51.100.{n}:{n}") for n in range(1, 7)]
    path, now = WireGuardOnlyPath(NodePublic(b"\x01" * 32), (A,), bytes), T0
    for what, number, wait in steps:
        now += wait
        match what:
            case "traffic":
                path.traffic_sent(now)
                assert path.best is not None or not path.endpoints
            case "timer":
                path.handle_timer(now)
            case "heard":
                path.authenticated(addresses[number], now)
                assert path.published.address == addresses[number]
            case "netmap":
                path.node_updated(DiscoPublic.zero(), tuple(addresses[number:]), now)
            case "error":
                path.send_failed(addresses[number], now)
            case "reset":
                path.reset(now)
            case "command":
                path.command_ping(number, 0, now)
            case "initiation":
                assert set(path.handshake_addresses(now, initiation=True)) <= set(path.candidates)
        assert not [effect for effect in path.drain() if isinstance(effect, SendPing)]
        assert path.best is None or path.best.address in path.candidates
        assert path.published.address == (path.best.address if path.best else None)
        assert len(path.candidates) <= MAX_CANDIDATES
    for _ in range(20):
        now += 60
        path.handle_timer(now)
        path.drain()
    assert path.next_timer() is None, "an idle peer costs nothing"
