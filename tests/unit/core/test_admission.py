"""Who is let into the netmap, beyond what the property test covers: limits and speed."""

from __future__ import annotations

from typing import Any

import pytest

from meshd.core import admission
from meshd.core.netmap import MAX_LISTED_REFUSALS
from meshd.core.nodeadapter import MAX_ALLOWED_IPS
from tests.unit.core.mapworld import joined, key, node, send


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"ID": 0}, "its id is 0"),
        ({"Addresses": ["100.64.0.9/24"]}, "host bits"),
        ({"Addresses": ["100.64.0.0/24"]}, "not a single address"),
        ({"Addresses": ["127.0.0.1/32"]}, "belongs to no node"),
        ({"Addresses": ["224.0.0.1/32"]}, "belongs to no node"),
        ({"Addresses": ["::ffff:100.64.0.9/128"]}, "belongs to no node"),
        ({"Addresses": ["100.100.100.100/32"]}, "reserved"),
        ({"SelfNodeV6MasqAddrForThisPeer": "100.64.0.9"}, "which is not IPv6"),
        ({"SelfNodeV4MasqAddrForThisPeer": "fd7a:115c:a1e0::9"}, "which is not IPv4"),
        ({"SelfNodeV6MasqAddrForThisPeer": "fe80::1%eth0"}, "knows us by an address that is none"),
        ({"Addresses": [f"100.64.1.{n}/32" for n in range(17)]}, "17 addresses"),
        ({"Name": "x" * 300}, "not a DNS name"),
        ({"Name": "a\x1b[2J."}, "not a DNS name"),
        ({"Key": "nodekey:" + "0" * 64}, "no node key"),
    ],
)
def test_admission_nonsense_is_refused_with_its_reason(fields: dict[str, Any], reason: str) -> None:
    session = joined(node(2), node(3, **fields))
    assert session.netmap is not None
    assert sorted(session.netmap.peers) == [2]
    [refusal] = session.netmap.refusals()
    assert reason in refusal.reason
    assert "\x1b" not in str(refusal)


def test_admission_unusable_parts_are_left_out() -> None:
    routes = [*node(2)["Addresses"], "127.0.0.0/8", "224.0.0.0/4", "::ffff:0:0/96", "10.0.0.0/8", "10.0.0.0/8"]
    ends = ["0.0.0.0:1", "192.0.2.1:0", "[fe80::1%eth0]:1", "192.0.2.1:1"]
    session = joined(node(2, AllowedIPs=routes, Endpoints=ends))
    assert session.netmap is not None
    peer = session.netmap.peers[2]
    assert [str(p) for p in peer.allowed_ips] == [*node(2)["Addresses"], "10.0.0.0/8"]
    assert [str(e) for e in peer.endpoints] == ["192.0.2.1:1"]
    assert "not routable" in session.netmap.refused[2].reason


def test_admission_routes_with_host_bits_are_left_out() -> None:
    """The peer was refused as a whole for one of them, and with it what it is reached by."""
    routes = [*node(2)["Addresses"], "10.1.1.1/8", "192.168.7.0/24"]
    session = joined(node(2, AllowedIPs=routes, PrimaryRoutes=["10.1.1.1/8", "192.168.7.0/24"]))
    assert session.netmap is not None
    peer = session.netmap.peers[2]
    assert [str(p) for p in peer.allowed_ips] == [*node(2)["Addresses"], "192.168.7.0/24"]
    assert [str(p) for p in peer.primary_routes] == ["192.168.7.0/24"]
    assert session.netmap.refused[2].reason == "its route 10.1.1.1/8 has host bits set"


