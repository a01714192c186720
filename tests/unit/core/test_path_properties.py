"""What must hold whatever happens to a path, a network check or a relay connection."""

from __future__ import annotations

from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.base.addr import AddrPort
from meshd.base.keys import DiscoPublic, NodePrivate, NodePublic
from meshd.core.candidate import MAX_CANDIDATES
from meshd.core.derpclient import DerpClient, Failed, State
from meshd.core.netcheck import OVERALL_S, Finished, MeasureHttps, NetworkCheck, SendStun
from meshd.core.path import MAX_SENT_PINGS, TRUST_S, PathSet, PingAnswered, SendPing, SetPath
from meshd.core.relaymap import RelayMap, RelayNode, RelayRegion
from meshd.wire import derp

ADDRESSES = [AddrPort.parse(f"192.0.2.{n}:{n}") for n in range(1, 9)] + [AddrPort.parse("[2001:db8::1]:7")]
address = st.sampled_from(ADDRESSES)
step = st.tuples(
    st.sampled_from(
        ["traffic", "timer", "ping", "pong", "call", "netmap", "relay", "error", "reset", "command", "disco"]
    ),
    address,
    st.floats(0, 8),
    st.integers(0, 5),
)


def counting():
    numbers = count(1)
    return lambda size: next(numbers).to_bytes(size, "big")


@settings(max_examples=200)
@given(st.lists(step, max_size=60))
def test_path_keeps_its_promises(steps):
    path = PathSet(NodePublic(b"\x01" * 32), DiscoPublic(b"\x02" * 32), (ADDRESSES[0],), 1, counting())
    now, pings, shown = 1000.0, [], None
    for what, where, wait, number in steps:
        now += wait
        match what:
            case "traffic":
                path.traffic_sent(now)
            case "timer":
                path.handle_timer(now)
                due = path.next_timer()
                assert due is None or due > now
            case "ping":
                path.ping_received(where if number else None, number.to_bytes(12, "big"), now)
            case "pong" if pings:
                path.pong_received(pings[number % len(pings)].txid, where if number else None, where, now)
            case "call":
                path.call_me_maybe_received(ADDRESSES[:number], now)
            case "netmap":
                path.node_updated(path.disco_key, tuple(ADDRESSES[number:]), now)
            case "relay":
                path.set_relay(number, now)
            case "error":
                path.send_failed(where, now)
            case "reset":
                path.reset(now)
            case "command":
                path.command_ping(number, 0, now)
            case "disco":
                path.node_updated(DiscoPublic(bytes([number + 3]) * 32), path.endpoints, now)
        for effect in path.drain():
            if isinstance(effect, SendPing):
                pings.append(effect)
            elif isinstance(effect, SetPath):
                shown = effect
                assert effect.trusted_until <= now + TRUST_S
                assert effect.address is not None or not effect.trusted_until
            elif isinstance(effect, PingAnswered):
                assert effect.latency_s >= 0
        if shown is not None:
            assert (shown.address, shown.relay) == (path.best.address if path.best else None, path.relay)
        assert path.best is None or path.best.address in path.candidates
        assert len(path.candidates) <= MAX_CANDIDATES
        assert len(path._sent or ()) <= MAX_SENT_PINGS
        assert path.next_timer() is None or path.heartbeating or path._sent or path._discover_at
    now += 200
    for _ in range(20):
        path.handle_timer(now)
        path.drain()
        now += 10
    assert path.next_timer() is None, "an idle peer costs nothing"


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 1.5), st.integers(0, 20)), max_size=40), st.booleans())
def test_check_ends_once_within_5_s(events, v6):
    relays = RelayMap(
        {n: RelayRegion(n, str(n), "", (RelayNode(str(n), n, f"r{n}", ipv4=f"192.0.2.{n}"),)) for n in range(1, 5)}
    )
    check = NetworkCheck(relays, counting(), v4=True, v6=v6)
    now, sent, asked, finished = 1000.0, [], [], []
    check.start(now)

    def collect():
        for effect in check.drain():
            if isinstance(effect, SendStun):
                sent.append(effect)
            elif isinstance(effect, MeasureHttps):
                asked.append(effect.region)
            elif isinstance(effect, Finished):
                finished.append(now)

    collect()
    for kind, wait, pick in events:
        target = now + wait
        while (due := check.next_timer()) is not None and due <= target:
            now = max(now, due)
            check.handle_timer(now)
            collect()
        now = target
        if kind == 0 and sent:
            check.stun_received(sent[pick % len(sent)].txid, ADDRESSES[pick % 3], now)
        elif kind == 1 and sent:
            check.stun_failed(sent[pick % len(sent)].txid, now)
        elif kind == 2 and asked:
            check.https_measured(asked[pick % len(asked)], 0.01 if pick % 2 else None, now)
        collect()
    while (due := check.next_timer()) is not None:
        now = max(now, due)
        check.handle_timer(now)
        collect()
    assert len(finished) == 1
    assert finished[0] <= 1000.0 + OVERALL_S + 1e-6


@settings(max_examples=200)
@given(
    st.lists(st.binary(max_size=200) | st.tuples(st.integers(0, 0x20), st.binary(max_size=80)), max_size=20),
    st.booleans(),
)
def test_derpclient_survives_any_bytes(pieces, fast):
    server = NodePrivate(bytes(range(32))).public().raw
    client = DerpClient(NodePrivate(bytes(range(1, 33))), host="x", random=bytes, server_key=server if fast else None)
    client.start(1000.0)
    for piece in pieces:
        client.receive_data(piece if isinstance(piece, bytes) else derp.encode_frame(*piece), 1001.0)
        failures = [e for e in client.drain() if isinstance(e, Failed)]
        assert len(failures) == (client.state is State.FAILED) or not failures
        client.data_to_send()
        assert sum(map(len, client._pieces)) <= derp.MAX_FRAME + 5
