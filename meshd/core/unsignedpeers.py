"""The guard for peers that tailnet lock does not cover."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from meshd.base.addr import IPPrefix, parse_ip, parse_prefix
from meshd.core.node import Node
from meshd.wire.control import FilterRule

_Range = tuple[int, int, int]  # version, first and last address


def admits_unsigned(rules: Iterable[FilterRule], unsigned: Sequence[Node]) -> bool:
    """Whether any rule has a peer that is not covered by tailnet lock among its sources.

    Such peers may only be reached, never reach us; a filter that lets one in is not to be trusted at all. Rules that
    lead nowhere, and only grant capabilities, let nobody in, nor do capabilities as sources let in one of them
    (`holders_of`).
    """
    if not unsigned:
        return False
    found = _Unsigned(unsigned)
    return any(found.among(source) for rule in rules if rule.dst_ports for source in rule.src_ips)


def may_be_admitted_otherwise(old: Node, new: Node) -> bool:
    """Whether a filter that did not let ``old`` in can let ``new`` in, or the other way round."""
    return old.addresses != new.addresses


def holds(node: Node, capability: str) -> bool:
    """Whether a capability as source of a rule stands for the peer, among others."""
    return node.has_cap(capability) and not node.unsigned_peer_api_only


def holders_of(capability: str, peers: Iterable[Node]) -> list[IPPrefix]:
    """The addresses that a capability stands for as source of a rule (PF-10)."""
    return [prefix for node in peers if holds(node, capability) for prefix in node.addresses]


class _Unsigned:
    """What a source is compared with. A filter has thousands of sources, so all peers are looked at in one go."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        numbers: dict[int, set[int]] = {4: set(), 6: set()}
        for node in nodes:
            for ip in node.ips:
                numbers[ip.version].add(int(ip))
        self._numbers = {version: sorted(found) for version, found in numbers.items()}

    def among(self, source: str) -> bool:
        """Whether a source of a rule has one of the peers."""
        if source == "*":
            return any(self._numbers.values())
        if source.startswith("cap:"):
            return False
        try:
            version, first, last = _range_of(source)
        except ValueError:
            return False  # an item that cannot be parsed matches nothing in the compiled filter either
        numbers = self._numbers[version]
        place = bisect_left(numbers, first)
        return place < len(numbers) and numbers[place] <= last


def _range_of(source: str) -> _Range:
    if "/" in source:
        prefix = parse_prefix(source)
        return prefix.version, int(prefix.network_address), int(prefix.broadcast_address)
    first, dash, last = source.partition("-")
    low = parse_ip(first)
    high = parse_ip(last) if dash else low
    if low.version != high.version:
        raise ValueError(f"{source!r} has an end of each version")
    return low.version, int(low), int(high)
