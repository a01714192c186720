"""A node as JSON, in the form control sent it plus the names that clients compute (WhoIs)."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Generator, Iterable, Iterator
from functools import cache
from itertools import repeat
from typing import Any

import msgspec

from meshd.base.gotime import format_time
from meshd.core.filtermatches import each_match
from meshd.core.netmap import Netmap
from meshd.core.node import Node
from meshd.core.unsignedpeers import holders_of
from meshd.node.bus import SLICE
from meshd.wire.control import UserProfile, encode

JSON = dict[str, Any]
Work = Generator[None, None, Any]
NO_LOCK_HEAD = "A" * 52  # base32 of the hash that is all zero

_AT_THE_ENDS = re.compile(r"\A[^a-z0-9]+|[^a-z0-9]+\Z")
_SEPARATORS = str.maketrans(" .@_", "----")
_NOT_IN_A_LABEL = re.compile(r"[^a-z0-9-]")


def node_json(node: Node, suffix: str) -> JSON:
    """Zero values are left out, except those that every client expects. ``suffix`` is that of our network's names:
    nodes of others go by their full names."""
    name, name_with_host = _display_names(node, suffix)
    shown: JSON = {
        "ID": node.id,
        "StableID": node.stable_id,
        "Name": node.name,
        "User": node.user,
        "Key": node.key.text(),
        "Addresses": [str(p) for p in node.addresses],
        "AllowedIPs": [str(p) for p in node.allowed_ips],
    }
    optional: JSON = {
        "Sharer": node.sharer,
        "KeyExpiry": format_time(node.key_expiry) if node.key_expiry is not None else None,
        "KeySignature": b64encode(node.key_signature).decode(),
        "Machine": node.machine.text() if node.machine else None,
        "DiscoKey": node.disco_key.text() if node.disco_key else None,
        "Endpoints": [str(e) for e in node.endpoints],
        "HomeDERP": node.home_derp,
        "Hostinfo": _wire_json(node.hostinfo),
        "Created": format_time(node.created) if node.created is not None else None,
        "Cap": node.cap,
        "Tags": list(node.tags),
        "PrimaryRoutes": [str(p) for p in node.primary_routes],
        "LastSeen": format_time(node.last_seen) if node.last_seen is not None else None,
        "MachineAuthorized": node.machine_authorized,
        "CapMap": node.cap_map,
        "UnsignedPeerAPIOnly": node.unsigned_peer_api_only,
        "DataPlaneAuditLogID": node.data_plane_audit_log_id,
        "Expired": node.expired,
        "SelfNodeV4MasqAddrForThisPeer": str(node.masquerade_v4) if node.masquerade_v4 else None,
        "SelfNodeV6MasqAddrForThisPeer": str(node.masquerade_v6) if node.masquerade_v6 else None,
        "IsWireGuardOnly": node.is_wireguard_only,
        "IsJailed": node.is_jailed,
        "ExitNodeDNSResolvers": [_wire_json(resolver) for resolver in node.exit_node_dns_resolvers],
    }
    shown |= {name: value for name, value in optional.items() if value}
    if node.online is not None:
        shown["Online"] = node.online
    return shown | {"ComputedName": name, "ComputedNameWithHost": name_with_host}


def _display_names(node: Node, suffix: str) -> tuple[str, str]:
    """How people know a node, and that with what its machine calls itself where this is something else."""
    name = node.name.rstrip(".")
    if suffix and name.lower().endswith(f".{suffix.lower()}"):
        name = name[: -len(suffix) - 1]
    host = _host_label(node.hostinfo.hostname) if node.hostinfo else ""
    if not name:
        name = host or node.key.text()
    return name, name if host in ("", name.lower()) else f"{name} ({host})"


def _host_label(hostname: str) -> str:
    """The name that a network would give a machine that calls itself so."""
    for ending in (".local", ".localdomain", ".lan"):
        hostname = hostname.removesuffix(ending)
    plain = _AT_THE_ENDS.sub("", hostname[:63].lower())
    return _NOT_IN_A_LABEL.sub("", plain.translate(_SEPARATORS))


def user_json(profile: UserProfile) -> JSON:
    """A user as clients show it."""
    shown: JSON = {"ID": profile.id, "LoginName": profile.login_name, "DisplayName": profile.display_name}
    if profile.profile_pic_url:
        shown["ProfilePicURL"] = profile.profile_pic_url
    if profile.groups:
        shown["Groups"] = list(profile.groups)
    return shown


def _wire_json(value: Any) -> Any:
    return msgspec.json.decode(encode(value)) if value is not None else None


def netmap_json(netmap: Netmap) -> JSON:
    """The network map for programs: self, peers sorted by id, domain, policy. No private key is in it.

    Expiry, MachineStatus and Name are for clients of before 2025; newer ones read them from SelfNode.
    """
    shown: JSON = finished(netmap_work(netmap))
    del shown["PacketFilter"]
    return shown


def netmap_work(netmap: Netmap) -> Work:
    """`netmap_json` with ``PacketFilter``, the filter's rules as they are understood; as of when the work begins."""
    suffix = netmap.magic_dns_suffix
    own = node_json(netmap.self_node, suffix)
    messages = {name: _wire_json(message) for name, message in netmap.messages.items()}
    shown = {
        "SelfNode": own,
        "AllCaps": sorted(netmap.self_node.cap_map),
        "MachineKey": netmap.self_node.machine.text() if netmap.self_node.machine else None,
        "DNS": _wire_json(netmap.dns) or {},
        "PacketFilterRules": None,
        "SSHPolicy": _wire_json(netmap.ssh_policy),
        "CollectServices": netmap.collect_services,
        "DERPMap": _wire_json(netmap.derp_map),
        "DisplayMessages": messages or None,
        "TKAEnabled": bool(netmap.lock_head),
        "TKAHead": netmap.lock_head or NO_LOCK_HEAD,
        "DomainAuditLogID": netmap.data_plane_audit_log_id,
        "NodeKey": netmap.node_key.text(),
        "Expiry": own.get("KeyExpiry", "0001-01-01T00:00:00Z"),
        "Name": netmap.self_node.name,
        "MachineStatus": 2 if netmap.machine_authorized else 1,
        "Peers": [],
        "Domain": netmap.domain,
        "UserProfiles": {str(i): user_json(p) for i, p in sorted(netmap.user_profiles.items())},
        "PacketFilter": [],
    }
    rules, peers = netmap.filter_rules, netmap.sorted_peers()
    weights = [1 + (len(rule.src_ips) >> 2) for rule in rules]  # in nodes, what each rule costs
    shown["PacketFilterRules"] = (yield from _in_slices(map(_wire_json, rules), weights)) or None
    shown["Peers"] = yield from nodes_work(peers, suffix)
    matches = each_match(rules, cache(lambda capability: holders_of(capability, peers)))
    shown["PacketFilter"] = yield from _in_slices(matches, weights)
    return shown


def nodes_work(nodes: Iterable[Node], suffix: str) -> Work:
    """`node_json` of each."""
    return _in_slices((node_json(node, suffix) for node in nodes), repeat(1))


def finished(work: Work) -> Any:
    """What it makes, at once."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def _in_slices(items: Iterator[JSON], weights: Iterable[int]) -> Work:
    """The list of what ``items`` makes, with a pause before a slice becomes heavier than ``SLICE``."""
    made: list[JSON] = []
    done = 0
    for weight in weights:
        if done and done + weight > SLICE:
            done = 0
            yield
        item = next(items, None)
        if item is None:
            break
        made.append(item)
        done += weight
    return made
