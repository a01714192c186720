"""Mistakes that other WireGuard implementations shipped, and input that nobody honest sends."""

from __future__ import annotations

import struct
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd._fast.plane import EV_STAGED, EV_TSMP
from tests.unit.fast import offload
from tests.unit.fast.packets import A4, B4, B6, icmp, ipv4, ipv6, packets, udp
from tests.unit.fast.planepair import KEY_AB, KEY_BA, Node, allow_all, pair, sealed, send_raw

REJECT_AFTER = 2**64 - 2**13 - 1


def test_counter_limit_on_sending_stages_instead() -> None:
    """REJECT-AFTER-MESSAGES not enforced, nonce could wrap."""
    with pair(session=False) as nodes:
        nodes.session(send_counter=REJECT_AFTER - 1)
        nodes.a.write(offload.udp(b"last"))
        nodes.b.read()
        nodes.a.write(offload.udp(b"one too many"))
        assert nodes.a.event(EV_STAGED)[2][10:] == offload.udp(b"one too many")


def test_counter_limit_a_super_packet_does_not_fit_before_it() -> None:
    with pair(session=False) as nodes:
        nodes.session(send_counter=REJECT_AFTER - 3)
        header, packet = offload.super_tcp(b"x" * 5000, 1240)
        nodes.a.write(packet, header)
        assert nodes.a.event(EV_STAGED)[2] == header + packet


def test_counter_limit_on_receiving_refused() -> None:
    with pair() as nodes:
        send_raw(nodes, sealed(offload.udp(b"x"), REJECT_AFTER))
        assert nodes.b.counted("in_replayed") == 1
        send_raw(nodes, sealed(offload.udp(b"x"), 2**64 - 1))
        assert nodes.b.counted("in_replayed", 2) == 2
        send_raw(nodes, sealed(offload.udp(b"good"), REJECT_AFTER - 1))
        assert nodes.b.read()[10:] == offload.udp(b"good")


def test_counter_is_64_bits_wide() -> None:
    """32-bit counter reuse."""
    with pair(session=False) as nodes:
        nodes.session(send_counter=2**32 - 1)
        for payload in (b"before", b"after"):
            nodes.a.write(offload.udp(payload))
            assert nodes.b.read()[10:] == offload.udp(payload)
        assert nodes.b.plane.counters()["in_replayed"] == 0


def test_session_older_than_180_seconds_refused_both_ways() -> None:
    """Session lifetime longer than the specification's."""
    with pair(session=False) as nodes:
        nodes.session(created=time.monotonic() - 181)
        nodes.a.write(offload.udp(b"x"))
        assert nodes.a.event(EV_STAGED)[1] == 0
        assert not nodes.a.plane.send_keepalive(0)
        assert not nodes.a.plane.send_packet(0, offload.udp(b"x"))
        send_raw(nodes, sealed(offload.udp(b"x"), 0))
        assert nodes.b.counted("in_expired") == 1


def test_payload_is_padded_to_16_within_the_mtu() -> None:
    """Payload not padded to 16."""
    with pair(start=False) as nodes:
        for length, plaintext in ((41, 48), (48, 48), (1275, 1280), (1280, 1280)):
            before = nodes.a.plane.peer_state(0).tx_bytes
            nodes.a.plane.send_packet(0, ipv4(17, bytes(length - 20)))
            assert nodes.a.plane.peer_state(0).tx_bytes - before == plaintext + 32


def test_replayed_datagram_dropped() -> None:
    """Replay window missing."""
    with pair() as nodes:
        datagram = sealed(offload.udp(b"x"), 5)
        send_raw(nodes, datagram)
        nodes.b.read()
        send_raw(nodes, datagram)
        assert nodes.b.counted("in_replayed") == 1
        assert nodes.b.nothing()


