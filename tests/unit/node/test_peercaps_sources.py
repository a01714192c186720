"""Capability grants of the packet filter."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from meshd.node.peercaps import peer_capabilities
from meshd.wire.control import FilterRule, decode

OWN = (ip_address("100.64.0.1"), ip_address("fd7a:115c:a1e0::1"))


def rule(source: str, dst: str, caps: str) -> FilterRule:
    return decode(FilterRule, f'{{"SrcIPs": ["{source}"], "CapGrant": [{{"Dsts": ["{dst}"], {caps}}}]}}'.encode())


def test_peer_capabilities_are_those_granted_to_the_source_at_our_address() -> None:
    """NM-07: values of several grants come together; a grant at another node's address is none."""
    rules = [
        rule("100.64.0.9", "100.64.0.1/32", '"CapMap": {"example.com/cap/db": [{"role": "reader"}]}'),
        rule("100.64.0.0/24", "100.64.0.1/32", '"CapMap": {"example.com/cap/db": [{"role": "writer"}]}'),
        rule("*", "100.64.0.1/32", '"Caps": ["https://tailscale.com/cap/file-send"]'),
        rule("100.64.0.9", "100.64.0.7/32", '"CapMap": {"example.com/cap/elsewhere": []}'),
        rule("100.64.0.8", "100.64.0.1/32", '"CapMap": {"example.com/cap/others": []}'),
    ]
    assert peer_capabilities(rules, ip_address("100.64.0.9"), OWN) == {
        "example.com/cap/db": [{"role": "reader"}, {"role": "writer"}],
        "https://tailscale.com/cap/file-send": [],
    }


def test_peer_capabilities_are_none_with_a_filter_that_is_refused() -> None:
    former = decode(FilterRule, b'{"SrcIPs": ["10.0.0.1"], "SrcBits": [24]}')
    rules = [rule("*", "100.64.0.1/32", '"CapMap": {"x": []}'), former]
    assert peer_capabilities(rules, ip_address("100.64.0.9"), OWN) == {}


def test_peer_capabilities_of_a_source_go_by_its_own_family() -> None:
    """NM-07."""
    rules = [rule("*", "100.64.0.1/32", '"CapMap": {"x": []}'), rule("*", "fd7a:115c:a1e0::/48", '"CapMap": {"y": []}')]
    assert peer_capabilities(rules, ip_address("fd7a:115c:a1e0::9"), OWN) == {"y": []}
    assert peer_capabilities(rules, ip_address("100.64.0.9"), OWN) == {"x": []}
    assert peer_capabilities([], ip_address("100.64.0.9"), OWN) == {}


@pytest.mark.parametrize(
    ("source", "granted"),
    [("100.64.0.5-100.64.0.20", True), ("100.64.0.10-100.64.0.20", False), ("x", False), ("1-x", False), ("", False)],
)
def test_peer_capabilities_understand_ranges_and_ignore_nonsense(source: str, granted: bool) -> None:
    """NM-07."""
    found = peer_capabilities([rule(source, "0.0.0.0/0", '"CapMap": {"x": []}')], ip_address("100.64.0.9"), OWN)
    assert bool(found) is granted
