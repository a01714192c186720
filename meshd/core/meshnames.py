"""Names that the network itself answers for, and who is asked about all others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from meshd.base.addr import IPAddress, parse_ip
from meshd.core.netmap import Netmap
from meshd.core.node import Node
from meshd.wire.control import DNSConfig, Resolver
from meshd.wire.dnsmessage import AAAA, ANY, NAME_ERROR, PTR, SUCCESS, A, Record, encode_name

TTL_S = 5  # nodes move; nothing is gained by remembering them for long
IPV6_ANSWERS = "magicdns-aaaa"
"""Capability with which nodes that have both kinds of address are found by AAAA too."""


def answer(netmap: Netmap, name: str, kind: int) -> tuple[int, list[Record]] | None:
    """Response code and records for a name of the network, None for all other names."""
    dns = netmap.dns
    wanted = name.rstrip(".").lower()
    if dns is None or not dns.proxied or not wanted:
        return None
    reverse = reverse_address(wanted)
    if reverse is not None:
        node = netmap.node_by_ip(reverse)
        if node is None:
            return (NAME_ERROR, []) if _own_zone(dns, wanted) else None
        pointer = [Record(PTR, TTL_S, encode_name(node.name))] if kind in (PTR, ANY) else []
        return SUCCESS, pointer
    addresses = _addresses(netmap, dns, wanted)
    if addresses is not None:
        types = {4: A, 6: AAAA}
        found = [Record(types[ip.version], TTL_S, ip.packed) for ip in addresses if kind in (types[ip.version], ANY)]
        return SUCCESS, found
    return (NAME_ERROR, []) if _own_zone(dns, wanted) else None


def _addresses(netmap: Netmap, dns: DNSConfig, wanted: str) -> Sequence[IPAddress] | None:
    extra = [r.value for r in dns.extra_records if r.name.rstrip(".").lower() == wanted and r.type in ("", "A", "AAAA")]
    if extra:
        return [ip for text in extra if (ip := _parsed(text)) is not None]
    node = netmap.node_by_name(wanted) if "." in wanted else None
    return _shown(netmap, node) if node is not None else None


def _shown(netmap: Netmap, node: Node) -> Sequence[IPAddress]:
    """Programs that get both kinds try IPv6 first, which gains them nothing: it is told where there is no other."""
    old = [ip for ip in node.ips if ip.version == 4]
    return old if old and not netmap.self_node.has_cap(IPV6_ANSWERS) else node.ips


def _parsed(text: str) -> IPAddress | None:
    try:
        return parse_ip(text)
    except ValueError:
        return None


def _own_zone(dns: DNSConfig, wanted: str) -> bool:
    zones = [suffix for suffix, resolvers in dns.routes.items() if not resolvers]
    return any(_within(wanted, zone) for zone in (*zones, *dns.domains))


def _within(name: str, suffix: str) -> bool:
    zone = suffix.strip(".").lower()
    return bool(zone) and (name == zone or name.endswith("." + zone))


def reverse_address(name: str) -> IPAddress | None:
    """The address that a name below in-addr.arpa or ip6.arpa stands for, None for any other name."""
    labels = name.rstrip(".").lower().split(".")
    if labels[4:] == ["in-addr", "arpa"]:
        return _parsed(".".join(reversed(labels[:4])))
    if labels[32:] == ["ip6", "arpa"]:
        digits = [*reversed(labels[:32])]
        return _parsed(":".join("".join(digits[i : i + 4]) for i in range(0, 32, 4)))
    return None


def resolvers_for(dns: DNSConfig | None, name: str, system: Iterable[str]) -> list[Resolver]:
    """Who is asked about a name: those of the longest matching suffix, else the network's, else the system's."""
    wanted = name.rstrip(".").lower()
    if dns is not None:
        routes = [(suffix, chosen) for suffix, chosen in dns.routes.items() if chosen and _within(wanted, suffix)]
        if routes:
            return list(max(routes, key=lambda route: len(route[0].strip(".")))[1])
        if dns.resolvers:
            return list(dns.resolvers)
    return [Resolver(addr=address) for address in system]