def test_replay_window_shared_with_relayed_packets() -> None:
    """Replay window not advanced on relayed packets, or not locked."""
    with pair() as nodes:
        datagrams = [sealed(offload.udp(struct.pack(">I", i)), i) for i in range(64)]
        for datagram in datagrams:
            send_raw(nodes, datagram)
        assert nodes.b.plane.open_from(datagrams) == []
        nodes.b.counted("in_replayed", 64)
        state = nodes.b.plane.peer_state(0)
        assert state.rx_packets == 64


@pytest.mark.parametrize(("behind", "accepted"), [(8127, True), (8200, False)])
def test_replay_window_size(behind: int, accepted: bool) -> None:
    """Replay window too small: 1024 loses packets behind receive offload."""
    with pair() as nodes:
        send_raw(nodes, sealed(offload.udp(b"new"), 20000))
        nodes.b.read()
        send_raw(nodes, sealed(offload.udp(b"old"), 20000 - behind))
        if accepted:
            assert nodes.b.read()[10:] == offload.udp(b"old")
        else:
            assert nodes.b.counted("in_replayed") == 1


def test_forged_packet_changes_nothing() -> None:
    """Replay before authentication would let anybody burn counters."""
    with pair() as nodes:
        datagram = bytearray(sealed(offload.udp(b"x"), 9))
        datagram[-1] ^= 1
        send_raw(nodes, bytes(datagram))
        assert nodes.b.counted("in_forged") == 1
        assert nodes.b.plane.peer_state(0).rx_packets == 0
        send_raw(nodes, sealed(offload.udp(b"x"), 9))
        nodes.b.read()


def test_source_of_another_peer_refused() -> None:
    """Source-address check let one peer use another's more specific prefix."""
    with pair() as nodes:
        nodes.b.plane.add_route(0, bytes([10, 0, 0, 0]), 8)
        other = nodes.b.plane.add_peer(b"C" * 32)
        nodes.b.plane.add_route(other, bytes([10, 1, 0, 0]), 16)
        send_raw(nodes, sealed(ipv4(17, bytes(8), bytes([10, 1, 0, 5])), 0))
        assert nodes.b.counted("in_source") == 1
        send_raw(nodes, sealed(ipv4(17, bytes(8), bytes([10, 2, 0, 5])), 1))
        nodes.b.read()
        send_raw(nodes, sealed(ipv4(17, bytes(8), bytes([8, 8, 8, 8])), 2))
        assert nodes.b.counted("in_source", 2) == 2


def test_source_of_our_own_or_mapped_refused_from_a_peer_with_a_default_route() -> None:
    """A route to everywhere let an exit node write to us in our own name, which rules often let in: the host drops such
    a packet over IPv4 only. An IPv4-mapped source reaches programs as that IPv4 address, 127.0.0.1 for one.
    """
    mapped = bytes(10) + b"\xff\xff" + bytes([127, 0, 0, 1])
    service = bytes([100, 100, 100, 100])
    with pair() as nodes:
        for address in (bytes(4), bytes(16)):
            nodes.b.plane.add_route(0, address, 0)
        nodes.b.plane.set_own_addresses([B4, B6, service])
        for counter, source in enumerate((B4, B6, mapped, service)):
            packet = ipv4(17, udp(1, 2), source) if len(source) == 4 else ipv6(17, udp(1, 2), source)
            send_raw(nodes, sealed(packet, counter))
            assert nodes.b.counted("in_source", counter + 1) == counter + 1
        packet = ipv6(17, udp(1, 2), bytes.fromhex("20010db8") + bytes(11) + b"\1")
        send_raw(nodes, sealed(packet, 9))
        assert nodes.b.read()[10:] == packet


def test_source_checked_before_the_trim_and_the_filter() -> None:
    """Order of checks: authentication, replay, source, length, filter."""
    with pair() as nodes:
        packet = ipv4(17, bytes(8), bytes([9, 9, 9, 9]))
        datagram = sealed(packet, 4)
        send_raw(nodes, datagram)
        send_raw(nodes, datagram)
        assert nodes.b.counted("in_replayed") == 1
        assert nodes.b.counted("in_source") == 1


