"""What nodes tell of themselves, in the one spelling that is compared, stored and passed on.

A peer that cannot read one value throws its whole map away, so nothing unreadable may get in. Keys have one spelling,
because nodes are found by the text of their key.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv6Address
from itertools import islice
from typing import Any

import msgspec

from meshd.base.addr import AddrPort, parse_prefix
from meshd.base.keys import DiscoPublic, MachinePublic, NodePublic
from meshd.coord.records import NodeRecord
from meshd.wire.control import Hostinfo, Location, MapRequest, NetInfo, RegisterRequest

MAX_ENDPOINTS = 64
"""More than any machine has; the rest only costs every peer's memory."""
MAX_INT = 2**31 - 1
"""Largest number that clients on 32-bit machines read."""
MAX_REGION = 65535
"""Clients keep a relay's region where other paths have a port."""


def usual_register(request: RegisterRequest) -> RegisterRequest:
    """The request with its keys in their usual spelling."""
    return msgspec.structs.replace(
        request,
        node_key=NodePublic.parse(request.node_key).text(),
        old_node_key=NodePublic.parse(request.old_node_key).text(),
    )


def usual_map(request: MapRequest) -> MapRequest:
    """The request with its keys in their usual spelling."""
    return msgspec.structs.replace(
        request,
        node_key=NodePublic.parse(request.node_key).text(),
        disco_key=DiscoPublic.parse(request.disco_key).text(),
    )


def usable_endpoints(endpoints: Iterable[str]) -> tuple[str, ...]:
    """Endpoints that peers can use: readable, no zones, no link-local IPv6."""
    return tuple(islice(_endpoints(endpoints), MAX_ENDPOINTS))


def _endpoints(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        try:
            endpoint = AddrPort.parse(text)
        except ValueError:
            continue
        if not (isinstance(endpoint.ip, IPv6Address) and endpoint.ip.is_link_local):
            yield str(endpoint)


def usable_routes(routes: Iterable[str]) -> tuple[str, ...]:
    """Routes that everybody understands, each once: readable, no host bits."""
    return tuple(dict.fromkeys(_routes(routes)))


def _routes(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        try:
            yield str(parse_prefix(text))
        except ValueError:
            continue


def usable_hostinfo(info: Hostinfo) -> Hostinfo:
    """Host information without what some peer could not read."""
    routes = usable_routes(info.routable_ips)
    net_info = _usable_net_info(info.net_info)
    location = _usable_location(info.location)
    if routes == info.routable_ips and net_info is info.net_info and location is info.location:
        return info
    return msgspec.structs.replace(info, routable_ips=routes, net_info=net_info, location=location)


def _usable_net_info(info: NetInfo | None) -> NetInfo | None:
    if info is None or 0 <= info.preferred_derp <= MAX_REGION:
        return info
    return msgspec.structs.replace(info, preferred_derp=0)


def _usable_location(location: Location | None) -> Location | None:
    if location is None or abs(location.priority) <= MAX_INT:
        return location
    return msgspec.structs.replace(location, priority=0)


def usable_node(node: NodeRecord) -> NodeRecord:
    """A stored node as it would come in today: older servers stored what they were told."""
    endpoints = usable_endpoints(node.endpoints)
    changes: dict[str, Any] = {
        "node_key": NodePublic.parse(node.node_key).text(),
        "machine_key": MachinePublic.parse(node.machine_key).text(),
        "disco_key": DiscoPublic.parse(node.disco_key).text(),
        "hostinfo": usable_hostinfo(node.hostinfo),
        "endpoints": endpoints,
        "endpoint_types": node.endpoint_types if len(endpoints) == len(node.endpoints) else (),
        "version": min(node.version, MAX_INT),
        "approved_routes": usable_routes(node.approved_routes),
    }
    return msgspec.structs.replace(node, **changes)


def one_per_key(stored: Iterable[NodeRecord]) -> tuple[list[NodeRecord], list[NodeRecord]]:
    """Stored nodes as they would come in today, and those left out because their key is another node's.

    Only a forger writes a key in unusual spelling, so the node that has it in the usual one stays.
    """
    kept: dict[str, tuple[bool, NodeRecord]] = {}
    doubles: list[NodeRecord] = []
    for node in stored:
        usual = usable_node(node)
        entry = usual.node_key == node.node_key, usual
        other = kept.get(usual.node_key)
        if other is not None and (other[0] or not entry[0]):
            doubles.append(usual)
            continue
        if other is not None:
            doubles.append(other[1])
        kept[usual.node_key] = entry
    return sorted((node for _, node in kept.values()), key=lambda node: node.id), doubles
