"""Preferences: JSON form, masked edits, checks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.base.errors import MeshdError
from meshd.base.keys import NodePrivate
from meshd.core import prefs as p

VECTORS = Path(__file__).parents[2] / "vectors"


def recorded_prefs() -> dict[str, object]:
    requests = json.loads((VECTORS / "localapi_recorded.json").read_text())["requests"]
    return next(r["response"] for r in requests if r["path"] == "prefs")


def test_prefs_recorded_object_survives_both_ways() -> None:
    reference = recorded_prefs()
    written = p.to_json(p.from_json(reference))
    assert written == reference


def test_prefs_new_profile_is_stopped_and_logged_out() -> None:
    """PS-06."""
    prefs = p.default_prefs()
    assert (prefs.want_running, prefs.logged_out, prefs.route_all, prefs.corp_dns) == (False, True, True, True)


def test_prefs_absent_and_null_fields_keep_their_default() -> None:
    """PS-08."""
    prefs = p.from_json({"Hostname": "x", "CorpDNS": None, "Unknown": 1})
    assert (prefs.hostname, prefs.corp_dns, prefs.netfilter_mode) == ("x", True, 2)


def test_prefs_null_of_a_three_valued_field_is_not_said() -> None:
    """Null is a value of its own where true and false are not everything."""
    assert p.from_json({"NoStatefulFiltering": None}).no_stateful_filtering is None
    assert p.from_json({}).no_stateful_filtering is True


def test_prefs_field_names_match_in_any_case() -> None:
    """INV-7."""
    assert p.from_json({"hostname": "x", "wantrunning": True}).want_running


def test_edit_only_masked_fields_change() -> None:
    """PP-02."""
    before = p.from_json({"Hostname": "old", "ShieldsUp": True})
    after = p.edit(before, {"Hostname": "new", "HostnameSet": True, "ShieldsUp": False})
    assert (after.hostname, after.shields_up) == ("new", True)


def test_edit_mask_without_value_gives_the_zero_value() -> None:
    before = p.from_json({"Hostname": "old", "AdvertiseRoutes": ["10.0.0.0/8"]})
    after = p.edit(before, {"HostnameSet": True, "AdvertiseRoutesSet": True})
    assert (after.hostname, after.advertise_routes) == ("", None)


def test_edit_internal_field_is_refused() -> None:
    """PP-02."""
    with pytest.raises(MeshdError, match="can't set Internal fields"):
        p.edit(p.Prefs(), {"InternalExitNodePriorSet": True, "InternalExitNodePrior": "x"})
    with pytest.raises(MeshdError, match="can't set Internal fields"):
        p.edit(p.Prefs(), {"ConfigSet": True, "Config": {}})


def test_edit_clearing_the_exit_node_forgets_the_prior_one() -> None:
    """PP-02."""
    before = p.from_json({"ExitNodeID": "n1", "InternalExitNodePrior": "n0"})
    assert p.edit(before, {"ExitNodeID": "", "ExitNodeIDSet": True}).internal_exit_node_prior == ""


def test_edit_wrong_type_names_the_field() -> None:
    with pytest.raises(MeshdError, match="^Hostname: ") as caught:
        p.edit(p.Prefs(), {"Hostname": 7, "HostnameSet": True})
    assert caught.value.code == "invalid"


def test_edit_auto_update_has_masks_of_its_own() -> None:
    after = p.edit(p.Prefs(), {"AutoUpdate": {"Check": False}, "AutoUpdateSet": {"CheckSet": True}})
    assert (after.auto_update.check, after.auto_update.apply) == (False, None)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"Hostname": "badhostname.tailscale."}, "bad hostname [test]"),
        (
            {"ExitNodeIP": "100.64.0.9", "AdvertiseRoutes": ["0.0.0.0/0", "::/0"]},
            "Cannot advertise an exit node and use an exit node at the same time.",
        ),
        ({"AdvertiseRoutes": ["10.0.0.1/8"]}, "route 10.0.0.1/8 has non-address bits set; expected 10.0.0.0/8"),
        ({"AdvertiseRoutes": ["nonsense"]}, "'nonsense' is not a route"),
        ({"AdvertiseTags": ["nonsense"]}, "tags must start with 'tag:'"),
        ({"NetfilterMode": 5}, "NetfilterMode is 5"),
        ({"ExitNodeIP": "nowhere"}, "is not an IP address"),
        ({"ControlURL": "ftp://x"}, "must start with http"),
        ({"AutoUpdate": {"Check": True, "Apply": True}}, "Auto-updates are not supported on this platform."),
    ],
)
def test_check_complaint_is_clear(changes: dict[str, object], text: str) -> None:
    """PP-05."""
    with pytest.raises(MeshdError) as caught:
        p.check(p.from_json(changes))
    assert text in caught.value.message


def test_check_reports_all_complaints_at_once() -> None:
    """PP-05."""
    with pytest.raises(MeshdError) as caught:
        p.check(p.from_json({"NetfilterMode": 9, "AdvertiseTags": ["x"]}))
    assert len(caught.value.message.splitlines()) == 2


def test_redacted_prefs_hold_no_private_key() -> None:
    """INV-3, PP-01."""
    secret = NodePrivate.generate().text()
    prefs = p.Prefs(config=p.Persist(private_node_key=secret, old_private_node_key=secret))
    assert secret not in json.dumps(p.to_json(prefs.redacted()))
    assert secret not in repr(prefs)
    assert secret not in str(prefs)


@given(
    st.dictionaries(
        st.sampled_from([f.encode_name for f in p.msgspec.structs.fields(p.Prefs)]),
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.text(max_size=8),
            st.lists(st.text(max_size=5), max_size=3),
            st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
        ),
    )
)
def test_prefs_any_json_is_taken_or_refused_clearly(data: dict[str, object]) -> None:
    try:
        prefs = p.from_json(data)
        p.check(prefs)
    except MeshdError as error:
        assert error.code == "invalid"
        return
    assert p.from_json(p.to_json(prefs)) == prefs
