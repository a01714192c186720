"""The status of the node as JSON, for ``mesh status`` and everything that reads the same route."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from meshd.base.addr import format_ip
from meshd.base.gotime import ZERO_TIME, format_time
from meshd.core.netmap import Netmap
from meshd.core.node import Node
from meshd.core.prefs import Prefs
from meshd.core.state import State
from meshd.node.nodejson import user_json
from meshd.wire.control import Hostinfo

JSON = dict[str, Any]


class PeerTraffic(NamedTuple):
    """What tunnel and path know of one peer; unix seconds, None for never.

    ``address`` is the direct path in use, ``relay`` the code of its home region.
    """

    rx_bytes: int = 0
    tx_bytes: int = 0
    last_handshake: float | None = None
    last_write: float | None = None
    address: str = ""
    relay: str = ""
    active: bool = False
    in_engine: bool = False
    in_magicsock: bool = False


class Snapshot(NamedTuple):
    """Everything a status is made of."""

    version: str
    tun: bool
    state: State
    has_node_key: bool
    auth_url: str
    netmap: Netmap | None
    prefs: Prefs
    health: list[str]
    own_relay: str
    own_endpoints: list[str]
    traffic: Callable[[Node], PeerTraffic]


def status_json(snapshot: Snapshot, *, peers: bool = True) -> JSON:
    """The status object; ``Peer`` is None without ``peers``."""
    netmap = snapshot.netmap
    suffix = netmap.magic_dns_suffix if netmap else ""
    status: JSON = {
        "Version": snapshot.version,
        "TUN": snapshot.tun,
        "BackendState": snapshot.state.label,
        "HaveNodeKey": snapshot.has_node_key,
        "AuthURL": snapshot.auth_url,
        "TailscaleIPs": _ips(netmap.self_node) if netmap else None,
        "Self": _self(snapshot),
        "Health": snapshot.health or [],
        "MagicDNSSuffix": suffix,
        "CurrentTailnet": _tailnet(netmap, suffix),
        "CertDomains": list(netmap.dns.cert_domains) if netmap and netmap.dns and netmap.dns.cert_domains else None,
        "ExtraRecords": None,
        "Peer": None,
        "User": None,
        "ClientVersion": None,
    }
    if not snapshot.has_node_key:
        del status["HaveNodeKey"]
    exit_node = _exit_node(snapshot)
    if exit_node:
        status["ExitNodeStatus"] = exit_node
    if netmap is not None:
        shown = list(netmap.peers.values()) if peers else []
        if peers:
            status["Peer"] = {node.key.text(): _peer(snapshot, node) for node in shown}
        status["User"] = users_json(netmap, [netmap.self_node, *shown])
    return status


def users_json(netmap: Netmap, nodes: Iterable[Node]) -> JSON:
    """The profiles of everybody who owns or shares one of ``nodes``, by user id."""
    wanted = {user for node in nodes for user in (node.user, node.sharer) if user}
    return {str(user): user_json(netmap.user_profiles[user]) for user in sorted(wanted) if user in netmap.user_profiles}


def _ips(node: Node) -> list[str]:
    return [format_ip(ip) for ip in node.ips]


def _tailnet(netmap: Netmap | None, suffix: str) -> JSON | None:
    if netmap is None:
        return None
    enabled = bool(netmap.dns and netmap.dns.proxied)
    return {"Name": netmap.domain, "MagicDNSSuffix": suffix, "MagicDNSEnabled": enabled}


def _exit_node(snapshot: Snapshot) -> JSON | None:
    chosen = snapshot.prefs.exit_node_id
    if not chosen or snapshot.netmap is None:
        return None
    node = next((n for n in snapshot.netmap.peers.values() if n.stable_id == chosen), None)
    if node is None:
        return {"ID": chosen, "Online": False, "TailscaleIPs": None}
    return {"ID": chosen, "Online": bool(node.online), "TailscaleIPs": [str(p) for p in node.addresses]}


def _self(snapshot: Snapshot) -> JSON:
    netmap = snapshot.netmap
    if netmap is None:
        return _base(None, PeerTraffic(), exit_node=False)
    node = netmap.self_node
    shown = _base(node, PeerTraffic(relay=snapshot.own_relay), exit_node=False)
    shown["Addrs"] = snapshot.own_endpoints
    shown["Online"] = bool(node.online) if node.online is not None else True
    shown["InNetworkMap"] = True
    if node.cap_map:
        shown["Capabilities"] = sorted(node.cap_map)
        shown["CapMap"] = {name: values or [] for name, values in sorted(node.cap_map.items())}
    return shown


def _peer(snapshot: Snapshot, node: Node) -> JSON:
    traffic = snapshot.traffic(node)
    shown = _base(node, traffic, exit_node=node.stable_id == snapshot.prefs.exit_node_id)
    shown["InNetworkMap"] = True
    shown["InMagicSock"] = traffic.in_magicsock
    shown["InEngine"] = traffic.in_engine
    if node.expired:
        shown["Expired"] = True
    return shown


def _base(node: Node | None, traffic: PeerTraffic, *, exit_node: bool) -> JSON:
    host = node.hostinfo if node else None
    ips = _ips(node) if node else None
    shown: JSON = {
        "ID": node.stable_id if node else "",
        "NodeID": node.id if node else 0,
        "PublicKey": node.key.text() if node else "nodekey:" + "00" * 32,
        "HostName": (host.hostname if host else "") or (node.first_label if node else ""),
        "DNSName": node.name if node else "",
        "OS": host.os if host else "",
        "UserID": node.user if node else 0,
        "TailscaleIPs": ips,
    }
    if node and ips is not None:
        if node.sharer:
            shown["AltSharerUserID"] = node.sharer
        single = node.allowed_ips is node.addresses
        shown["AllowedIPs"] = (
            [f"{ip}/128" if ":" in ip else f"{ip}/32" for ip in ips] if single else [str(p) for p in node.allowed_ips]
        )
        if node.tags:
            shown["Tags"] = list(node.tags)
        if node.primary_routes:
            shown["PrimaryRoutes"] = [str(p) for p in node.primary_routes]
    shown |= {
        "Addrs": None,
        "CurAddr": traffic.address,
        "Relay": traffic.relay,
        "PeerRelay": "",
        "RxBytes": traffic.rx_bytes,
        "TxBytes": traffic.tx_bytes,
        "Created": format_time(node.created) if node else ZERO_TIME,
        "LastWrite": format_time(traffic.last_write),
        "LastSeen": format_time(node.last_seen) if node else ZERO_TIME,
        "LastHandshake": format_time(traffic.last_handshake),
        "Online": bool(node and node.online),
        "ExitNode": exit_node,
        "ExitNodeOption": bool(node and node.offers_exit),
        "Active": traffic.active,
        "PeerAPIURL": _peer_api(host, ips or ()),
        "TaildropTarget": 0,
        "NoFileSharingReason": "",
        "InNetworkMap": False,
        "InMagicSock": False,
        "InEngine": False,
    }
    if node and node.key_expiry is not None:
        shown["KeyExpiry"] = format_time(node.key_expiry)
    return shown


def _peer_api(host: Hostinfo | None, ips: Iterable[str]) -> list[str] | None:
    ports = {s.proto: s.port for s in host.services} if host is not None else None
    if not ports:
        return None
    urls = []
    for ip in ips:
        six = ":" in ip
        port = ports.get("peerapi6" if six else "peerapi4")
        if port:
            urls.append(f"http://[{ip}]:{port}" if six else f"http://{ip}:{port}")
    return urls or None
