"""The guard for peers that tailnet lock does not cover."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from meshd.base.addr import IPAddress, parse_ip, parse_prefix
from meshd.core.node import Node
from meshd.wire.control import FilterRule


def admits_unsigned(rules: Iterable[FilterRule], unsigned: Sequence[Node]) -> bool:
    """Whether any rule has a peer that is not covered by tailnet lock among its sources.

    Such peers may only be reached, never reach us; a filter that lets one in is not to be trusted at all. Rules that
    lead nowhere, and only grant capabilities, let nobody in.
    """
    if not unsigned:
        return False
    for rule in rules:
        if not rule.dst_ports:
            continue
        for source in rule.src_ips:
            if any(_matches(source, node) for node in unsigned):
                return True
    return False


def _matches(source: str, node: Node) -> bool:
    if source == "*":
        return bool(node.addresses)
    if source.startswith("cap:"):
        return node.has_cap(source[4:])
    try:
        if "/" in source:
            prefix = parse_prefix(source)
            return any(ip.version == prefix.version and ip in prefix for ip in node.ips)
        first, dash, last = source.partition("-")
        low = parse_ip(first)
        high = parse_ip(last) if dash else low
    except ValueError:
        return False  # an item that cannot be parsed matches nothing in the compiled filter either
    return any(_between(low, ip, high) for ip in node.ips)


def _between(low: IPAddress, ip: IPAddress, high: IPAddress) -> bool:
    return low.version == ip.version == high.version and int(low) <= int(ip) <= int(high)
