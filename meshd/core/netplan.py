"""Which STUN probes a network check sends, and when."""

from __future__ import annotations

from typing import NamedTuple

from meshd.core.netreport import Report
from meshd.core.relaymap import RelayMap, RelayNode, RelayRegion

FULL_TRIES = 3
FIRST_RETRANSMIT_S = 0.100
NO_HISTORY_RETRANSMIT_S = 0.200
LATENCY_FACTOR = 1.2
LATE_TRY_EXTRA_S = 0.050
FAST_REGIONS = 3


class Probe(NamedTuple):
    """Send one STUN request to a server ``delay_s`` after the start."""

    delay_s: float
    node: RelayNode
    family: int


class ProbeSet(NamedTuple):
    """Probes of one region and family; the first answer ends the set."""

    region: int
    family: int
    probes: tuple[Probe, ...]


def full_plan(relays: RelayMap, *, v4: bool, v6: bool) -> list[ProbeSet]:
    """Every region that may be home, up to three tries per family, 100 ms apart, each at the region's next server."""
    sets: list[ProbeSet] = []
    for region in relays.regions.values():
        if not region.may_be_home:
            continue
        for family in _families(v4, v6):
            tries = [(n, n * FIRST_RETRANSMIT_S) for n in range(FULL_TRIES)]
            _append(sets, region, family, tries)
    return sets


def incremental_plan(relays: RelayMap, last: Report, home: int, *, v4: bool, v6: bool) -> list[ProbeSet]:
    """The three regions that were fastest last time, and the home region, which is tried most persistently.

    Without it, one bad measurement of home would move us to another region, and the next full check back.
    """
    ordered = sorted((r for r in relays.regions if r in last.region_latency), key=lambda r: (last.region_latency[r], r))
    chosen = ordered[:FAST_REGIONS]
    if home in relays.regions and home not in chosen:
        chosen.append(home)
    sets: list[ProbeSet] = []
    for place, number in enumerate(chosen):
        region = relays.regions[number]
        families = _families(v4, v6)
        if place == FAST_REGIONS - 1 and number != home and len(families) == 2:
            families = (4,) if (len(ordered) + place) % 2 else (6,)  # spare the third one of a second family
        tries = 4 if number == home else 2 if place < 2 else 1
        for family in families:
            known = (last.region_v4_latency if family == 4 else last.region_v6_latency).get(number)
            gap = known * LATENCY_FACTOR if known else NO_HISTORY_RETRANSMIT_S
            delays = [(n, n * gap + (n * LATE_TRY_EXTRA_S if n > 1 else 0.0)) for n in range(tries)]
            _append(sets, region, family, delays)
    return sets


def _families(v4: bool, v6: bool) -> tuple[int, ...]:
    return tuple(family for family, have in ((4, v4), (6, v6)) if have)


def _append(sets: list[ProbeSet], region: RelayRegion, family: int, tries: list[tuple[int, float]]) -> None:
    if not region.nodes:
        return
    probes = []
    for number, delay in tries:
        node = region.nodes[number % len(region.nodes)]
        if node.stun_port > 0 and node.uses(family):
            probes.append(Probe(delay, node, family))
    if probes:
        sets.append(ProbeSet(region.id, family, tuple(probes)))
