"""The status object that programs read."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

from meshd.base.keys import NodePrivate
from meshd.core.netmap import Netmap
from meshd.core.node import Node
from meshd.core.prefs import Prefs
from meshd.core.state import State
from meshd.node.status import PeerTraffic, Snapshot, status_json
from meshd.wire.control import Hostinfo, Service


def node(number: int, **changes: Any) -> Node:
    addresses = (ip_network(f"100.64.0.{number}/32"), ip_network(f"fd7a:115c:a1e0::{number}/128"))
    fields: dict[str, Any] = {
        "id": number,
        "stable_id": f"n{number}",
        "name": f"n{number}.example.",
        "user": 1,
        "key": NodePrivate.generate().public(),
        "addresses": addresses,
        "allowed_ips": addresses,
    }
    return Node(**fields | changes)


def status(*peers: Node, prefs: Prefs | None = None) -> dict[str, Any]:
    netmap = Netmap(node(1))
    for peer in peers:
        netmap.peers[peer.id] = peer
    return status_json(
        Snapshot(
            version="0",
            tun=True,
            state=State.RUNNING,
            has_node_key=True,
            auth_url="",
            netmap=netmap,
            prefs=prefs or Prefs(),
            health=[],
            own_relay="",
            own_endpoints=[],
            traffic=lambda _: PeerTraffic(),
        )
    )


def test_status_peer_api_is_a_url_per_family() -> None:
    """NM-10."""
    services = (Service(proto="peerapi4", port=46590), Service(proto="peerapi6", port=47166))
    peer = node(2, hostinfo=Hostinfo(services=services))
    assert status(peer)["Peer"][peer.key.text()]["PeerAPIURL"] == [
        "http://100.64.0.2:46590",
        "http://[fd7a:115c:a1e0::2]:47166",
    ]


def test_status_peer_without_peer_api_has_null() -> None:
    """NM-10: as the reference tells it."""
    for hostinfo in (None, Hostinfo(), Hostinfo(services=(Service(proto="tcp", port=22),))):
        peer = node(2, hostinfo=hostinfo)
        assert status(peer)["Peer"][peer.key.text()]["PeerAPIURL"] is None


def test_status_names_the_exit_node_in_use() -> None:
    peer = node(9, online=True)
    told = status(node(2), peer, prefs=Prefs(exit_node_id="n9"))
    assert told["ExitNodeStatus"]["Online"]
    assert [p["ID"] for p in told["Peer"].values() if p["ExitNode"]] == ["n9"]
