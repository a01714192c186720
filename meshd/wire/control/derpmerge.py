"""How a partial relay map updates the one before it on the same stream."""

from __future__ import annotations

from meshd.wire.control.derpmap import DERPHomeParams, DERPMap


def merge_derp_map(previous: DERPMap | None, update: DERPMap) -> DERPMap:
    """The map after `update`. Regions are replaced all together or not at all."""
    if previous is None:
        return update
    if update.regions is None:
        regions, omit_default_regions = previous.regions, previous.omit_default_regions
    else:
        regions, omit_default_regions = update.regions, update.omit_default_regions
    return DERPMap(
        home_params=_merge_home_params(previous.home_params, update.home_params),
        regions=regions,
        omit_default_regions=omit_default_regions,
    )


def _merge_home_params(previous: DERPHomeParams | None, update: DERPHomeParams | None) -> DERPHomeParams | None:
    if update is None:
        return previous
    if update.region_score is None and previous is not None:
        return previous
    return update
