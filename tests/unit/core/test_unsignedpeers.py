"""The guard for peers that tailnet lock does not cover."""

from __future__ import annotations

import pytest

from meshd.base.addr import parse_ip
from meshd.core import unsignedpeers
from meshd.core.unsignedpeers import admits_unsigned, holders_of
from meshd.wire.control import FilterRule, NetPortRange, PortRange
from tests.unit.core.mapworld import joined, node


@pytest.mark.parametrize(
    ("source", "admitted"),
    [
        ("*", True),
        ("100.64.0.2", True),
        ("100.64.0.3", False),
        ("100.64.0.0/24", True),
        ("100.64.0.1/24", False),  # host bits: matches nothing
        ("100.64.0.1-100.64.0.9", True),
        ("100.64.0.3-100.64.0.9", False),
        ("fd7a:115c:a1e0::/48", True),
        ("100.64.0.1-fd7a::1", False),
        ("cap:x", False),
        ("nonsense", False),
        ("", False),
    ],
)
def test_admits_unsigned_understands_every_source_form(source: str, admitted: bool) -> None:
    """PF-09."""
    netmap = joined(node(2, CapMap={"x": None})).netmap
    assert netmap is not None
    rule = FilterRule(src_ips=(source,), dst_ports=(NetPortRange(ip="*", ports=PortRange(first=1, last=9)),))
    assert admits_unsigned([rule], [netmap.peers[2]]) is admitted
    assert not admits_unsigned([rule], [])


def test_holders_of_a_capability_are_those_that_tailnet_lock_covers() -> None:
    """PF-09, PF-10: the filter stays as it is for them when a server gives the capability to others, too."""
    netmap = joined(node(2, CapMap={"x": None}, UnsignedPeerAPIOnly=True), node(3, CapMap={"x": None}), node(4)).netmap
    assert netmap is not None
    assert holders_of("x", netmap.peers.values()) == list(netmap.peers[3].addresses)


def test_admits_unsigned_parses_a_source_once_for_all_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    netmap = joined(*(node(n) for n in range(2, 12))).netmap
    assert netmap is not None
    parsed: list[str] = []
    monkeypatch.setattr(unsignedpeers, "parse_ip", lambda text: (parsed.append(text), parse_ip(text))[1])
    sources = tuple(f"100.64.9.{n}" for n in range(50))
    rule = FilterRule(src_ips=sources, dst_ports=(NetPortRange(ip="*", ports=PortRange(first=1, last=9)),))
    assert not admits_unsigned([rule], list(netmap.peers.values()))
    assert parsed == list(sources)


def test_admits_unsigned_takes_no_offence_at_rules_that_only_grant_capabilities() -> None:
    """PF-09: such a rule lets no packet in."""
    netmap = joined(node(2)).netmap
    assert netmap is not None
    assert not admits_unsigned([FilterRule(src_ips=("*",))], [netmap.peers[2]])
