"""One peer of the status as JSON text, tab-indented as it stands in the whole.

The same bytes as the encoder makes of `meshd.node.status.peer_json`, several times faster: the status of a network of
thousands of peers is asked for by scripts and monitors, and nothing else happens while it is made.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import orjson

from meshd._fast.addresstext import host_texts, quoted_plain
from meshd.base.gotime import ZERO_TIME, format_time

if TYPE_CHECKING:
    from meshd.core.node import Node
    from meshd.node.status import PeerTraffic
    from meshd.wire.control import Hostinfo

_FIELD = ",\n\t\t\t"


def peer_text(node: Node, traffic: PeerTraffic, *, exit_node: bool) -> str:
    """``"nodekey:...": {...}``, at the depth of the members of ``Peer``."""
    host = node.hostinfo
    ips = host_texts(node.addresses)
    key = node.key.text()
    name = node.name
    hostname = (host.hostname if host is not None else "") or node.first_label
    if node.allowed_ips is node.addresses:
        allowed = _list([f'"{ip}/128"' if ":" in ip else f'"{ip}/32"' for ip in ips])
    else:
        allowed = _list([f'"{prefix}"' for prefix in node.allowed_ips])
    optional = f'{_FIELD}"AltSharerUserID": {node.sharer}' if node.sharer else ""
    optional += f'{_FIELD}"AllowedIPs": {allowed}'
    if node.tags:
        optional += f'{_FIELD}"Tags": {_list(map(_quoted, node.tags))}'
    if node.primary_routes:
        optional += f'{_FIELD}"PrimaryRoutes": {_list([f"{chr(34)}{p}{chr(34)}" for p in node.primary_routes])}'
    end = f'{_FIELD}"KeyExpiry": "{format_time(node.key_expiry)}"' if node.key_expiry is not None else ""
    if node.expired:
        end += f'{_FIELD}"Expired": true'
    return f"""\t\t"{key}": {{
\t\t\t"ID": {_quoted(node.stable_id)},
\t\t\t"NodeID": {node.id},
\t\t\t"PublicKey": "{key}",
\t\t\t"HostName": {_quoted(hostname)},
\t\t\t"DNSName": {_quoted(name)},
\t\t\t"OS": {_quoted(host.os) if host is not None else '""'},
\t\t\t"UserID": {node.user},
\t\t\t"TailscaleIPs": {_list([f'"{ip}"' for ip in ips])}{optional},
\t\t\t"Addrs": null,
\t\t\t"CurAddr": {_quoted(traffic.address) if traffic.address else '""'},
\t\t\t"Relay": {_quoted(traffic.relay) if traffic.relay else '""'},
\t\t\t"PeerRelay": "",
\t\t\t"RxBytes": {traffic.rx_bytes},
\t\t\t"TxBytes": {traffic.tx_bytes},
\t\t\t"Created": "{_time(node.created)}",
\t\t\t"LastWrite": "{_time(traffic.last_write)}",
\t\t\t"LastSeen": "{_time(node.last_seen)}",
\t\t\t"LastHandshake": "{_time(traffic.last_handshake)}",
\t\t\t"Online": {_bool(node.online)},
\t\t\t"ExitNode": {_bool(exit_node)},
\t\t\t"ExitNodeOption": {_bool(node.offers_exit)},
\t\t\t"Active": {_bool(traffic.active)},
\t\t\t"PeerAPIURL": {_peer_api(node, ips)},
\t\t\t"TaildropTarget": 0,
\t\t\t"NoFileSharingReason": "",
\t\t\t"InNetworkMap": true,
\t\t\t"InMagicSock": {_bool(traffic.in_magicsock)},
\t\t\t"InEngine": {_bool(traffic.in_engine)}{end}
\t\t}}"""


def _quoted(text: str) -> str:
    return quoted_plain(text) or orjson.dumps(text).decode()


def _time(wall: float | None) -> str:
    return ZERO_TIME if wall is None else format_time(wall)


def _bool(value: bool | None) -> str:
    return "true" if value else "false"


def _list(items: Iterable[str]) -> str:
    joined = ",\n\t\t\t\t".join(items)
    return f"[\n\t\t\t\t{joined}\n\t\t\t]" if joined else "[]"


def peer_api(host: Hostinfo | None, ips: Iterable[str]) -> list[str] | None:
    """Where the peer's own API is, at each of its addresses; None when it has none."""
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


def _peer_api(node: Node, ips: list[str]) -> str:
    urls = peer_api(node.hostinfo, ips)
    return _list(map(_quoted, urls)) if urls else "null"
