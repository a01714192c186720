"""What the packet filter's capability grants let a source do at our addresses (NM-07)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from meshd.base.addr import IPAddress, IPPrefix, parse_ip, parse_prefix
from meshd.core.filterprogram import has_bits
from meshd.core.node import Node
from meshd.wire.control import FilterRule

INGRESS = "https://tailscale.com/cap/ingress"
"""What nodes need that pass on connections from the Internet. They are outside of tailnet lock."""


def node_capabilities(rules: Iterable[FilterRule], node: Node, own: Iterable[IPAddress]) -> dict[str, list[Any]]:
    """What a node may do at one of ``own`` addresses: the same by whichever of its addresses it comes, that of the
    first one. One that tailnet lock does not cover gets nothing that could harm from a server that cannot be trusted.
    """
    granted = peer_capabilities(rules, node.ips[0], own) if node.addresses else {}
    return {name: granted[name] for name in granted if name == INGRESS} if node.unsigned_peer_api_only else granted


def peer_capabilities(rules: Iterable[FilterRule], source: IPAddress, own: Iterable[IPAddress]) -> dict[str, list[Any]]:
    """Capability to values, over all grants from ``source`` to one of ``own`` addresses."""
    granted: dict[str, list[Any]] = {}
    rules = list(rules)
    if any(map(has_bits, rules)):
        return granted
    targets = [address for address in own if address.version == source.version]
    for rule in rules:
        if not rule.cap_grant or not any(source_matches(text, source) for text in rule.src_ips or ()):
            continue
        for grant in rule.cap_grant:
            if not any(_contains(text, address) for text in grant.dsts or () for address in targets):
                continue
            for name in grant.caps or ():
                granted.setdefault(name, [])
            for name, values in (grant.cap_map or {}).items():
                granted.setdefault(name, []).extend(values or ())
    return granted


def source_matches(text: str, address: IPAddress) -> bool:
    """Whether a source of a filter rule (``*``, address, prefix, range) contains the address."""
    if text == "*":
        return True
    first, dash, last = text.partition("-")
    if dash:
        try:
            low, high = parse_ip(first), parse_ip(last)
        except ValueError:
            return False
        return low.version == high.version == address.version and int(low) <= int(address) <= int(high)
    return _contains(text, address)


def _contains(text: str, address: IPAddress) -> bool:
    try:
        if "/" not in text:
            return parse_ip(text) == address
        prefix: IPPrefix = parse_prefix(text)
    except ValueError:
        return False
    return address in prefix
