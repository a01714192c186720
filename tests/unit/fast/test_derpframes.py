from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd._fast.derpframes import BUNDLE_TYPE, MAX_FRAME, MAX_PACKET, Frames, RelayedPackets, split_frames
from meshd._fast.plane import EV_RELAY
from tests.reference import derpframes as twin
from tests.unit.fast import offload
from tests.unit.fast.packets import A4, B4, ipv4
from tests.unit.fast.planepair import Pair, pair

KEYS = [bytes([n]) * 32 for n in range(3)]
DATA = b"\x04\0\0\0" + bytes(28)
RELAY = 3


def frame(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + len(body).to_bytes(4, "big") + body


def received(packet: bytes, source: bytes = KEYS[1]) -> bytes:
    return frame(5, source + packet)


def bundle(*messages: bytes) -> bytes:
    return bytes([BUNDLE_TYPE, 0]) + len(messages[0]).to_bytes(2, "big") + b"".join(messages)


def as_twin(found: Frames) -> twin.Frames:
    assert len(found.transport) == len(list(found.transport))
    return twin.Frames(
        found.whole, found.needed, list(found.transport), found.others, found.sources, found.control
    )  # fmt: skip


packets = st.one_of(
    st.binary(max_size=80),
    st.binary(max_size=40).map(lambda rest: b"\x04\0\0\0" + rest),
    st.tuples(st.integers(0, 70), st.binary(max_size=200)).map(
        lambda made: bytes([BUNDLE_TYPE, 0]) + made[0].to_bytes(2, "big") + made[1]
    ),
)
frames = st.one_of(
    st.tuples(packets, st.sampled_from(KEYS)).map(lambda made: received(*made)),
    st.tuples(st.integers(0, 255), st.binary(max_size=50)).map(lambda made: frame(*made)),
    st.tuples(st.integers(0, 255), st.integers(0, 2**32 - 1)).map(
        lambda made: bytes([made[0]]) + made[1].to_bytes(4, "big")
    ),
)


@given(st.lists(frames, max_size=12).map(b"".join), st.integers(0, 40))
def test_split_frames_as_its_twin(data: bytes, cut: int) -> None:
    data = data[: len(data) - cut]
    assert as_twin(split_frames(data)) == twin.split_frames(data)


@given(st.binary(max_size=300))
def test_split_frames_of_noise_as_its_twin(data: bytes) -> None:
    assert as_twin(split_frames(data)) == twin.split_frames(data)


def test_split_frames_sorts_what_came() -> None:
    data = received(DATA) + received(b"TS-disco", KEYS[2]) + frame(6, b"") + received(bundle(DATA, DATA, b"end"))
    found = split_frames(data + frame(5, DATA)[:7])
    assert (found.whole, found.needed) == (len(data), 5 + len(DATA))
    assert list(found.transport) == [DATA, DATA, DATA, b"end"]
    assert (found.others, found.control) == ([(KEYS[2], b"TS-disco")], [(6, b"")])
    assert found.sources == {KEYS[1], KEYS[2]}


@pytest.mark.parametrize("length", [MAX_FRAME + 1, 2**32 - 1])
def test_split_frames_too_long_tells_so_although_it_is_there(length: int) -> None:
    head = bytes([6]) + length.to_bytes(4, "big")
    found = split_frames(received(DATA) + head + bytes(min(length, MAX_FRAME + 1)))
    assert (found.whole, found.needed) == (len(received(DATA)), length + 5)
    assert len(found.transport) == 1


def test_split_frames_packets_of_the_largest_size_and_beyond() -> None:
    for extra, count in ((0, 1), (1, 0)):
        body = DATA + bytes(MAX_PACKET - len(DATA) + extra)
        found = split_frames(received(body))
        assert (len(found.transport), len(found.control)) == (count, 1 - count)


def test_split_frames_bundle_without_size_or_contents_is_no_bundle() -> None:
    for packet in (bytes([BUNDLE_TYPE, 0, 0, 0]) + DATA, bytes([BUNDLE_TYPE, 0, 0, 32]), bytes([BUNDLE_TYPE])):
        found = split_frames(received(packet))
        assert (len(found.transport), found.others) == (0, [(KEYS[1], packet)])


def test_relayed_packets_made_by_hand_are_empty() -> None:
    assert len(RelayedPackets()) == 0
    assert list(RelayedPackets()) == []


# -- in the data plane


def relay_frames(nodes: Pair) -> list[bytes]:
    """The packets that a has for b by relay."""
    nodes.a.event(EV_RELAY)
    data, out = nodes.a.plane.take_relayed(RELAY), list[bytes]()
    while data:
        size = 5 + int.from_bytes(data[1:5], "big")
        assert (data[0], data[5:37]) == (4, b"B" * 32)
        out.append(data[37:size])
        data = data[size:]
    return out


def delivered(nodes: Pair, relayed: list[bytes]) -> None:
    nodes.b.plane.open_relayed(split_frames(b"".join(map(received, relayed))).transport)


@pytest.mark.parametrize("size", [100, 1240, 2000, 2481, 20000, 60000])
def test_plane_bundles_are_as_the_twin_makes_them_and_open(size: int) -> None:
    with pair() as nodes:
        nodes.a.plane.set_path(0, None, 0, 0, RELAY)
        nodes.a.plane.set_bundles(0, True)
        header, packet = offload.super_tcp(b"r" * size, 1240) if size > 1240 else (bytes(10), offload.tcp(b"r" * size))
        nodes.a.write(packet, header)
        relayed = relay_frames(nodes)
        messages = [message for one in relayed for message in twin.unbundle(one) or [one]]
        assert len(messages) == -(-size // 1240)
        assert twin.bundle(b"".join(messages), len(messages[0])) == relayed
        delivered(nodes, relayed)
        assert nodes.b.read()[10:][-size:] == b"r" * size
        assert nodes.b.nothing()


def test_plane_bundles_end_with_the_session() -> None:
    with pair() as nodes:
        nodes.a.plane.set_path(0, None, 0, 0, RELAY)
        nodes.a.plane.set_bundles(0, True)
        assert nodes.a.plane.takes_bundles(0)
        nodes.a.plane.clear_sessions(0)
        nodes.b.plane.clear_sessions(0)
        nodes.session()
        assert not nodes.a.plane.takes_bundles(0)
        header, packet = offload.super_tcp(b"r" * 5000, 1240)
        nodes.a.write(packet, header)
        assert all(one.startswith(b"\x04\0\0\0") for one in relay_frames(nodes))


def test_plane_bundle_of_anything_else_is_counted_and_harmless() -> None:
    with pair() as nodes:
        nodes.a.plane.set_path(0, None, 0, 0, RELAY)
        nodes.a.write(ipv4(17, bytes(20), A4, B4))
        (good,) = relay_frames(nodes)
        noise = [b"\x01\0\0\0" + bytes(len(good) - 4), b"\x04\0\0\0" + b"\xff" * (len(good) - 4)]
        delivered(nodes, [bundle(*noise, good, b"\x04"), bundle(*[b"\x04"] * 65500), bundle(good, good)])
        assert nodes.b.read()[10:] == ipv4(17, bytes(20), A4, B4)
        assert nodes.b.nothing()
        counts = nodes.b.plane.counters()
        assert (counts["in_unknown"], counts["in_no_session"], counts["in_replayed"]) == (2 + 65500, 1, 2)


def test_plane_bundles_beyond_the_queue_are_counted_one_by_one() -> None:
    with pair(start=False) as nodes:
        nodes.a.plane.set_path(0, None, 0, 0, RELAY)
        nodes.a.plane.set_bundles(0, True)
        header, packet = offload.super_tcp(b"r" * 62000, 1240)
        for _ in range(12):
            nodes.a.plane.send_staged(0, [header + packet])
        sent, lost = nodes.a.plane.peer_state(0).tx_packets, nodes.a.plane.counters()["out_relay_full"]
        messages = [message for one in relay_frames(nodes) for message in twin.unbundle(one) or [one]]
        assert (sent, lost) == (600, 600 - len(messages))
        assert lost > 0


def staged(nodes: Pair, number: int) -> None:
    nodes.a.plane.send_packet(0, ipv4(17, number.to_bytes(4, "big") + bytes(1200), A4, B4))


def numbers(nodes: Pair, frames: bytes) -> list[int]:
    """Of the messages in whole frames."""
    found = split_frames(frames)
    assert found.whole == len(frames)
    out = list[int]()
    for kind, body in found.control:
        assert (kind, body[:32]) == (4, b"B" * 32)
        nodes.b.plane.open_relayed(split_frames(received(body[32:])).transport)
        out.append(int.from_bytes(nodes.b.read()[30:34], "big"))
    return out


@given(st.lists(st.integers(0, 6000), min_size=1, max_size=12))
def test_plane_relay_frames_taken_bit_by_bit_are_whole_and_in_order(limits: list[int]) -> None:
    with pair(start=False) as nodes:
        plane, sent, taken = nodes.a.plane, 0, list[int]()
        plane.set_path(0, None, 0, 0, RELAY)
        for limit in limits:
            for _ in range(3):
                staged(nodes, sent)
                sent += 1
            frames = plane.take_relayed(RELAY, limit or 1)
            assert frames
            assert len(frames) <= max(limit, 1301)
            taken += numbers(nodes, frames)
        while frames := plane.take_relayed(RELAY, 4000):
            taken += numbers(nodes, frames)
        assert taken == list(range(sent))


def test_plane_relay_queue_has_room_again_for_what_was_taken() -> None:
    with pair(start=False) as nodes:
        plane = nodes.a.plane
        plane.set_path(0, None, 0, 0, RELAY)
        for number in range(2000):
            staged(nodes, number)
            if number >= 300:
                plane.take_relayed(RELAY, 1400)
        assert plane.counters()["out_relay_full"] == 0
        for number in range(500):
            staged(nodes, number)
        assert plane.counters()["out_relay_full"] > 0


def test_plane_relay_calls_once_until_everything_was_taken() -> None:
    with pair(start=False) as nodes:
        plane = nodes.a.plane
        plane.set_path(0, None, 0, 0, RELAY)
        staged(nodes, 1)
        staged(nodes, 2)
        assert nodes.a.event(EV_RELAY) == (EV_RELAY, RELAY)
        assert plane.take_relayed(RELAY, 1)
        staged(nodes, 3)
        assert not [event for event in plane.drain() if event[0] == EV_RELAY]
        while plane.take_relayed(RELAY, 1):
            pass
        staged(nodes, 4)
        assert nodes.a.event(EV_RELAY) == (EV_RELAY, RELAY)
