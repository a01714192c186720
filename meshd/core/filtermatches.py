"""The packet filter as people debug it: every rule with its addresses worked out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from meshd._fast.ipset import IPSet
from meshd.base.addr import IPPrefix
from meshd.core.filterprogram import DEFAULT_PROTOCOLS, has_bits, parse_addresses
from meshd.wire.control import FilterRule

JSON = dict[str, Any]


def filter_matches(rules: Iterable[FilterRule], cap_sources: Callable[[str], Iterable[IPPrefix]]) -> list[JSON]:
    """One match a rule. ``cap_sources`` gives the addresses of the peers that hold a capability; what a rule
    names in a form that is not understood is left out, as the filter leaves it out."""
    return list(each_match(list(rules), cap_sources))


def each_match(rules: Sequence[FilterRule], cap_sources: Callable[[str], Iterable[IPPrefix]]) -> Iterator[JSON]:
    """`filter_matches`, each of which is made when it is its turn."""
    return iter(()) if any(map(has_bits, rules)) else (_match(rule, cap_sources) for rule in rules)


def _match(rule: FilterRule, cap_sources: Callable[[str], Iterable[IPPrefix]]) -> JSON:
    plain: list[str] = []
    capabilities: list[str] = []
    for text in rule.src_ips:
        if text.startswith("cap:"):
            capabilities += filter(None, [text[4:]])
        else:
            plain += _prefixes(text)
    return {
        "IPProto": [n for n in rule.ip_proto if 0 <= n <= 255] if rule.ip_proto else list(DEFAULT_PROTOCOLS),
        "Srcs": plain + [str(p) for name in capabilities for p in cap_sources(name)],
        "SrcCaps": capabilities or None,
        "Dsts": [
            {"Net": net, "Ports": {"First": dst.ports.first, "Last": dst.ports.last}}
            for dst in rule.dst_ports
            for net in _prefixes(dst.ip)
        ],
        "Caps": [
            {"Dst": dst, "Cap": name, "Values": values}
            for grant in rule.cap_grant
            for dst in grant.dsts
            for name, values in [*((name, None) for name in grant.caps), *sorted(grant.cap_map.items())]
        ],
    }


def _prefixes(text: str) -> list[str]:
    try:
        ranges = parse_addresses(text)
    except ValueError:
        return []
    return [str(prefix) for prefix in IPSet(ranges=ranges).prefixes()]
