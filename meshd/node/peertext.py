"""One peer of the status as JSON text, tab-indented as it stands in the whole.

The same bytes as the encoder makes of `meshd.node.status.peer_json`, several times faster: the status of a network of
thousands of peers is asked for by scripts and monitors, and nothing else happens while it is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import orjson

from meshd._fast.addresstext import host_texts, quoted_plain
from meshd.base.gotime import ZERO_TIME, format_time
from meshd.node.peerfields import last_fields, peer_api, rare_fields

if TYPE_CHECKING:
    from meshd.core.node import Node
    from meshd.node.status import PeerTraffic

JSON = dict[str, Any]
_FIELD = ",\n\t\t\t"
_INDENT = re.compile("^ +", re.MULTILINE)


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
    rare, last = _members(rare_fields(node)), _members(last_fields(node))
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
\t\t\t"NoFileSharingReason": ""{rare},
\t\t\t"InNetworkMap": true,
\t\t\t"InMagicSock": {_bool(traffic.in_magicsock)},
\t\t\t"InEngine": {_bool(traffic.in_engine)}{last}
\t\t}}"""


def _members(fields: JSON) -> str:
    return "".join([f'{_FIELD}"{name}": {_indented(value)}' for name, value in fields.items()]) if fields else ""


def _indented(value: object) -> str:
    text = orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    return _INDENT.sub(lambda found: "\t" * (len(found[0]) // 2), text).replace("\n", "\n\t\t\t")


def _quoted(text: str) -> str:
    return quoted_plain(text) or orjson.dumps(text).decode()


def _time(wall: float | None) -> str:
    return ZERO_TIME if wall is None else format_time(wall)


def _bool(value: bool | None) -> str:
    return "true" if value else "false"


def _list(items: Iterable[str]) -> str:
    joined = ",\n\t\t\t\t".join(items)
    return f"[\n\t\t\t\t{joined}\n\t\t\t]" if joined else "[]"


def _peer_api(node: Node, ips: list[str]) -> str:
    urls = peer_api(node.hostinfo, ips)
    return _list(map(_quoted, urls)) if urls else "null"
