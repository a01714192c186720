"""Via addresses through the whole data plane: a is the peer, b the router with an IPv4 host behind it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from meshd._fast.filter import Filter
from meshd._fast.plane import EV_LOCAL, EV_STAGED
from tests.reference import via as twin
from tests.unit.fast import offload
from tests.unit.fast.planepair import PLAIN_HEADER, Pair, pair
from tests.unit.fast.viapackets import (
    DF,
    HOST,
    OWN4,
    OWN6,
    PEER4,
    PEER6,
    ROUTES,
    address,
    echo,
    icmp,
    super_answer,
    tcp,
    udp,
    v4,
    v6,
)


def route(nodes: Pair) -> None:
    """What the reconcilers of both would ask for."""
    for prefix, bits in (*ROUTES, (HOST, 32)):
        nodes.a.plane.add_route(nodes.peer_of_a, prefix, bits)
    for prefix in (PEER4, PEER6):
        nodes.b.plane.add_route(nodes.peer_of_b, prefix, len(prefix) * 8)
    nodes.b.plane.set_ipv4(nodes.peer_of_b, PEER4)
    nodes.b.plane.set_via(ROUTES, [OWN4, OWN6])


@pytest.fixture
def nodes() -> Iterator[Pair]:
    with pair() as made:
        route(made)
        yield made


def arrived(nodes: Pair, packet: bytes) -> bytes:
    """What b's host gets of a packet that a's sends."""
    nodes.a.write(packet)
    return nodes.b.read()[len(PLAIN_HEADER) :]


def answered(nodes: Pair, packet: bytes, header: bytes = PLAIN_HEADER) -> bytes:
    nodes.b.write(packet, header)
    return nodes.a.read()[len(PLAIN_HEADER) :]


def test_plane_via_address_leads_to_the_host_and_its_answers_back(nodes: Pair) -> None:
    """RT-08."""
    for there, ask, say, back in (
        (v6(17, udp(4000, 53, b"ask")), (17, udp(4000, 53, b"ask")), (17, udp(53, 4000)), (17, udp(53, 4000))),
        (v6(6, tcp(4000, 80)), (6, tcp(4000, 80)), (6, tcp(80, 4000)), (6, tcp(80, 4000))),
        (v6(58, echo(128, 5)), (1, echo(8, 5)), (1, echo(0, 5)), (58, echo(129, 5))),
    ):
        found = arrived(nodes, there)
        assert found == v4(*ask, PEER4, HOST, ident=int.from_bytes(found[4:6], "big"), ttl=60)
        assert answered(nodes, v4(*say)) == v6(*back, address(7), PEER6, hops=61)


def test_plane_via_and_plain_flows_to_one_host_stay_apart(nodes: Pair) -> None:
    """RT-08."""
    arrived(nodes, v6(17, udp(4000, 53)))
    plain = v4(17, udp(4001, 53), PEER4, HOST)
    assert arrived(nodes, plain) == plain
    assert answered(nodes, v4(17, udp(53, 4001))) == v4(17, udp(53, 4001))
    assert answered(nodes, v4(17, udp(53, 4000))) == v6(17, udp(53, 4000), address(7), PEER6, hops=61)
    nodes.a.write(v4(17, udp(4000, 53), PEER4, HOST))
    nodes.b.counted("in_via_no_port")


def test_plane_via_super_packet_of_the_host_comes_out_whole(nodes: Pair) -> None:
    """RT-08: it is cut on b and merged again on a."""
    arrived(nodes, v6(6, tcp(4000, 80)))
    header, packet = super_answer(6, 30000, 1240)
    nodes.b.write(packet, header)
    got = b""
    while len(got) < 30000:
        whole = nodes.a.read()
        parts = twin.pieces(whole[:10], whole[10:])
        assert all(len(part) <= 1280 and twin.residue(part) == 0 for part in parts)
        got += b"".join(part[60:] for part in parts)
    assert got == packet[40:]


def test_plane_via_answers_that_grow_too_large(nodes: Pair) -> None:
    """RT-08: told to the host, at a bounded rate, or divided."""
    arrived(nodes, v6(17, udp(4000, 53)))
    packet = v4(17, udp(53, 4000, bytes(1240)), bits=DF)
    nodes.b.write(packet)
    told = nodes.b.read()[len(PLAIN_HEADER) :]
    assert told == v4(1, icmp(3, 1260, packet[:28], code=4), PEER4, HOST, ident=0, ttl=64, tos=0xC0)
    for _ in range(300):
        nodes.b.write(packet)
    nodes.b.counted("out_via_too_big", 301)
    assert sum(1 for _ in iter(lambda: nodes.b.nothing(), True) if nodes.b.read()) < 220
    parts = [answered(nodes, v4(17, udp(53, 4000, bytes(1240)))), nodes.a.read()[len(PLAIN_HEADER) :]]
    assert b"".join(part[48:] for part in parts) == v6(17, udp(53, 4000, bytes(1240)), address(7), PEER6)[40:]
    # Datagrams of one super packet, of which the last alone fits.
    header, packet = super_answer(17, 2480 + 100, 1240)
    last = answered(nodes, packet, header)
    assert last[40:] == v6(17, udp(53, 4000, packet[28 + 2480 :]), address(7), PEER6)[40:]


def test_plane_via_what_is_not_translated_is_counted(nodes: Pair) -> None:
    """RT-08: in all and for the peer."""
    plane = nodes.b.plane
    arrived(nodes, v6(17, udp(4000, 53)))
    nodes.a.write(v6(58, echo(129, 5)))
    nodes.b.counted("in_via_no_flow")
    plane.set_filter(
        Filter([([(bytes(16), b"\xff" * 16)], [(bytes(16), b"\xff" * 16, 0, 65535)], [132, 58])], [(bytes(16), 0)])
    )
    nodes.a.write(v6(132, bytes(16)))
    nodes.b.counted("in_via_refused")
    plane.set_ipv4(nodes.peer_of_b, None)
    nodes.a.write(v6(58, echo(128, 5)))
    nodes.b.counted("in_via_no_ipv4")
    nodes.b.write(v4(17, udp(53, 4000)), offload.vnet(1, start=24, offset=6))
    nodes.b.counted("out_via_refused")
    assert plane.peer_drops(nodes.peer_of_b).keys() >= {"in_via_no_flow", "in_via_refused", "in_via_no_ipv4"}


def test_plane_via_addresses_of_peers_are_reached_directly_only(nodes: Pair) -> None:
    """RT-08: no way around the rules for another node."""
    nodes.b.plane.set_via([(address(7, bytes(4)), 96)], [OWN4, OWN6])
    nodes.a.plane.add_route(nodes.peer_of_a, address(7, bytes(4)), 96)
    for host in (PEER4, OWN4):
        nodes.a.write(v6(17, udp(4000, 53), dst=address(7, host)))
    nodes.b.counted("in_via_refused", 2)
    assert arrived(nodes, v6(17, udp(4000, 53), dst=address(7, bytes([100, 64, 77, 1]))))


def test_plane_via_filter_judges_the_ipv6_packet(nodes: Pair) -> None:
    """RT-08: as the reference does."""
    everybody = (bytes(16), b"\xff" * 16)
    seven = (address(7), address(7))
    nodes.b.plane.set_filter(
        Filter([([everybody], [(*seven, 53, 53)], [17])], [(prefix, bits) for prefix, bits in ROUTES])
    )
    nodes.a.write(v6(17, udp(4000, 53), dst=address(8)))
    nodes.a.write(v6(17, udp(4000, 54)))
    nodes.b.counted("in_filtered", 2)
    assert arrived(nodes, v6(17, udp(4000, 53)))
    assert answered(nodes, v4(17, udp(53, 4000)))


def test_plane_via_ends_with_the_routes_and_comes_back(nodes: Pair) -> None:
    """RT-08: flows outlive a change of the routes."""
    arrived(nodes, v6(17, udp(4000, 53)))
    nodes.b.plane.set_via([], [])
    assert answered(nodes, v4(17, udp(53, 4000))) == v4(17, udp(53, 4000))
    assert arrived(nodes, v6(17, udp(4000, 53))) == v6(17, udp(4000, 53)), "as it is, to the host"
    nodes.b.plane.set_via(ROUTES[:1], [OWN4, OWN6])
    assert answered(nodes, v4(17, udp(53, 4000))) == v6(17, udp(53, 4000), address(7), PEER6, hops=61)
    for wrong in (b"", b"abc", OWN6):
        with pytest.raises(ValueError, match="4 bytes"):
            nodes.b.plane.set_ipv4(nodes.peer_of_b, wrong)


def test_plane_via_answer_without_session_waits_translated() -> None:
    """RT-08."""
    with pair() as nodes:
        route(nodes)
        arrived(nodes, v6(17, udp(4000, 53)))
        nodes.b.plane.clear_sessions(nodes.peer_of_b)
        nodes.b.write(v4(17, udp(53, 4000)))
        _, peer, staged = nodes.b.event(EV_STAGED)
        assert peer == nodes.peer_of_b
        assert staged[10:] == v6(17, udp(53, 4000), address(7), PEER6, hops=61)
        nodes.b.plane.remove_peer(nodes.peer_of_b)
        nodes.b.write(v4(17, udp(53, 4000)))
        nodes.b.counted("out_no_route")


def test_plane_via_without_tun_is_left_to_the_loop() -> None:
    """Userspace mode has nobody who would forward."""
    with pair(userspace=True) as nodes:
        route(nodes)
        nodes.a.write(v6(17, udp(4000, 53)))
        assert nodes.b.event(EV_LOCAL)[2] == v6(17, udp(4000, 53))
