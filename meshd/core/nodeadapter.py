"""The wire form of a node and the checked form, both ways, and the checks a node must pass on its own.

What depends on other nodes (two with one key, two with one address) is `meshd.core.admission`'s business.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from ipaddress import IPv4Address
from typing import Any

from meshd._fast.addresstext import host_of, host_texts
from meshd.base.addr import AddrPort, IPAddress, IPPrefix, host_prefix, parse_ip, parse_prefix, usual_node_prefixes
from meshd.base.errors import WireError
from meshd.base.gotime import format_time, parse_time
from meshd.base.keys import DiscoPublic, MachinePublic, NodePublic
from meshd.base.ranges import CGNAT, DERP_MAGIC_IP, SERVICE_V4, SERVICE_V6, ULA
from meshd.core.node import Node
from meshd.wire.control import ZERO_MACHINE_KEY, ZERO_TIME, CapMap, CheckedNode, PeerChange
from meshd.wire.control import Node as WireNode

MAX_ADDRESSES = 16  # a node has one of each family; services add a few
MAX_ALLOWED_IPS = 16_384  # app connectors, and routers to the networks of a cloud, advertise thousands of routes
MAX_ENDPOINTS = 64  # more than an honest host has; each is probed
_OF_A_ROUTE = "its route "
MAX_NAME = 254  # a DNS name with its trailing dot

_RESERVED = frozenset(map(int, (SERVICE_V4, SERVICE_V6, DERP_MAGIC_IP)))
_WIDTH = {4: 32, 6: 128}
_SHIFT = {4: 32 - CGNAT.prefixlen, 6: 128 - ULA.prefixlen}
_NODE_RANGE = {4: int(CGNAT.network_address) >> _SHIFT[4], 6: int(ULA.network_address) >> _SHIFT[6]}


class Unacceptable(Exception):
    """A node that is well-formed JSON and still nonsense. The text is the reason shown in status."""


def node_from_wire(wire: WireNode, notes: list[str] | None = None) -> Node:
    """The checked form. Raises `Unacceptable`, or WireError for text that no server may send.

    Parts that can be left out without harm (endpoints and routes beyond the limits, routes into loopback or multicast
    space or with host bits set) are left out and described in ``notes``.
    """
    if notes is None:
        notes = []
    if wire.id <= 0:
        raise Unacceptable(f"its id is {wire.id}")
    if len(wire.name) > MAX_NAME or not wire.name.isprintable():
        raise Unacceptable("its name is not a DNS name")
    try:
        return _build(wire, notes)
    except WireError:
        raise
    except ValueError as error:
        raise WireError(f"node {wire.id}: {error}") from None


def _build(wire: WireNode, notes: list[str]) -> Node:
    addresses = _addresses(wire.addresses)
    same = wire.allowed_ips is None or wire.unsigned_peer_api_only or wire.allowed_ips == wire.addresses
    allowed = addresses if same else _routes(wire.allowed_ips or (), addresses, notes)
    return Node(
        id=wire.id,
        stable_id=wire.stable_id,
        name=wire.name,
        user=wire.user,
        sharer=wire.sharer,
        key=NodePublic.parse(wire.key),
        key_expiry=_time(wire.key_expiry),
        key_signature=wire.key_signature,
        machine=_machine(wire.machine),
        disco_key=parse_disco(wire.disco_key),
        addresses=addresses,
        allowed_ips=allowed,
        endpoints=parse_endpoints(wire.endpoints, notes),
        home_derp=wire.home_derp or _legacy_derp(wire.derp),
        hostinfo=wire.hostinfo,
        created=_time(wire.created),
        cap=wire.cap,
        tags=wire.tags,
        primary_routes=tuple(_primary_routes(wire.primary_routes)),
        last_seen=_time(wire.last_seen) if wire.last_seen is not None else None,
        online=wire.online,
        machine_authorized=wire.machine_authorized,
        cap_map=_cap_map(wire.cap_map, wire.capabilities) if wire.capabilities else wire.cap_map,
        unsigned_peer_api_only=wire.unsigned_peer_api_only,
        data_plane_audit_log_id=wire.data_plane_audit_log_id,
        expired=wire.expired,
        masquerade_v4=_masquerade(wire.self_node_v4_masq_addr_for_this_peer, 4),
        masquerade_v6=_masquerade(wire.self_node_v6_masq_addr_for_this_peer, 6),
        is_wireguard_only=wire.is_wireguard_only,
        is_jailed=wire.is_jailed,
        exit_node_dns_resolvers=wire.exit_node_dns_resolvers,
    )


def node_to_wire(node: Node, endpoints: Iterable[AddrPort]) -> WireNode:
    """The wire form that `node_from_wire` makes the same node of, with these endpoints."""
    addresses = host_texts(node.addresses)
    return CheckedNode(
        id=node.id,
        stable_id=node.stable_id,
        name=node.name,
        user=node.user,
        sharer=node.sharer,
        key=node.key.text(),
        key_expiry=format_time(node.key_expiry),
        key_signature=node.key_signature,
        machine=node.machine.text() if node.machine is not None else ZERO_MACHINE_KEY,
        disco_key=(node.disco_key or DiscoPublic.zero()).text(),
        addresses=tuple([f"{text}/128" if ":" in text else f"{text}/32" for text in addresses]),
        allowed_ips=None if node.allowed_ips is node.addresses else tuple(map(str, node.allowed_ips)),
        endpoints=tuple(map(str, endpoints)),
        home_derp=node.home_derp,
        hostinfo=node.hostinfo,
        created=format_time(node.created),
        cap=node.cap,
        tags=node.tags,
        primary_routes=tuple(map(str, node.primary_routes)),
        last_seen=format_time(node.last_seen) if node.last_seen is not None else None,
        online=node.online,
        machine_authorized=node.machine_authorized,
        cap_map=node.cap_map,
        unsigned_peer_api_only=node.unsigned_peer_api_only,
        data_plane_audit_log_id=node.data_plane_audit_log_id,
        expired=node.expired,
        self_node_v4_masq_addr_for_this_peer=str(node.masquerade_v4) if node.masquerade_v4 else None,
        self_node_v6_masq_addr_for_this_peer=str(node.masquerade_v6) if node.masquerade_v6 else None,
        is_wireguard_only=node.is_wireguard_only,
        is_jailed=node.is_jailed,
        exit_node_dns_resolvers=node.exit_node_dns_resolvers,
    )


def patch_fields(change: PeerChange, notes: list[str]) -> dict[str, Any]:
    """The `Node` fields that a patch sets; absent and null leave a field out, present-empty clears it."""
    fields: dict[str, Any] = {}
    try:
        if change.endpoints is not None:
            fields["endpoints"] = parse_endpoints(change.endpoints, notes)
        if change.derp_region:
            fields["home_derp"] = change.derp_region
        if change.cap:
            fields["cap"] = change.cap
        if change.cap_map is not None:
            fields["cap_map"] = change.cap_map
        if change.key is not None:
            fields["key"] = NodePublic.parse(change.key)
        if change.key_signature is not None:
            fields["key_signature"] = change.key_signature
        if change.disco_key is not None:
            fields["disco_key"] = parse_disco(change.disco_key)
        if change.online is not None:
            fields["online"] = change.online
        if change.last_seen is not None:
            fields["last_seen"] = parse_time(change.last_seen)
        if change.key_expiry is not None:
            fields["key_expiry"] = parse_time(change.key_expiry)
    except ValueError as error:
        raise WireError(f"patch of node {change.node_id}: {error}") from None
    return fields


def notes_after_patch(before: Sequence[str], fields: Mapping[str, Any], notes: Sequence[str]) -> Sequence[str]:
    """What is to be said of a node after a patch that sets these fields; a patch has something to say of endpoints
    only."""
    if "endpoints" not in fields:
        return before
    return [*(note for note in before if note.startswith(_OF_A_ROUTE)), *notes]


def parse_endpoints(texts: Sequence[str], notes: list[str]) -> tuple[AddrPort, ...]:
    """The first `MAX_ENDPOINTS` usable ones."""
    if len(texts) > MAX_ENDPOINTS:
        notes.append(f"it has {len(texts)} endpoints, the first {MAX_ENDPOINTS} are used")
        texts = texts[:MAX_ENDPOINTS]
    usual = AddrPort.usual(tuple(texts))
    if usual is not None:
        return usual
    found = []
    for text in filter(None, texts):
        try:
            endpoint = AddrPort.parse(text)
        except ValueError:  # a zone: meaningful on the peer's own link only
            shown = "".join(c if c.isprintable() else "?" for c in text[:80])
            notes.append(f"its endpoint {shown} cannot be sent to")
            continue
        if endpoint.port == 0 or _is_nowhere(endpoint.ip):
            notes.append(f"its endpoint {text} cannot be sent to")
        else:
            found.append(endpoint)
    return tuple(found)


def _is_nowhere(ip: IPAddress) -> bool:
    """Multicast or unspecified."""
    number = int(ip)
    return not number or (number >> 28 == 0xE if ip.version == 4 else number >> 120 == 0xFF)


def parse_disco(text: str) -> DiscoPublic | None:
    """None for the all-zero key."""
    key = DiscoPublic.parse(text)
    return None if key.is_zero else key


def _addresses(texts: Sequence[str]) -> tuple[IPPrefix, ...]:
    if len(texts) > MAX_ADDRESSES:
        raise Unacceptable(f"it has {len(texts)} addresses")
    usual = usual_node_prefixes(tuple(texts))
    if usual is not None:
        return usual
    prefixes = []
    for text in filter(None, texts):
        host = host_of(text)
        prefix = host_prefix(host) if host is not None else _prefix(text)
        if prefix in prefixes:
            continue  # said twice
        prefixes.append(prefix)
        address, version = prefix.network_address, 4 if type(host) is IPv4Address else prefix.version
        number = int(address)
        if host is None and prefix.prefixlen != _WIDTH[version]:
            raise Unacceptable(f"its address {prefix} is not a single address")
        if number in _RESERVED:
            raise Unacceptable(f"its address {address} is reserved")
        if number >> _SHIFT[version] == _NODE_RANGE[version]:
            continue
        special = address.is_loopback or address.is_multicast or address.is_unspecified or address.is_link_local
        if special or _is_mapped(prefix):
            raise Unacceptable(f"its address {address} belongs to no node")
    return tuple(prefixes)


def _routes(texts: Sequence[str], own: tuple[IPPrefix, ...], notes: list[str]) -> tuple[IPPrefix, ...]:
    if len(texts) > MAX_ALLOWED_IPS:
        notes.append(f"{_OF_A_ROUTE}number {MAX_ALLOWED_IPS + 1} and those after it are too many")
        needed = {"0.0.0.0/0", "::/0", *map(str, own)}
        texts = (*texts[:MAX_ALLOWED_IPS], *(text for text in texts[MAX_ALLOWED_IPS:] if text in needed))
    found: dict[IPPrefix, None] = {}
    for text in filter(None, texts):
        try:
            prefix = _prefix(text)
        except Unacceptable:  # a route that nobody can have meant; the peer is reached by its others
            notes.append(f"{_OF_A_ROUTE}{text} has host bits set")
            continue
        address = prefix.network_address
        special = address.is_loopback or address.is_multicast or _is_mapped(prefix)
        if prefix.prefixlen and prefix not in own and special:
            notes.append(f"{_OF_A_ROUTE}{prefix} is not routable")
        else:
            found[prefix] = None
    return tuple(found)


def _primary_routes(texts: Sequence[str]) -> Iterator[IPPrefix]:
    """Those that are routes. The others are among the allowed ones as well, and told there."""
    for text in filter(None, texts):
        with suppress(Unacceptable):
            yield _prefix(text)


def _is_mapped(prefix: IPPrefix) -> bool:
    """Whether it is a way to write IPv4 (RFC 4291 2.5.5.2), which no packet has."""
    return prefix.version == 6 and prefix.prefixlen >= 96 and int(prefix.network_address) >> 32 == 0xFFFF


def _masquerade(text: str | None, version: int) -> IPAddress | None:
    """An address by which a peer knows us."""
    if not text:
        return None
    try:
        address = parse_ip(text)
    except ValueError as error:
        raise Unacceptable(f"it knows us by an address that is none: {error}") from None
    if address.version != version:
        raise Unacceptable(f"it knows us by {address}, which is not IPv{version}")
    return address


def _prefix(text: str) -> IPPrefix:
    try:
        return parse_prefix(text)
    except ValueError as error:
        if "host bits" in str(error):
            raise Unacceptable(f"its prefix {text} has host bits set") from None
        raise


def _time(text: str) -> float | None:
    return None if text == ZERO_TIME else parse_time(text)


def _machine(text: str) -> MachinePublic | None:
    return None if text == ZERO_MACHINE_KEY else MachinePublic.parse(text)


def _cap_map(cap_map: CapMap, names: Iterable[str]) -> CapMap:
    merged = dict(cap_map)
    for name in names:
        merged.setdefault(name, None)
    return merged


def _legacy_derp(text: str | None) -> int:
    """``127.3.3.40:<region>``; anything else is 0, unknown."""
    if not text:
        return 0
    try:
        address = AddrPort.parse(text)
    except ValueError:
        return 0
    return address.port if address.ip == DERP_MAGIC_IP else 0
