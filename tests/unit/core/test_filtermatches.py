"""The filter as people debug it."""

from __future__ import annotations

import json
from ipaddress import ip_network

from meshd.core.filtermatches import filter_matches
from meshd.wire.control import FilterRule, decode


def rule(**fields: object) -> FilterRule:
    return decode(FilterRule, json.dumps(fields).encode())


def test_filter_matches_of_everything() -> None:
    """PF, DB: as the reference prints the rule that allows all."""
    allow = rule(SrcIPs=["*"], DstPorts=[{"IP": "*", "Ports": {"First": 0, "Last": 65535}}])
    ports = {"First": 0, "Last": 65535}
    assert filter_matches([allow], lambda _: ()) == [
        {
            "IPProto": [6, 17, 1, 58],
            "Srcs": ["0.0.0.0/0", "::/0"],
            "SrcCaps": None,
            "Dsts": [{"Net": "0.0.0.0/0", "Ports": ports}, {"Net": "::/0", "Ports": ports}],
            "Caps": [],
        }
    ]


def test_filter_matches_works_out_ranges_capabilities_and_grants() -> None:
    grant = {"Dsts": ["100.64.0.1/32"], "CapMap": {"x/cap": [1]}}
    found = filter_matches(
        [rule(SrcIPs=["10.0.0.0-10.0.0.2", "cap:web", "junk"], IPProto=[6, 300], CapGrant=[grant])],
        lambda name: [ip_network("100.64.0.9/32")] if name == "web" else [],
    )
    assert found == [
        {
            "IPProto": [6],
            "Srcs": ["10.0.0.0/31", "10.0.0.2/32", "100.64.0.9/32"],
            "SrcCaps": ["web"],
            "Dsts": [],
            "Caps": [{"Dst": "100.64.0.1/32", "Cap": "x/cap", "Values": (1,)}],
        }
    ]


def test_filter_matches_of_what_the_filter_does_not_take() -> None:
    """Protocols that there are not are no reason to show those of a rule without any."""
    odd = rule(SrcIPs=["10.0.0.1", "cap:"], IPProto=[-1, 256])
    assert [(m["IPProto"], m["SrcCaps"]) for m in filter_matches([odd], lambda _: ())] == [([], None)]
    former = rule(SrcIPs=["10.0.0.1"], SrcBits=[24], DstPorts=[{"IP": "*"}])
    assert filter_matches([odd, former], lambda _: ()) == []
