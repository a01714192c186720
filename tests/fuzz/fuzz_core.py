"""Fuzz targets of decisions that strangers have a say in: the map of the network, and the door of handshakes."""

from __future__ import annotations

import contextlib
import itertools
import json
from typing import Any

from meshd.base.addr import AddrPort, parse_ip
from meshd.base.crypto import blake2s_mac
from meshd.base.errors import MeshdError, WireError
from meshd.base.keys import NodePrivate
from meshd.core import prefs as preferences
from meshd.core.controlknobs import control_knobs
from meshd.core.cookie import mac1_key
from meshd.core.dnsplan import dns_plan
from meshd.core.exitnode import suggest
from meshd.core.filterprogram import plan_filter
from meshd.core.handshake import Counterpart, Identity, create_initiation, open_initiation
from meshd.core.handshakequeue import Challenge, HandshakeQueue
from meshd.core.mapsession import MapSession
from meshd.core.relayadapter import relay_map
from meshd.wire.control import MapResponse, decode
from meshd.wire.wireguard import decode_initiation, decode_response, encode_initiation
from tests.fuzz.documents import map_messages
from tests.fuzz.target import target
from tests.unit.core.mapworld import WALL, key, node, own

_PREFS = preferences.default_prefs()


def _text(**fields: Any) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode()


_BEGIN = decode(MapResponse, _text(Node=own(), Peers=[node(2), node(3)]))


def _changes() -> list[bytes]:
    ports = {"First": 0, "Last": 65535}
    rule = {"SrcIPs": ["*", "cap:x"], "DstPorts": [{"IP": "*", "Ports": ports}]}
    lines = [
        _text(PeersChanged=[node(4, AllowedIPs=["10.0.0.0/8", "0.0.0.0/0"])], PeersRemoved=[2]),
        _text(PeersChangedPatch=[{"NodeID": 3, "DERPRegion": 5, "Key": key(9), "Endpoints": ["1.2.3.4:5"], "Cap": 9}]),
        _text(PeerSeenChange={"2": True}, OnlineChange={"3": False}, ControlTime="2026-11-23T09:06:44.6Z"),
        _text(Node=own(CapMap={"one-cgnat?v=true": None, "x": [1, "a", {}]}, KeyExpiry="2030-01-01T00:00:00Z")),
        _text(PacketFilters={"base": [rule], "x": None}),
        _text(PacketFilter=[rule]),
        _text(DNSConfig={"Routes": {"a.b": [{"Addr": "1.1.1.1"}], "c": []}, "Resolvers": [{"Addr": "https://x/"}]}),
        _text(DNSConfig={"ExtraRecords": [{"Name": "a.b", "Value": "1.2.3.4"}], "Domains": ["a"], "Proxied": True}),
        _text(DERPMap={"Regions": {"1": {"RegionID": 1, "Nodes": [{"Name": "1a", "RegionID": 1, "HostName": "h"}]}}}),
        _text(Peers=[node(2, Key=key(3)), node(3, Addresses=["100.64.0.2/32"]), node(3)]),
        _text(UserProfiles=[{"ID": 1, "LoginName": "u"}], Domain="d", Health=["x"], CollectServices=True),
        _text(DisplayMessages={"a": {"Title": "t", "Severity": "high"}, "*": None}, TKAInfo={"Head": "h"}),
        _text(Debug={"SleepSeconds": 1e9, "Exit": 1}, ClientVersion={"RunningLatest": True}, PingRequest={"URL": "u"}),
        _text(KeepAlive=True),
    ]
    return [*lines, *(b"\n".join(pair) for pair in itertools.pairwise(lines)), *map_messages()]


@target(seeds=_changes, text=True, limit=1200)
def fuzz_map_session(data: bytes) -> None:
    """Messages a line each: refused whole, or applied; then every index agrees with the peers, and all that is made
    of the map can be made."""
    session = MapSession()
    session.apply(_BEGIN, WALL)
    netmap = session.netmap
    assert netmap is not None
    for line in data.split(b"\n")[:4]:
        with contextlib.suppress(WireError):
            session.apply(decode(MapResponse, line), WALL)
    keys = [peer.key for peer in netmap.peers.values()]
    addresses = [prefix.network_address.packed for peer in netmap.peers.values() for prefix in peer.addresses]
    assert len(set(keys)) == len(keys)
    assert len(set(addresses)) == len(addresses)
    assert netmap.node_key not in keys
    for node_id, peer in netmap.peers.items():
        assert peer.id == node_id
        assert peer.expired or netmap.peer_by_key(peer.key) is peer  # the key of an expired one is marked
        assert all(netmap.by_ip[prefix.network_address.packed] == node_id for prefix in peer.addresses)
    assert {n for ids in netmap.by_name.values() for n in ids} <= set(netmap.peers)
    relay_map(netmap.derp_map)
    dns_plan(netmap, _PREFS)
    control_knobs(netmap)
    plan_filter(netmap.filter_rules, netmap.self_node.addresses).compile()
    with contextlib.suppress(MeshdError):  # nobody offers to be one
        suggest(netmap, 1, {1: 0.1}, "", lambda nodes: nodes[0])
    session.expire(WALL + 1e9)
    netmap.refusals()


_US = Identity.of(NodePrivate(bytes(31) + b"\x40").raw)
_THEM = Identity.of(NodePrivate(bytes(31) + b"\x41").raw)
_MAC1 = mac1_key(_US.public)
_SOURCE = AddrPort(parse_ip("192.0.2.1"), 5)


def _with_mac1(data: bytes) -> bytes:
    """The first mac put right, as whoever knows our public key can."""
    if len(data) < 36:
        return data
    return data[:-32] + blake2s_mac(_MAC1, data[:-32]) + data[-16:]


def _handshakes() -> list[bytes]:
    peer = Counterpart.between(_THEM, _US.public)
    message, _ = create_initiation(
        _THEM, peer, local_index=7, timestamp=bytes(12), ephemeral_private=NodePrivate(bytes(31) + b"\x42").raw
    )
    initiation = encode_initiation(message)
    return [_with_mac1(initiation), _with_mac1(b"\2\0\0\0" + bytes(88)), b"\3\0\0\0" + bytes(60), initiation]


@target(seeds=_handshakes, limit=160)
def fuzz_handshake_door(data: bytes) -> None:
    """What comes through the door has the size of its kind; the rest is counted. Under suspicion a cookie is asked."""
    queue = HandshakeQueue(_US.public, lambda size: bytes(size))
    offered = 0
    for message in (data, _with_mac1(data)):
        offered += queue.offer(message, _SOURCE)
        while (item := queue.take(1.0)) is not None:
            if isinstance(item, Challenge):
                assert len(item.data) == 64
                continue
            if item.kind == 1:
                open_initiation(_US, decode_initiation(item.data))
            else:
                decode_response(item.data)
            for _ in range(30):
                queue.failed(_SOURCE, 1.0)
    assert offered + sum(queue.drops.values()) == 2 + queue.drops.get("cookie_asked", 0)