def test_admission_of_very_many_routes_takes_the_first_and_what_the_peer_is_reached_by() -> None:
    """The networks of a large cloud are ten thousand; the peer that carries them must not be lost for one too many."""
    many = [f"{10 + n // 65536}.{n // 256 % 256}.{n % 256}.0/24" for n in range(MAX_ALLOWED_IPS + 9)]
    session = joined(node(2, AllowedIPs=[*many[:9000], *node(2)["Addresses"]]), node(3))
    assert session.netmap is not None
    assert len(session.netmap.peers[2].allowed_ips) == 9002
    assert not session.netmap.refused
    send(session, PeersChanged=[node(2, AllowedIPs=[*many, *node(2)["Addresses"], "0.0.0.0/0", "::/0"])])
    taken = [str(p) for p in session.netmap.peers[2].allowed_ips]
    assert taken == [*many[:MAX_ALLOWED_IPS], *node(2)["Addresses"], "0.0.0.0/0", "::/0"]
    said = f"its route number {MAX_ALLOWED_IPS + 1} and those after it are too many"
    assert session.netmap.refused[2].reason == said
    send(session, PeersChangedPatch=[{"NodeID": 2, "Endpoints": ["192.0.2.1:1"]}])
    assert session.netmap.refused[2].reason == said


def test_admission_what_servers_pass_on_of_a_node_spoils_no_map() -> None:
    """Servers written in Go take these from any node of the network, and hand them to all others as they are."""
    ends = ["", "[fe80::1%" + "z" * 200 + "]:1", "[fe80::1%a]b\x1b[2J]:1", "192.0.2.1:1"]
    prefixes = {"Addresses": ["", "100.64.0.2/32"], "AllowedIPs": ["", "100.64.0.2/32"], "PrimaryRoutes": [""]}
    session = joined(node(2, Endpoints=ends, Hostinfo={"RoutableIPs": ["", "10.0.0.0/8"]}, **prefixes))
    assert session.netmap is not None
    peer = session.netmap.peers[2]
    assert [str(e) for e in peer.endpoints] == ["192.0.2.1:1"]
    assert [str(p) for p in peer.allowed_ips] == ["100.64.0.2/32"]
    assert peer.primary_routes == ()
    assert "\x1b" not in session.netmap.refused[2].reason
    send(session, PeersChangedPatch=[{"NodeID": 2, "Endpoints": ["", "192.0.2.2:1"]}])
    assert [str(e) for e in session.netmap.peers[2].endpoints] == ["192.0.2.2:1"]


def test_admission_note_stays_as_long_as_the_server_says_what_it_is_about() -> None:
    bad = node(2, Endpoints=["192.0.2.1:0", "192.0.2.1:1"])
    session = joined(bad)
    netmap = session.netmap
    assert netmap is not None
    said = "its endpoint 192.0.2.1:0 cannot be sent to"
    for fields in (
        {"OnlineChange": {"2": True}},
        {"PeerSeenChange": {"2": True}},
        {"PeersChangedPatch": [{"NodeID": 2, "DERPRegion": 4}]},
    ):
        send(session, **fields)
        assert netmap.refused[2].reason == said
    send(session, PeersChangedPatch=[{"NodeID": 2, "Endpoints": ["192.0.2.1:1"]}])
    assert not netmap.refused
    send(session, PeersChanged=[bad])
    assert netmap.refused[2].reason == said
    peer = netmap.peers[2]
    assert send(session, PeersChanged=[node(2, Endpoints=["192.0.2.1:1"])]).is_empty
    assert netmap.peers[2] is peer
    assert not netmap.refused


def test_admission_note_of_a_route_outlives_patched_endpoints() -> None:
    session = joined(node(2, AllowedIPs=[*node(2)["Addresses"], "127.0.0.0/8"]))
    netmap = session.netmap
    assert netmap is not None
    send(session, PeersChangedPatch=[{"NodeID": 2, "Endpoints": ["192.0.2.1:0"]}])
    route, endpoint = "its route 127.0.0.0/8 is not routable", "its endpoint 192.0.2.1:0 cannot be sent to"
    assert netmap.refused[2].reason == f"{route}; {endpoint}"
    send(session, PeersChangedPatch=[{"NodeID": 2, "Endpoints": []}])
    assert netmap.refused[2].reason == route


def test_admission_address_said_twice_counts_once() -> None:
    addresses = node(2)["Addresses"]
    session = joined(node(2, Addresses=addresses + addresses))
    assert session.netmap is not None
    assert [str(p) for p in session.netmap.peers[2].addresses] == addresses


