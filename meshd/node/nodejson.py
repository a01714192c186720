"""A node as JSON, in the form control sent it plus the names that clients compute (WhoIs)."""

from __future__ import annotations

import re
from base64 import b64encode
from typing import Any

import msgspec

from meshd.base.gotime import format_time
from meshd.core.netmap import Netmap
from meshd.core.node import Node
from meshd.wire.control import UserProfile, encode

JSON = dict[str, Any]
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
    suffix = netmap.magic_dns_suffix
    own = node_json(netmap.self_node, suffix)
    messages = {name: _wire_json(message) for name, message in netmap.messages.items()}
    return {
        "SelfNode": own,
        "AllCaps": sorted(netmap.self_node.cap_map),
        "MachineKey": netmap.self_node.machine.text() if netmap.self_node.machine else None,
        "DNS": _wire_json(netmap.dns) or {},
        "PacketFilterRules": [_wire_json(rule) for rule in netmap.filter_rules] or None,
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
        "Peers": [node_json(node, suffix) for node in netmap.sorted_peers()],
        "Domain": netmap.domain,
        "UserProfiles": {str(i): user_json(p) for i, p in sorted(netmap.user_profiles.items())},
    }
