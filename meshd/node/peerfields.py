"""What the status says of a peer only when there is something to say."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from meshd.base.gotime import format_time
from meshd.core.node import Node
from meshd.wire.control import Hostinfo, encode

JSON = dict[str, Any]


def capabilities(node: Node) -> JSON:
    """What the server grants a node, sorted; a capability without values has an empty list."""
    return {name: values or [] for name, values in sorted(node.cap_map.items())}


def rare_fields(node: Node) -> JSON:
    """The fields of a peer before ``InNetworkMap``."""
    shown: JSON = {}
    host = node.hostinfo
    if node.cap_map:
        shown["CapMap"] = capabilities(node)
    if host is not None and host.ssh_host_keys:
        shown["sshHostKeys"] = list(host.ssh_host_keys)
    if host is not None and host.sharee_node:
        shown["ShareeNode"] = True
    return shown


def expiry_fields(node: Node) -> JSON:
    """When the key of a node stops working, in whole seconds."""
    shown: JSON = {"Expired": True} if node.expired else {}
    if node.key_expiry is not None:
        shown["KeyExpiry"] = format_time(float(round(node.key_expiry)))
    return shown


def last_fields(node: Node) -> JSON:
    """The fields at the end of a peer. ``Location`` is that of an exit node that is for hire."""
    shown = expiry_fields(node)
    host = node.hostinfo
    if host is not None and host.location is not None:
        shown["Location"] = msgspec.json.decode(encode(host.location))
    return shown


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