def test_padding_is_cut_by_the_ip_length() -> None:
    with pair() as nodes:
        packet = offload.tcp(b"x")
        send_raw(nodes, sealed(packet + bytes(300), 0))
        assert nodes.b.read()[10:] == packet


@pytest.mark.parametrize(
    "packet",
    [
        b"\x45",
        bytes(16),
        b"\x45" + bytes(31),
        struct.pack(">BBH", 0x45, 0, 2000) + bytes(60),
        struct.pack(">BBH", 0x4F, 0, 40) + bytes(36),
        b"\x60\0\0\0\xff\xff" + bytes(58),
        b"\x75" + bytes(63),
    ],
)
def test_malformed_inner_packet_dropped_and_counted(packet: bytes) -> None:
    with pair() as nodes:
        send_raw(nodes, sealed(packet, 0))
        assert nodes.b.counted("in_malformed") == 1
        assert nodes.b.plane.peer_state(0).rx_packets == 1


def test_keepalive_is_not_delivered_and_owes_nothing() -> None:
    """Two idle peers keep each other alive; keepalives answered with keepalives."""
    with pair() as nodes:
        assert nodes.a.plane.send_keepalive(0)
        while not nodes.b.plane.peer_state(0).rx_packets:
            time.sleep(0.001)
        state = nodes.b.plane.peer_state(0)
        assert state.owed_since == 0
        assert state.tx_packets == 0
        assert nodes.b.nothing()


def test_oversized_datagram_in_a_burst_survived() -> None:
    """Oversized datagram panics the receive path, also inside a coalesced burst."""
    with pair() as nodes:
        send_raw(nodes, bytes(65507))
        send_raw(nodes, b"\4\0\0\0" + bytes(65503))
        nodes.b.counted("in_no_session")
        nodes.a.udp.setsockopt(17, 103, 9000)
        send_raw(nodes, b"\4\0\0\0" + bytes(60000))
        nodes.a.udp.setsockopt(17, 103, 0)
        send_raw(nodes, sealed(offload.udp(b"still here"), 0))
        assert nodes.b.read()[10:] == offload.udp(b"still here")


def test_largest_inner_packet_crosses() -> None:
    with pair(mtu=65535) as nodes:
        packet = offload.udp(b"j" * 60000)
        nodes.a.write(packet)
        assert nodes.b.read()[10:] == packet
        nodes.a.write(offload.udp(bytes(65480)))
        assert nodes.a.counted("out_too_big") == 1


@pytest.mark.parametrize("datagram", [b"", b"\7", b"\4\0\0\0", b"\4" + bytes(30)])
def test_runts_ignored(datagram: bytes) -> None:
    with pair() as nodes:
        send_raw(nodes, datagram)
        send_raw(nodes, sealed(offload.udp(b"x"), 0))
        nodes.b.read()
        assert [event for event in nodes.b.plane.drain() if event[0] == 1] == []


def test_oversized_offload_header_dropped() -> None:
    """Hostile virtio-net headers, as a confused kernel would write them."""
    with pair() as nodes:
        packet = offload.tcp(b"x" * 100)
        for header in (
            offload.vnet(1, 0, 0, 0, 65535, 65535),
            offload.vnet(1, 1, 0, 0, 20, 16),
            offload.vnet(1, 1, 0, 1, 65535, 16),
            offload.vnet(1, 3, 0, 10, 20, 16),
            offload.vnet(1, 5, 0, 65535, 20, 6),
        ):
            nodes.a.write(packet, header)
        assert nodes.a.counted("out_malformed", 5) == 5
        nodes.a.write(b"")
        nodes.a.host.send(b"short")
        assert nodes.a.counted("out_malformed", 7) == 7
        nodes.a.write(packet)
        assert nodes.b.read()[10:] == packet


