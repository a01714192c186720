"""The cached netmap: what comes back is what there was, through the door that the server's maps come through."""

from __future__ import annotations

import msgspec
import pytest

from meshd.base.addr import AddrPort
from meshd.base.errors import WireError
from meshd.base.keys import DiscoPrivate, NodePublic
from meshd.core.cachedmap import Picture, decode_cached
from meshd.core.mapsession import MapSession
from meshd.core.netmap import Netmap
from tests.unit.core.mapworld import WALL, joined, node, own, send

DISCO = DiscoPrivate.generate()
LAST = AddrPort.parse("203.0.113.9:999")


def full_session() -> MapSession:
    return joined(
        node(2, Endpoints=["192.0.2.1:1"], HomeDERP=1, Online=True, LastSeen="2026-01-01T00:00:00Z", Cap=90),
        node(3, AllowedIPs=["100.64.0.3/32", "10.0.0.0/8"], Tags=["tag:x"], CapMap={"a": None, "b": [1]}),
        node(4, KeyExpiry="2020-01-01T00:00:00Z"),
        node(5, Key=node(2)["Key"]),
        DERPMap={"Regions": {"1": {"RegionID": 1, "RegionCode": "r", "Nodes": [{"Name": "1a", "HostName": "h"}]}}},
        DNSConfig={"Domains": ["example.com"]},
        Domain="example.com",
        CollectServices=True,
        PacketFilters={"base": [{"SrcIPs": ["*"], "DstPorts": [{"IP": "*", "Ports": {"First": 1, "Last": 9}}]}]},
        UserProfiles=[{"ID": 1, "LoginName": "u"}],
        TKAInfo={"Head": "abc"},
    )


def picture(netmap: Netmap) -> Picture:
    key = next(iter(netmap.peers.values())).key
    return Picture(netmap, control_url="http://c", user_id=7, disco=DISCO, met=(2,), reached={key: LAST})


def restored(session: MapSession) -> tuple[Netmap, Netmap]:
    assert session.netmap is not None
    cached = decode_cached(picture(session.netmap).encode(), session.netmap.node_key, WALL)
    assert (cached.control_url, cached.user_id, cached.met) == ("http://c", 7, (2,))
    assert cached.disco == DISCO
    again = MapSession()
    change = again.apply(cached.response, WALL)
    assert change.full
    assert again.netmap is not None
    return session.netmap, again.netmap


def test_cached_map_brings_back_the_netmap() -> None:
    """NM-02: every part of it, and no peer that was refused."""
    before, after = restored(full_session())
    assert after.self_node == before.self_node
    assert list(after.peers) == list(before.peers)
    for node_id in (3, 4):
        assert after.peers[node_id] == before.peers[node_id]
    for name in ("derp_map", "dns", "domain", "collect_services", "filter_rules", "user_profiles", "lock_head"):
        assert getattr(after, name) == getattr(before, name), name
    assert after.by_ip == before.by_ip
    assert after.by_key.keys() - before.by_key.keys() == {after.peers[4].key}  # expired: its key is marked


def test_cached_map_puts_the_last_address_first() -> None:
    before, after = restored(full_session())
    assert after.peers[2].endpoints == (LAST, *before.peers[2].endpoints)


def test_cached_map_is_replaced_by_the_servers_first_message() -> None:
    session = full_session()
    assert session.netmap is not None
    cached = decode_cached(picture(session.netmap).encode(), session.netmap.node_key, WALL)
    again = MapSession()
    again.apply(cached.response, WALL)
    again.begin_stream()
    change = send(again, Node=own(), Peers=[node(3)], Domain="other")
    assert change.full
    assert {n.id for n in change.removed} == {2, 4}
    assert again.netmap is not None
    assert (list(again.netmap.peers), again.netmap.domain, again.netmap.filter_rules) == ([3], "other", ())


def test_cached_map_of_another_key_is_refused() -> None:
    session = full_session()
    assert session.netmap is not None
    data = picture(session.netmap).encode()
    with pytest.raises(WireError, match="another node key"):
        decode_cached(data, NodePublic(bytes(31) + b"x"), WALL)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"KeyExpiry": "2020-01-01T00:00:00Z"}, "our key has expired"),
        ({"Expired": True}, "our key has expired"),
        ({"CapMap": {"disable-cache-network-maps": None}}, "does not allow"),
    ],
)
def test_cached_map_that_must_not_be_used_is_refused(fields: dict[str, object], reason: str) -> None:
    session = MapSession()
    send(session, Node=own(**fields))
    assert session.netmap is not None
    data = Picture(session.netmap, control_url="", user_id=0, disco=DISCO, met=(), reached={}).encode()
    with pytest.raises(WireError, match=reason):
        decode_cached(data, session.netmap.node_key, WALL)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        msgspec.json.encode({"control": "", "user": 0, "disco": b"x", "met": [], "map": {}}),
        msgspec.json.encode({"control": "", "user": 0, "disco": bytes(32), "met": [], "map": {}}),
        msgspec.json.encode({"control": "", "user": 0, "disco": bytes(32), "met": [], "map": {"Node": {"ID": -1}}}),
        msgspec.json.encode({"control": "", "user": 0, "disco": bytes(32), "met": [], "map": 5}),
    ],
)
def test_cached_map_of_nonsense_is_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        decode_cached(data, NodePublic(bytes(32)), WALL)
