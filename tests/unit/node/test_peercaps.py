"""What grants of the packet filter let peers do."""

from __future__ import annotations

import json
from typing import Any

from meshd.base.addr import parse_ip
from meshd.node.peercaps import peer_capabilities
from meshd.wire.control import FilterRule, decode

OWN = [parse_ip("100.64.0.1"), parse_ip("fd7a:115c:a1e0::1")]
GRANTED = (
    "https://tailscale.com/cap/file-sharing-target",
    "https://tailscale.com/cap/file-send",
    "https://tailscale.com/cap/debug-peer",
    "https://tailscale.com/cap/wake-on-lan",
    "https://tailscale.com/cap/ingress",
    "tailscale.com/cap/webui",
    "tailscale.com/cap/drive",
    "tailscale.com/cap/drive-sharer",
    "tailscale.com/cap/kubernetes",
    "tailscale.com/cap/relay",
    "tailscale.com/cap/relay-target",
    "tailscale.com/cap/tsidp",
    "example.com/cap/of-the-future",
)


def rule(sources: list[str], *grants: dict[str, Any]) -> FilterRule:
    return decode(FilterRule, json.dumps({"SrcIPs": sources, "CapGrant": list(grants)}).encode())


def test_capabilities_that_the_filter_grants_are_those_of_whois() -> None:
    """cap:peer grants; NM-07: of every rule from this source to an address of ours, with all values."""
    rules = [
        rule(["100.64.0.2"], {"Dsts": ["100.64.0.1/32"], "CapMap": {name: [{"a": 1}] for name in GRANTED}}),
        rule(["100.64.0.0/24"], {"Dsts": ["100.64.0.1/32"], "CapMap": {"tailscale.com/cap/drive": [{"b": 2}]}}),
        rule(["*"], {"Dsts": ["100.64.0.9/32"], "CapMap": {"of another": None}}),
        rule(["100.64.0.3"], {"Dsts": ["100.64.0.1/32"], "Caps": ["of another source"]}),
        rule(["100.64.0.1-100.64.0.5"], {"Dsts": ["0.0.0.0/0"], "Caps": ["old"]}),
    ]
    found = peer_capabilities(rules, parse_ip("100.64.0.2"), OWN)
    assert found.keys() == {*GRANTED, "old"}
    assert found["tailscale.com/cap/drive"] == [{"a": 1}, {"b": 2}]
    assert found["old"] == []
    assert peer_capabilities(rules, parse_ip("fd7a:115c:a1e0::2"), OWN) == {}