def test_extension_header_does_not_pose_as_tcp() -> None:
    """IPv6 extension-header parsing lets a packet pose as TCP or UDP."""
    with pair() as nodes:
        source = bytes.fromhex("fd7a115ca1e0") + bytes(9) + b"\1"
        nodes.b.plane.add_route(0, source, 128)
        packet = ipv6(0, b"\6\0\0\0\0\0\0\0" + offload.tcp(b"x")[20:])
        send_raw(nodes, sealed(packet, 0))
        assert nodes.b.counted("in_filtered") == 1


def test_keys_are_never_in_the_repr() -> None:
    """Private keys in debug output."""
    with pair(start=False) as nodes:
        text = repr(nodes.a.plane) + repr(nodes.a.plane.peer_state(0)) + repr(nodes.a.plane.counters())
        assert KEY_AB.hex() not in text
        assert repr(KEY_AB) not in text


DATAGRAMS = st.one_of(
    st.binary(max_size=200),
    st.binary(max_size=200).map(lambda tail: b"\4\0\0\0" + tail),
    st.builds(sealed, packets(), st.integers(0, 2**64 - 1)),
)


@given(st.lists(DATAGRAMS, max_size=40))
@settings(max_examples=60)
def test_relayed_garbage_never_crashes(datagrams: list[bytes]) -> None:
    node = Node(userspace=True)
    try:
        peer = node.plane.add_peer(b"A" * 32)
        node.plane.add_route(peer, A4, 32)
        node.plane.set_filter(allow_all())
        node.plane.install_session(
            peer,
            slot="next",
            local_index=0xB0,
            remote_index=1,
            send_key=KEY_BA,
            receive_key=KEY_AB,
            created=time.monotonic(),
            initiator=False,
        )
        rest = node.plane.open_from(datagrams)
        assert rest == [d for d in datagrams if len(d) < 32 or d[:4] != b"\4\0\0\0"]
        node.plane.drain(1000)
    finally:
        node.close()


@given(st.lists(st.tuples(st.binary(min_size=10, max_size=10) | st.just(bytes(10)), packets()), max_size=20))
@settings(max_examples=60)
def test_outbound_garbage_never_crashes(items: list[tuple[bytes, bytes]]) -> None:
    node = Node(userspace=True)
    try:
        peer = node.plane.add_peer(b"A" * 32)
        node.plane.set_path(peer, None, 0, 0.0, 1)
        node.plane.install_session(
            peer,
            slot="current",
            local_index=0xB0,
            remote_index=1,
            send_key=KEY_BA,
            receive_key=KEY_AB,
            created=time.monotonic(),
            initiator=True,
        )
        staged = [header + packet for header, packet in items if packet]
        assert 0 <= node.plane.send_staged(peer, staged) <= len(staged)
    finally:
        node.close()


def test_icmp_of_both_families_is_told_apart() -> None:
    """ICMPv6 type read from the wrong byte; inbound and outbound swapped."""
    with pair() as nodes:
        nodes.a.write(ipv4(1, icmp(8), A4, B4))
        assert nodes.b.read()[10:] == ipv4(1, icmp(8), A4, B4)
        nodes.b.write(ipv4(1, icmp(0), B4, A4))
        assert nodes.a.read()[10:] == ipv4(1, icmp(0), B4, A4)


def test_flood_of_questions_of_one_peer_does_not_keep_the_loop_busy() -> None:
    """TSMP passes every filter and is answered by the event loop, which serves all peers."""
    with pair(start=False) as nodes:
        packets = [sealed(ipv4(99, b"p" + bytes(8)), counter) for counter in range(1000)]
        assert nodes.b.plane.open_from(packets) == []
        told = sum(event[0] == EV_TSMP for event in nodes.b.plane.drain(2000))
        assert told == 256
        assert nodes.b.plane.counters()["in_event_limit"] == 1000 - 256


def test_sealing_failures_have_a_counter() -> None:
    """Plaintext that could not be sealed is wiped instead of sent."""
    with pair(start=False) as nodes:
        assert nodes.a.plane.counters()["out_seal_error"] == 0
