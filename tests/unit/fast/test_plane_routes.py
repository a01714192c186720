"""Whose a prefix is."""

from __future__ import annotations

import time
from ipaddress import IPv4Network, ip_address, ip_network
from types import SimpleNamespace

import pytest

from meshd._fast.plane import EV_STAGED
from tests.unit.fast.packets import A4, A6, ip, udp
from tests.unit.fast.planepair import Pair, pair


def owner_of(nodes: Pair, text: str) -> int | None:
    """The peer that a packet to this address is for, None when there is none."""
    plane, to = nodes.a.plane, ip_address(text)
    lost = plane.counters()["out_no_route"]
    nodes.a.write(ip(17, udp(1, 2, b"q"), A4 if to.version == 4 else A6, to.packed))
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        for event in plane.drain():
            if event[0] == EV_STAGED:
                owner: int = event[1]
                return owner
        if plane.counters()["out_no_route"] > lost:
            return None
        time.sleep(0.001)
    raise TimeoutError(f"a packet to {text} vanished: {plane.counters()}")


def test_plane_set_routes_takes_and_gives_up_what_differs() -> None:
    with pair(session=False) as nodes:
        plane, other = nodes.a.plane, nodes.a.plane.add_peer(b"C" * 32)
        networks = [ip_network(text) for text in ("10.1.0.0/16", "100.64.0.9/32", "2001:db8::/32", "0.0.0.0/0")]
        plane.set_routes(other, networks)
        assert [owner_of(nodes, text) for text in ("10.1.2.3", "100.64.0.9", "2001:db8::1", "9.9.9.9")] == [other] * 4
        plane.set_routes(other, networks[1:3])
        assert [owner_of(nodes, text) for text in ("10.1.2.3", "100.64.0.9", "2001:db8::1")] == [None, other, other]
        plane.set_routes(0, [networks[1]])  # the new owner comes first
        plane.set_routes(other, [])
        assert [owner_of(nodes, text) for text in ("100.64.0.9", "2001:db8::1")] == [0, None]
        plane.set_routes(other, networks)
        plane.remove_peer(other)
        assert {owner_of(nodes, text) for text in ("10.1.2.3", "2001:db8::1", "9.9.9.9")} == {None}


@pytest.mark.parametrize("removed", [False, True])
def test_plane_route_of_several_peers_stays_while_one_of_them_carries_it(removed: bool) -> None:
    """RT-02: whoever got it last, and when that one loses it or goes, one of the others."""
    with pair(session=False) as nodes:
        plane, route = nodes.a.plane, [ip_network("10.1.0.0/16"), ip_network("2001:db8::/32")]
        others = [plane.add_peer(key * 32) for key in (b"C", b"D")]

        def owners() -> set[int | None]:
            return {owner_of(nodes, "10.1.2.3"), owner_of(nodes, "2001:db8::1")}

        def end(peer: int) -> None:
            plane.remove_peer(peer) if removed else plane.set_routes(peer, [])

        for peer in (0, *others):
            plane.set_routes(peer, route)
            assert owners() == {peer}
        plane.set_routes(0, route[:0])  # not the owner
        plane.set_routes(0, route)
        assert owners() == {0}
        end(others[0])
        assert owners() == {0}
        plane.set_routes(0, [])
        assert owners() == {others[1]}
        end(others[1])
        assert owners() == {None}
        plane.set_routes(0, route)
        plane.set_routes(0, [])
        assert owners() == {None}  # nobody inherits it of those who are gone


def test_plane_set_routes_of_many() -> None:
    with pair(session=False) as nodes:
        networks = [IPv4Network((0x0A000000 + (n << 8), 24)) for n in range(500)]
        nodes.a.plane.set_routes(0, networks)
        nodes.a.plane.set_routes(0, networks[250:])
        assert owner_of(nodes, "10.0.249.1") is None
        assert owner_of(nodes, "10.0.250.1") == owner_of(nodes, "10.1.243.1") == 0


def test_plane_set_routes_that_fails_leaves_nothing_behind_with_the_peer() -> None:
    with pair(session=False) as nodes:
        other = nodes.a.plane.add_peer(b"C" * 32)
        good = IPv4Network("10.1.0.0/16")
        with pytest.raises(ValueError, match="not a prefix"):
            nodes.a.plane.set_routes(other, [good, SimpleNamespace(network_address=good.network_address, prefixlen=99)])
        nodes.a.plane.remove_peer(other)
        assert owner_of(nodes, "10.1.2.3") is None
