"""How a partial relay map updates the one before it on the same stream."""

from __future__ import annotations

from typing import Final

from meshd.wire.control.derpmap import DERPHomeParams, DERPMap, DERPRegion

MAX_REGIONS: Final = 1024
"""The largest known network has about thirty; every region is probed, so the number must be bounded."""


def merge_derp_map(previous: DERPMap | None, update: DERPMap) -> DERPMap:
    """The map after `update`. Regions are replaced all together or not at all; ids below 1 are dropped."""
    if update.regions is not None or previous is None:
        regions, omit_default_regions = _admit(update.regions or {}), update.omit_default_regions
    else:
        regions, omit_default_regions = previous.regions or {}, previous.omit_default_regions
    return DERPMap(
        home_params=_merge_home_params(previous.home_params if previous else None, update.home_params),
        regions=regions,
        omit_default_regions=omit_default_regions,
    )


def _admit(regions: dict[int, DERPRegion]) -> dict[int, DERPRegion]:
    numbers = sorted(number for number in regions if number > 0)
    return {number: regions[number] for number in numbers[:MAX_REGIONS]}


def _merge_home_params(previous: DERPHomeParams | None, update: DERPHomeParams | None) -> DERPHomeParams | None:
    if update is None:
        return previous
    if update.region_score is None and previous is not None:
        return previous
    return update
