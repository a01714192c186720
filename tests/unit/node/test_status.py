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
from meshd.wire.control import DNSConfig, DNSRecord, Hostinfo, Service


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


QUIET = PeerTraffic()


def status(
    *peers: Node,
    prefs: Prefs | None = None,
    traffic: PeerTraffic = QUIET,
    in_map_poll: bool = True,
    known: bool = True,
) -> dict[str, Any]:
    netmap = Netmap(node(1, cap_map={"is-admin": [], "a": []})) if known else None
    for peer in peers:
        assert netmap is not None
        netmap.peers[peer.id] = peer
    return shown(netmap, prefs, traffic, in_map_poll=in_map_poll)


def shown(
    netmap: Netmap | None, prefs: Prefs | None = None, traffic: PeerTraffic = QUIET, *, in_map_poll: bool = True
) -> dict[str, Any]:
    return status_json(
        Snapshot(
            client_version=None,
            in_map_poll=in_map_poll,
            host_name="host",
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
            traffic=lambda _: traffic,
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


def test_status_lists_the_extra_names_of_the_network() -> None:
    """status:Status: `ExtraRecords` as the network sent them, null for none."""
    assert status()["ExtraRecords"] is None
    record = DNSRecord(name="a.mesh.test.", value="100.64.0.9")
    netmap = Netmap(node(1))
    netmap.dns = DNSConfig(extra_records=(record,))
    assert shown(netmap)["ExtraRecords"] == [{"Name": "a.mesh.test.", "Value": "100.64.0.9"}]


STATUS_FIELDS = [
    "Version",
    "TUN",
    "BackendState",
    "HaveNodeKey",
    "AuthURL",
    "TailscaleIPs",
    "Self",
    "Health",
    "MagicDNSSuffix",
    "CurrentTailnet",
    "CertDomains",
    "ExtraRecords",
    "Peer",
    "User",
    "ClientVersion",
]
PEER_FIELDS = [
    "ID",
    "NodeID",
    "PublicKey",
    "HostName",
    "DNSName",
    "OS",
    "UserID",
    "TailscaleIPs",
    "AllowedIPs",
    "Addrs",
    "CurAddr",
    "Relay",
    "PeerRelay",
    "RxBytes",
    "TxBytes",
    "Created",
    "LastWrite",
    "LastSeen",
    "LastHandshake",
    "Online",
    "ExitNode",
    "ExitNodeOption",
    "Active",
    "PeerAPIURL",
    "TaildropTarget",
    "NoFileSharingReason",
    "InNetworkMap",
    "InMagicSock",
    "InEngine",
]


def test_status_has_the_fields_that_programs_read() -> None:
    """status:Status, status:PeerStatus, status:CurrentTailnet: none is missing, none is unknown; no time is year 1."""
    peer = node(2)
    whole = status(peer)
    assert set(whole) == set(STATUS_FIELDS)
    assert set(whole["Peer"]) == {peer.key.text()}
    shown = whole["Peer"][peer.key.text()]
    assert set(shown) == set(PEER_FIELDS)
    assert {shown[name] for name in ("LastWrite", "LastSeen", "LastHandshake")} == {"0001-01-01T00:00:00Z"}
    assert set(whole["CurrentTailnet"]) == {"Name", "MagicDNSSuffix", "MagicDNSEnabled"}
    assert set(whole["Self"]) >= set(PEER_FIELDS)


def test_status_names_the_exit_node_in_use() -> None:
    """EX-08."""
    peer = node(9, online=True)
    told = status(node(2), peer, prefs=Prefs(exit_node_id="n9"))
    assert told["ExitNodeStatus"]["Online"]
    assert [p["ID"] for p in told["Peer"].values() if p["ExitNode"]] == ["n9"]


def test_status_exit_node_that_is_not_in_the_network_is_not_told() -> None:
    """EX-08, NM-10: a client reads ExitNodeStatus as "in use"."""
    assert "ExitNodeStatus" not in status(node(2), prefs=Prefs(exit_node_id="gone"))


def test_status_peer_tells_who_it_is_and_what_was_sent() -> None:
    """NM-10, SM-01, status:PeerStatus: the fields that programs read, from the map and from the tunnel."""
    peer = node(2, user=7, sharer=9, tags=("tag:db",))
    used = PeerTraffic(last_write=1000.0, active=True, in_engine=True, in_magicsock=True)
    whole = status(peer, traffic=used)
    shown = whole["Peer"][peer.key.text()]
    expected = {
        "UserID": 7,
        "AltSharerUserID": 9,
        "Tags": ["tag:db"],
        "LastWrite": "1970-01-01T00:16:40Z",
        "Active": True,
        "InNetworkMap": True,
        "InMagicSock": True,
        "InEngine": True,
    }
    assert {name: shown[name] for name in expected} == expected
    assert whole["HaveNodeKey"] is True
    assert whole["Self"]["Capabilities"][1:] == ["a", "is-admin"]
    idle = status(node(3))["Peer"]
    (other,) = idle.values()
    assert (other["Active"], other["InEngine"], other["InMagicSock"]) == (False, False, False)


def test_status_self_is_online_while_the_server_can_reach_us() -> None:
    """NM-09: whatever the map says of us, which is as old as the last connection."""
    assert status()["Self"]["Online"] is True
    assert status(in_map_poll=False)["Self"]["Online"] is False


def test_status_before_a_netmap_names_the_host() -> None:
    """NM-09: no addresses, no network, no owner; the machine's own name."""
    told = status(in_map_poll=False, known=False)
    own = told["Self"]
    assert (own["HostName"], own["Online"], own["TailscaleIPs"], own["UserID"]) == ("host", False, None, 0)
    assert (told["CurrentTailnet"], told["MagicDNSSuffix"], told["Peer"]) == (None, "", None)


def test_status_self_names_the_operating_system_whatever_the_map_repeats() -> None:
    """NM-09."""
    assert status()["Self"]["OS"] == status(known=False)["Self"]["OS"] == "linux"


def test_status_capabilities_begin_with_a_note_for_programs() -> None:
    """NM-09: the list is there for old programs, CapMap for all others."""
    own = status()["Self"]
    assert own["Capabilities"] == [
        "HTTPS://TAILSCALE.COM/s/DEPRECATED-NODE-CAPS#see-https://github.com/tailscale/tailscale/issues/11508",
        "a",
        "is-admin",
    ]
    assert own["CapMap"] == {"a": [], "is-admin": []}


def test_status_routes_that_are_not_taken_are_told() -> None:
    """NM-09: one line of Health, only in the status, while somebody offers routes."""
    router = node(2, primary_routes=(ip_network("10.0.0.0/8"),))
    note = "Some peers are advertising routes but --accept-routes is false"
    assert status(router, prefs=Prefs(route_all=False))["Health"] == [note]
    assert (
        status(router, prefs=Prefs(route_all=True))["Health"]
        == status(node(2), prefs=Prefs(route_all=False))["Health"]
        == []
    )
