"""A close look at a relay region."""

from __future__ import annotations

import asyncio
from typing import Any

from meshd.base.errors import MeshdError
from meshd.core.netreport import Report
from meshd.core.relaymap import RelayMap, RelayNode, RelayRegion
from meshd.node.relaycheck import region_report

NODES = (
    RelayNode("a", 1, "a.test"),
    RelayNode("b", 1, "b.test", insecure_for_tests=True),
    RelayNode("s", 1, "s.test", stun_only=True),
)
ONE = RelayMap({1: RelayRegion(1, "one", "One", NODES)})


def look(relays: RelayMap, wanted: str, report: Report | None = None) -> dict[str, Any]:
    async def measure(region: RelayRegion) -> float:
        if region.nodes[0].name == "b":
            raise MeshdError("refused")
        return 0.0042

    async def netcheck() -> Report:
        return report or Report()

    return asyncio.run(region_report(relays, wanted, netcheck, measure))


def test_relay_report_tells_of_every_server_and_of_stun() -> None:
    """DB: `debug derp`."""
    report = Report(region_latency={1: 0.01}, region_v4_latency={1: 0.01})
    for wanted in ("one", "1"):
        told = look(ONE, wanted, report)
        assert told["Info"] == [
            'Region 1 == "one"',
            'Successfully established a TLS connection with node "a" (4.2 ms)',
            'Node "s" is marked STUN only; skipped non-STUN checks',
            "Region returned IPv4 STUN response: address unknown",
        ]
        assert told["Errors"] == ['Node "b" at b.test:443: refused']
        assert len(told["Warnings"]) == 2
    assert look(ONE, "one")["Errors"][-1] == "No node of the region answered STUN"


def test_relay_report_of_nothing() -> None:
    assert look(RelayMap(), "1")["Errors"] == ["no DERP map (not connected?)"]
    assert look(ONE, "two")["Errors"] == ["no such region 'two' in DERP map"]
    empty = RelayMap({1: RelayRegion(1, "one", "One", ()), 2: RelayRegion(2, "two", "Two", ())})
    assert look(empty, "1") == {
        "Info": ['Region 1 == "one"'],
        "Warnings": None,
        "Errors": ["Region has no nodes defined"],
    }
