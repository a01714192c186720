"""The status of the node as JSON, for ``mesh status`` and everything that reads the same route."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from meshd.base.addr import format_ip
from meshd.base.gotime import ZERO_TIME, format_time
from meshd.core.netmap import Netmap
from meshd.core.node import Node
from meshd.core.prefs import Prefs
from meshd.core.state import State
from meshd.node.bus import SLICE
from meshd.node.nodejson import user_json
from meshd.node.peerfields import capabilities, expiry_fields, last_fields, peer_api, rare_fields
from meshd.node.peertext import peer_text
from meshd.wire.control import ClientVersion

JSON = dict[str, Any]
_CAPABILITIES_NOTE = (
    "HTTPS://TAILSCALE.COM/s/DEPRECATED-NODE-CAPS#see-https://github.com/tailscale/tailscale/issues/11508"
)
"""First in the list of capabilities, so that programs that still read it learn to read CapMap."""
_ROUTES_UNUSED = "Some peers are advertising routes but --accept-routes is false"


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
    """Everything a status is made of. ``in_map_poll``: the coordination server can reach us at this moment."""

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
    client_version: ClientVersion | None
    in_map_poll: bool
    host_name: str
    traffic: Callable[[Node], PeerTraffic]


def status_parts(snapshot: Snapshot) -> tuple[JSON, Iterator[str]]:
    """The status object with an empty ``Peer``, and the members of that, each as indented text.

    The peers are those of now; what tunnels and paths know of each is asked for when it is its turn.
    """
    netmap = snapshot.netmap
    status = status_json(snapshot, peers=False)
    if netmap is None:
        return status, iter(())
    shown = list(netmap.peers.values())
    status["Peer"] = {}
    status["User"] = users_json(netmap, [netmap.self_node, *shown])
    chosen, traffic = snapshot.prefs.exit_node_id, snapshot.traffic
    return status, (peer_text(node, traffic(node), exit_node=node.stable_id == chosen) for node in shown)


def status_work(snapshot: Snapshot) -> Generator[None, None, JSON]:
    """`status_json` in slices: the peers are those of now, with what is known of each when it is its turn."""
    status = status_json(snapshot, peers=False)
    if snapshot.netmap is not None:
        shown = list(snapshot.netmap.peers.values())
        status["User"] = users_json(snapshot.netmap, [snapshot.netmap.self_node, *shown])
        peers: JSON = {}
        status["Peer"] = peers
        for start in range(0, len(shown), SLICE):
            if start:
                yield
            peers.update((node.key.text(), peer_json(snapshot, node)) for node in shown[start : start + SLICE])
    return status


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
        "Health": _health(snapshot),
        "MagicDNSSuffix": suffix,
        "CurrentTailnet": _tailnet(netmap, suffix),
        "CertDomains": list(netmap.dns.cert_domains) if netmap and netmap.dns and netmap.dns.cert_domains else None,
        "ExtraRecords": _extra_records(netmap),
        "Peer": None,
        "User": None,
        "ClientVersion": _client_version(snapshot),
    }
    if not snapshot.has_node_key:
        del status["HaveNodeKey"]
    exit_node = _exit_node(snapshot)
    if exit_node:
        status["ExitNodeStatus"] = exit_node
    if netmap is not None:
        shown = list(netmap.peers.values()) if peers else []
        if peers:
            status["Peer"] = {node.key.text(): peer_json(snapshot, node) for node in shown}
        status["User"] = users_json(netmap, [netmap.self_node, *shown])
    return status


def users_json(netmap: Netmap, nodes: Iterable[Node]) -> JSON:
    """The profiles of everybody who owns or shares one of ``nodes``, by user id."""
    wanted = {user for node in nodes for user in (node.user, node.sharer) if user}
    return {str(user): user_json(netmap.user_profiles[user]) for user in sorted(wanted) if user in netmap.user_profiles}


def _extra_records(netmap: Netmap | None) -> list[JSON] | None:
    """Names that the network serves beside those of its nodes."""
    if netmap is None or netmap.dns is None or not netmap.dns.extra_records:
        return None
    return [msgspec.to_builtins(record) for record in netmap.dns.extra_records]


def _ips(node: Node) -> list[str]:
    return [format_ip(ip) for ip in node.ips]


def _health(snapshot: Snapshot) -> list[str]:
    """The problems of the node, and what only a status tells: routes that others offer and we do not take."""
    netmap = snapshot.netmap
    unused = (
        netmap is not None
        and not snapshot.prefs.route_all
        and any(node.primary_routes for node in netmap.peers.values())
    )
    return [*snapshot.health, *([_ROUTES_UNUSED] if unused else [])]


def _client_version(snapshot: Snapshot) -> JSON | None:
    """LK-14: news of releases, for those who want them."""
    if snapshot.client_version is None or not snapshot.prefs.auto_update.check:
        return None
    built: JSON = msgspec.to_builtins(snapshot.client_version)
    return built


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
        return None
    return {"ID": chosen, "Online": bool(node.online), "TailscaleIPs": [str(p) for p in node.addresses]}


def _self(snapshot: Snapshot) -> JSON:
    netmap = snapshot.netmap
    node = netmap.self_node if netmap is not None else None
    rare: JSON = {}
    if node is not None and node.cap_map:
        rare = {"Capabilities": [_CAPABILITIES_NOTE, *sorted(node.cap_map)], "CapMap": capabilities(node)}
    shown = _base(node, PeerTraffic(relay=snapshot.own_relay if node else ""), exit_node=False, rare=rare)
    shown["Addrs"] = snapshot.own_endpoints or None
    shown["Online"] = snapshot.in_map_poll
    shown["OS"] = sys.platform  # servers need not repeat what we told them
    if node is None:
        return shown | {"HostName": snapshot.host_name}
    shown["InNetworkMap"] = True
    return shown | expiry_fields(node)


def peer_json(snapshot: Snapshot, node: Node) -> JSON:
    """One peer."""
    traffic = snapshot.traffic(node)
    shown = _base(node, traffic, exit_node=node.stable_id == snapshot.prefs.exit_node_id, rare=rare_fields(node))
    shown["InNetworkMap"] = True
    shown["InMagicSock"] = traffic.in_magicsock
    shown["InEngine"] = traffic.in_engine
    return shown | last_fields(node)


def _base(node: Node | None, traffic: PeerTraffic, *, exit_node: bool, rare: JSON) -> JSON:
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
        "PeerAPIURL": peer_api(host, ips or ()),
        "TaildropTarget": 0,
        "NoFileSharingReason": "",
        **rare,
        "InNetworkMap": False,
        "InMagicSock": False,
        "InEngine": False,
    }
    return shown