def test_admission_foreign_address_in_allowed_ips_is_left_out_and_returns() -> None:
    """Nobody gets another node's address by listing it, and gets it when that node is gone."""
    session = joined(node(2), node(3, AllowedIPs=[*node(3)["Addresses"], "100.64.0.2/32", "100.64.0.1/32"]))
    netmap = session.netmap
    assert netmap is not None
    assert len(netmap.peers[3].allowed_ips) == 2
    assert "belongs to another node" in netmap.refused[3].reason
    change = send(session, PeersRemoved=[2])
    assert [n.id for _, n in change.changed] == [3]
    assert len(netmap.peers[3].allowed_ips) == 3


def test_admission_loser_of_a_contest_gets_in_when_the_winner_leaves() -> None:
    session = joined(node(2), node(3, Key=key(2)), node(4, Key=key(2)))
    netmap = session.netmap
    assert netmap is not None
    assert sorted(netmap.peers) == [2]
    change = send(session, PeersRemoved=[2])
    assert [n.id for n in change.added] == [3]
    assert sorted(netmap.peers) == [3]


def test_admission_lower_id_takes_over() -> None:
    session = joined(node(5, Key=key(9)))
    change = send(session, PeersChanged=[node(4, Key=key(9))])
    assert ([n.id for n in change.added], [n.id for n in change.removed]) == ([4], [5])


def test_admission_list_of_refusals_is_bounded() -> None:
    session = joined(*(node(n % 200 + 2, ID=n, Key=key(0)) for n in range(1000, 9000)))
    assert session.netmap is not None
    assert session.netmap.peers == {}
    assert len(session.netmap.refusals()) == MAX_LISTED_REFUSALS + 1
    assert len(session.netmap.refused) <= 4096


def test_admission_expiry_schedule_does_not_grow_with_patches() -> None:
    """A server that moves an expiry to and fro must not fill memory."""
    session = joined(node(2))
    for n in range(2000):
        send(session, PeersChangedPatch=[{"NodeID": 2, "KeyExpiry": f"20{40 + n % 2}-01-01T00:00:00Z"}])
    admission = session._admission
    assert admission is not None
    assert len(admission._expiries) <= 128


def test_admission_name_that_all_peers_share_is_sorted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that gives every node one name must not keep us busy with it."""
    sorts: list[int] = []
    count = lambda ids: (sorts.append(len(ids)), sorted(ids))[1]  # noqa: E731
    monkeypatch.setattr(admission, "sorted", count, raising=False)
    session = joined(*(one_name(n) for n in range(500, 2, -1)))
    netmap = session.netmap
    assert netmap is not None
    assert netmap.by_name == {"x.mesh.test": tuple(range(3, 501))}
    send(session, PeersRemoved=list(range(3, 301)))
    assert netmap.by_name == {"x.mesh.test": tuple(range(301, 501))}
    assert sorts == [498, 200]
    send(session, PeersChanged=[one_name(301, Name="y.mesh.test."), one_name(302, Name="X.mesh.test")])
    assert netmap.by_name == {"x.mesh.test": tuple(range(302, 501)), "y.mesh.test": (301,)}
    send(session, PeersRemoved=list(range(302, 501)), PeersChanged=[one_name(301)])
    assert netmap.by_name == {"x.mesh.test": (301,)}


def one_name(number: int, **fields: Any) -> dict[str, Any]:
    addresses = [f"100.64.{number >> 8}.{number & 255}/32"]
    return node(2, **{"ID": number, "Name": "x.mesh.test.", "Key": key(number), "Addresses": addresses, **fields})


def test_admission_patch_touches_one_peer_only() -> None:
    """O(1): an endpoint patch looks at its own peer and nothing else, however many there are."""
    session = joined(*(node(2, ID=n, Key=key(n), Addresses=[f"100.64.{n >> 8}.{n & 255}/32"]) for n in range(2, 3000)))
    admission = session._admission
    assert admission is not None
    seen: list[int] = []
    publish = admission._publish
    admission._publish = lambda number, *rest: (seen.append(number), publish(number, *rest))[1]  # type: ignore[method-assign]
    send(session, PeersChangedPatch=[{"NodeID": 77, "Endpoints": ["192.0.2.1:1"]}])
    assert seen == [77]
