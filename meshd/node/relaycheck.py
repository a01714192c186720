"""A close look at one relay region, for people who wonder why it is not used."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from meshd.base.errors import MeshdError
from meshd.core.netreport import Report
from meshd.core.relaymap import RelayMap, RelayNode, RelayRegion
from meshd.io.relaydial import measure_https

JSON = dict[str, Any]

NODE_PATIENCE_S = 4.0  # of one server: connecting, TLS, one request
CHECK_PATIENCE_S = 8.0


class _Findings:
    def __init__(self) -> None:
        self.info: list[str] = []
        self.warnings: list[str] = []
        self.errors: list[str] = []

    def json(self) -> JSON:
        return {"Info": self.info or None, "Warnings": self.warnings or None, "Errors": self.errors or None}


async def region_report(
    relays: RelayMap,
    wanted: str,
    netcheck: Callable[[], Awaitable[Report]],
    measure: Callable[[RelayRegion], Awaitable[float]] = measure_https,
) -> JSON:
    """``{Info, Warnings, Errors}`` about the region with this number or code: map entry, servers, STUN."""
    found = _Findings()
    region = find_region(relays, wanted)
    if not relays.regions:
        found.errors.append("no DERP map (not connected?)")
    elif region is None:
        found.errors.append(f"no such region {wanted[:40]!r} in DERP map")
    else:
        await _look(found, relays, region, netcheck, measure)
    return found.json()


def find_region(relays: RelayMap, wanted: str) -> RelayRegion | None:
    """By number or else by code."""
    if wanted.isascii() and wanted.isdigit() and len(wanted) <= 10:
        return relays.regions.get(int(wanted))
    return next((region for region in relays.regions.values() if region.code == wanted), None)


async def _look(
    found: _Findings,
    relays: RelayMap,
    region: RelayRegion,
    netcheck: Callable[[], Awaitable[Report]],
    measure: Callable[[RelayRegion], Awaitable[float]],
) -> None:
    found.info.append(f'Region {region.id} == "{region.code}"')
    if len(relays.regions) == 1:
        found.warnings.append(
            "Having only a single DERP region is a single point of failure and could hamper connectivity"
        )
    if not region.may_be_home:
        found.warnings.append("Region is marked as one that must not be a home")
    if not region.nodes:
        found.errors.append("Region has no nodes defined")
        return
    await asyncio.gather(*(_node(found, region, node, measure) for node in region.nodes))
    await _stun(found, region, netcheck)


async def _node(
    found: _Findings, region: RelayRegion, node: RelayNode, measure: Callable[[RelayRegion], Awaitable[float]]
) -> None:
    if node.stun_only:
        found.info.append(f'Node "{node.name}" is marked STUN only; skipped non-STUN checks')
        return
    if node.insecure_for_tests:
        found.warnings.append(f'Node "{node.name}": its certificate is not checked')
    try:
        async with asyncio.timeout(NODE_PATIENCE_S):
            latency = await measure(msgspec.structs.replace(region, nodes=(node,)))
    except TimeoutError:
        found.errors.append(f'Node "{node.name}" at {node.host}:{node.derp_port}: no answer in {NODE_PATIENCE_S:g} s')
    except (MeshdError, OSError) as error:
        found.errors.append(f'Node "{node.name}" at {node.host}:{node.derp_port}: {error}')
    else:
        found.info.append(
            f'Successfully established a TLS connection with node "{node.name}" ({latency * 1000:.1f} ms)'
        )


async def _stun(found: _Findings, region: RelayRegion, netcheck: Callable[[], Awaitable[Report]]) -> None:
    if not region.may_be_home:
        found.info.append("Network checks leave the region out; skipped STUN checks")
        return
    if all(node.stun_port < 0 for node in region.nodes):
        found.info.append("No node of the region answers STUN")
        return
    try:
        async with asyncio.timeout(CHECK_PATIENCE_S):
            report = await netcheck()
    except (TimeoutError, MeshdError) as error:
        found.errors.append(f"STUN could not be tried: {error or 'no result in time'}")
        return
    for family, latencies, seen in (
        ("IPv4", report.region_v4_latency, report.global_v4),
        ("IPv6", report.region_v6_latency, report.global_v6),
    ):
        if region.id in latencies:
            found.info.append(f"Region returned {family} STUN response: {seen or 'address unknown'}")
    if region.id not in report.region_latency:
        found.errors.append("No node of the region answered STUN")
