from __future__ import annotations

from meshd.wire.control import (
    DERPHomeParams,
    DERPMap,
    DERPRegion,
    FilterRule,
    NamedFilters,
    derpmerge,
    filtermerge,
    merge_derp_map,
)

ONE, TWO = DERPRegion(region_id=1), DERPRegion(region_id=2)
SCORES = DERPHomeParams(region_score={1: 0.5})
OLD = DERPMap(regions={1: ONE}, omit_default_regions=True, home_params=SCORES)

A, B, C = (FilterRule(src_ips=(name,)) for name in "abc")


def test_merge_regions_replaces_all_of_them():
    """NM-12"""
    merged = merge_derp_map(OLD, DERPMap(regions={2: TWO}))
    assert merged == DERPMap(regions={2: TWO}, omit_default_regions=False, home_params=SCORES)


def test_merge_without_regions_keeps_regions_and_their_flag():
    """NM-12"""
    assert merge_derp_map(OLD, DERPMap()) == OLD


def test_merge_home_params_absent_kept_and_empty_resets():
    """NM-12"""
    assert merge_derp_map(OLD, DERPMap(home_params=DERPHomeParams())).home_params == SCORES
    reset = DERPHomeParams(region_score={})
    assert merge_derp_map(OLD, DERPMap(home_params=reset)).home_params == reset


def test_merge_first_map_stands_alone():
    assert merge_derp_map(None, DERPMap(regions={1: ONE})) == DERPMap(regions={1: ONE})
    assert merge_derp_map(None, DERPMap()).regions == {}
    assert merge_derp_map(None, DERPMap(home_params=DERPHomeParams())).home_params == DERPHomeParams()


def test_merge_hostile_regions_bounded():
    many = {number: DERPRegion(region_id=number) for number in range(-5, 3000)}
    regions = merge_derp_map(None, DERPMap(regions=many)).regions
    assert regions is not None
    assert set(regions) == set(range(1, derpmerge.MAX_REGIONS + 1))


def test_filters_base_is_the_unnamed_one():
    filters = NamedFilters()
    assert filters.effective() == ()
    assert filters.apply((A,), {})
    assert filters.apply(None, {"base": (B,)})
    assert filters.effective() == (B,)
    assert filters.apply((), {})
    assert filters.effective() == (), "an empty list blocks everything"


def test_filters_absent_leaves_everything():
    filters = NamedFilters()
    filters.apply((A,), {})
    assert not filters.apply(None, {})
    assert filters.effective() == (A,)


def test_filters_null_deletes_and_star_deletes_all_first():
    filters = NamedFilters()
    filters.apply(None, {"b": (B,), "a": (A,)})
    assert filters.effective() == (A, B), "in the order of names"
    filters.apply(None, {"a": None, "missing": None})
    assert filters.effective() == (B,)
    filters.apply((A,), {"c": (C,), "*": None})
    assert filters.effective() == (C,), "star also deletes the base set in the same message"
    filters.apply(None, {"*": (A,)})
    assert filters.effective() == (C,), "star with rules has no meaning"


def test_filters_number_of_names_bounded():
    filters = NamedFilters()
    filters.apply(None, {f"n{number}": (A,) for number in range(5000)})
    assert len(filters.effective()) == filtermerge.MAX_NAMED_FILTERS
    filters.apply(None, {"n0": (B,)})
    assert filters.effective()[0] == B
