"""Who answers DNS questions of this node: its own names, resolvers for some suffixes, resolvers for all the rest.

A pure decision from what the network says and the user wants.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from meshd.base.addr import IPAddress, parse_ip
from meshd.core.netmap import Netmap
from meshd.core.node import Node
from meshd.core.prefs import Prefs
from meshd.wire.control import DNSConfig, Resolver

_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
_ULA_ZONE = "0.e.1.a.c.5.1.1.a.7.d.f.ip6.arpa"
_CGNAT_ZONES = tuple(f"{number}.100.in-addr.arpa" for number in range(64, 128))
_DOH_CAPABILITY = 26
"""Peers of this capability version and later answer DNS questions of those who use them as exit node."""
_DOH_SERVICE = "peerapi-dns-proxy"
_ADDRESS_TYPES = ("", "A", "AAAA")

Resolvers = tuple[Resolver, ...]


class DNSPlan(msgspec.Struct, frozen=True):
    """``routes``: suffix, lower case and without dots at its ends, to resolvers; none stands for our own answer.
    ``records`` are the network's additional names. ``search`` are suffixes for short names. ``unrouted`` is the suffix
    of the nodes' names where no route says that we answer them and we do all the same: MagicDNS is off."""

    records: dict[str, tuple[IPAddress, ...]] = msgspec.field(default_factory=dict)
    routes: dict[str, Resolvers] = msgspec.field(default_factory=dict)
    defaults: Resolvers = ()
    search: tuple[str, ...] = ()
    unrouted: str = ""
    accepted: bool = False  # the user lets the network decide
    only_ipv6: bool = False  # this node has no IPv4 address in the network

    @property
    def resolves(self) -> bool:
        """Whether there is anybody to be asked about names: resolvers, or ourselves about those of the network."""
        return bool(self.routes or self.defaults or (self.accepted and self.records))

    def resolvers_for(self, name: str, system: Iterable[str]) -> list[Resolver]:
        """Who is asked about a name that is not ours: those of the longest suffix, else ``defaults``, else the
        system's resolvers."""
        wanted = normal(name)
        found = [suffix for suffix, chosen in self.routes.items() if chosen and within(wanted, suffix)]
        if found:
            return list(self.routes[max(found, key=len)])
        return list(self.defaults) or [Resolver(addr=address) for address in system]


def dns_plan(netmap: Netmap | None, prefs: Prefs) -> DNSPlan:
    """DN-01 to DN-08. A node whose key expired gets an empty plan: it could not reach the resolvers."""
    if netmap is None or netmap.self_node.expired:
        return DNSPlan()
    dns = netmap.dns or DNSConfig()
    records = _records(dns)
    versions = {ip.version for ip in netmap.self_node.ips}
    if not prefs.corp_dns:
        return DNSPlan(records, only_ipv6=versions == {6})
    exit_node = _exit_node(netmap, prefs)
    proxy = _dns_proxy(netmap.self_node, exit_node) if exit_node is not None else ""
    defaults: Resolvers
    if proxy:
        # All questions leave by the exit node, but for resolvers that are meant to be asked even so.
        routes = {suffix: _with_exit_node(chosen or ()) for suffix, chosen in dns.routes.items()}
        split = {suffix: kept for suffix, kept in routes.items() if kept or not dns.routes[suffix]}
        defaults = _with_exit_node(dns.resolvers) or (Resolver(addr=proxy),)
    else:
        split = {suffix: chosen or () for suffix, chosen in dns.routes.items()}
        defaults = dns.resolvers
        if not defaults and exit_node is not None and exit_node.is_wireguard_only:
            defaults = exit_node.exit_node_dns_resolvers
        if not defaults and prefs.exit_node_id:
            defaults = dns.fallback_resolvers  # those of the local network are out of reach
    own = dict.fromkeys(own_zones(netmap), ()) if dns.proxied else {}
    return DNSPlan(
        records=records,
        routes={**own, **{zone: chosen for suffix, chosen in split.items() if (zone := told(suffix))}},
        defaults=defaults,
        search=tuple(filter(None, map(told, dns.domains))),
        unrouted="" if dns.proxied else told(netmap.magic_dns_suffix),
        accepted=True,
        only_ipv6=versions == {6},
    )


def own_zones(netmap: Netmap) -> tuple[str, ...]:
    """The suffixes under which the network's nodes are found, by name and by address (DN-04)."""
    suffix = told(netmap.magic_dns_suffix)
    return (suffix, _ULA_ZONE, *_CGNAT_ZONES) if suffix else ()


def may_be_asked_for_others(dns: DNSConfig | None, name: str) -> bool:
    """Whether an exit node answers others' questions about a name (DN-10)."""
    if dns is None:
        return False
    wanted = normal(name)
    return not any(
        within(wanted, entry) if entry.startswith(".") else wanted == normal(entry)
        for entry in dns.exit_node_filtered_set
        if entry
    )


def peer_api_base(own: Node, peer: Node) -> str:
    """The URL at which we reach a peer's PeerAPI, "" when it has none for a kind of address that we have."""
    ports = {s.proto: s.port for s in peer.hostinfo.services} if peer.hostinfo is not None else {}
    for version in (4, 6):
        port = ports.get(f"peerapi{version}", 0)
        address = next((ip for ip in peer.ips if ip.version == version), None)
        if port and address is not None and any(ip.version == version for ip in own.ips):
            return f"http://{address}:{port}" if version == 4 else f"http://[{address}]:{port}"
    return ""


def normal(name: str) -> str:
    """A name in lower case, without dots at its ends."""
    return name.strip(".").lower()


def told(name: str) -> str:
    """A normal name that may be told to the operating system, empty for any other: it goes into files and messages of
    root's, where a space or the end of a line is not a part of it."""
    plain = normal(name)
    return plain if _NAME.fullmatch(plain) else ""


def within(name: str, suffix: str) -> bool:
    """Whether a normal name is the suffix or ends in it."""
    zone = normal(suffix)
    return bool(zone) and (name == zone or name.endswith("." + zone))


def _records(dns: DNSConfig) -> dict[str, tuple[IPAddress, ...]]:
    found: dict[str, tuple[IPAddress, ...]] = {}
    for record in dns.extra_records:
        name = normal(record.name)
        if name and record.type in _ADDRESS_TYPES:
            try:
                address = parse_ip(record.value)
            except ValueError:
                continue
            found[name] = (*found.get(name, ()), address)
    return found


def _exit_node(netmap: Netmap, prefs: Prefs) -> Node | None:
    if not prefs.exit_node_id:
        return None
    return next((peer for peer in netmap.peers.values() if peer.stable_id == prefs.exit_node_id), None)


def _dns_proxy(own: Node, peer: Node) -> str:
    """The URL of the exit node's resolver, "" when it has none."""
    services = peer.hostinfo.services if peer.hostinfo is not None else ()
    able = peer.cap >= _DOH_CAPABILITY or any(s.proto == _DOH_SERVICE and s.port >= 1 for s in services)
    base = peer_api_base(own, peer) if able else ""
    return f"{base}/dns-query" if base else ""


def _with_exit_node(resolvers: Resolvers) -> Resolvers:
    return tuple(resolver for resolver in resolvers if resolver.use_with_exit_node)
