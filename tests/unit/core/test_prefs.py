"""Preferences: JSON form, masked edits, checks."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

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
    """INV-7, PP-01."""
    reference = recorded_prefs()
    written = p.to_json(p.from_json(reference))
    assert written == reference


def test_prefs_new_profile_is_stopped_and_logged_out() -> None:
    """PS-06."""
    prefs = p.default_prefs()
    assert (prefs.want_running, prefs.logged_out, prefs.route_all, prefs.corp_dns) == (False, True, False, True)


def test_prefs_absent_and_null_fields_keep_their_default() -> None:
    """INV-7, PS-08."""
    prefs = p.from_json({"Hostname": "x", "CorpDNS": None, "Unknown": 1})
    assert (prefs.hostname, prefs.corp_dns, prefs.netfilter_mode) == ("x", True, 2)


def test_prefs_null_of_a_three_valued_field_is_not_said() -> None:
    """Null is a value of its own where true and false are not everything."""
    assert p.from_json({"NoStatefulFiltering": None}).no_stateful_filtering is None
    assert p.from_json({}).no_stateful_filtering is True


def test_prefs_field_names_match_in_any_case() -> None:
    """INV-7."""
    assert p.from_json({"hostname": "x", "wantrunning": True}).want_running


def test_prefs_names_inside_parts_match_in_any_case_too() -> None:
    """INV-7: null, and names that nobody knows, leave the default."""
    prefs = p.from_json(
        {
            "autoupdate": {"CHECK": False, "apply": None, "other": 1},
            "appconnector": {"advertise": True},
            "config": {"nodeid": "n1", "userprofile": {"loginname": "u@x", "id": 7}, "PrivateNodeKey": None},
        }
    )
    assert prefs.auto_update == p.AutoUpdatePrefs(check=False)
    assert prefs.app_connector.advertise
    assert (prefs.persist().node_id, prefs.persist().user_profile) == ("n1", p.UserProfile(7, "u@x"))
    assert prefs.persist().node_private() is None
    masked = {"autoupdate": {"check": False}, "autoupdateset": {"checkset": True}}
    assert p.edit(p.Prefs(), masked).auto_update == p.AutoUpdatePrefs(check=False)


@pytest.mark.parametrize(
    ("written", "value"),
    [(True, True), (False, False), (None, None), ("true", True), ("false", False), ("", None), ("unset", None)],
)
def test_prefs_three_valued_fields_take_texts_too(written: object, value: bool | None) -> None:
    """INV-6."""
    prefs = p.from_json({"Sync": written, "NoStatefulFiltering": written, "AutoUpdate": {"Apply": written}})
    assert (prefs.sync, prefs.no_stateful_filtering, prefs.auto_update.apply) == (value, value, value)
    masked = {"AutoUpdate": {"Apply": written}, "AutoUpdateSet": {"ApplySet": True}}
    assert p.edit(p.Prefs(), masked).auto_update.apply is value
    with pytest.raises(MeshdError, match="^Sync: "):
        p.from_json({"Sync": "perhaps"})
    with pytest.raises(MeshdError, match="^AutoUpdate: "):
        p.from_json({"AutoUpdate": {"Apply": "perhaps"}})


VALUES: dict[str, object] = {
    "ControlURL": "https://m.example",
    "RouteAll": False,
    "ExitNodeID": "n1",
    "ExitNodeIP": "100.64.0.9",
    "AutoExitNode": "any",
    "ExitNodeAllowLANAccess": True,
    "CorpDNS": False,
    "RunSSH": True,
    "RunWebClient": True,
    "WantRunning": True,
    "LoggedOut": True,
    "ShieldsUp": True,
    "AdvertiseTags": ["tag:a"],
    "Hostname": "gw",
    "NotepadURLs": True,
    "ForceDaemon": True,
    "AdvertiseRoutes": ["10.0.0.0/8"],
    "AdvertiseServices": ["svc:a"],
    "Sync": False,
    "NoSNAT": True,
    "NoStatefulFiltering": False,
    "NetfilterMode": 1,
    "OperatorUser": "ann",
    "ProfileName": "home",
    "AppConnector": {"Advertise": True},
    "PostureChecking": True,
    "NetfilterKind": "iptables",
    "RemoteConfig": True,
    "DriveShares": [{"Name": "a"}],
    "RelayServerPort": 0,
    "RelayServerStaticEndpoints": ["192.0.2.1:1"],
}


@pytest.mark.parametrize("name", sorted(VALUES))
def test_edit_any_field_alone_can_be_set_and_taken_back(name: str) -> None:
    """PP-02: by its mask, and to the zero value by a mask without value; nothing else changes."""
    before, fields = p.Prefs(), {f.encode_name: f.name for f in p.msgspec.structs.fields(p.Prefs)}
    field = fields[name]
    after = p.edit(before, {name: VALUES[name], f"{name}Set": True})
    assert json.loads(json.dumps(p.to_json(after)))[name] == VALUES[name]
    assert p.msgspec.structs.replace(after, **{field: getattr(before, field)}) == before
    zero = p.to_json(p.edit(after, {f"{name}Set": True})).get(name)
    assert zero in (None, "", False, 0, {"Advertise": False})
    assert p.edit(before, {name: VALUES[name], f"{name}Set": False}) == before


def test_edit_table_has_every_field() -> None:
    """PP-02: those that are left out cannot be set, or have masks of their own."""
    known = {field.encode_name for field in p.msgspec.structs.fields(p.Prefs)}
    assert known - VALUES.keys() == {"AutoUpdate", "Config", "InternalExitNodePrior"}


def test_prefs_app_connector_is_kept_and_told_to_be_without_effect() -> None:
    """PP-03: as is react:RunWebClient and react:AppConnector."""
    asked = p.from_json({"AppConnector": {"Advertise": True}, "RunWebClient": True})
    p.check(asked)
    assert sorted(p.without_effect(asked)) == ["AppConnector", "RunWebClient"]
    assert p.without_effect(p.Prefs()) == []


def test_edit_only_masked_fields_change() -> None:
    """pref:masks; PP-02."""
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


@pytest.mark.parametrize(
    ("masked", "complaint"),
    [
        ({"Hostname": 7}, "Hostname: Expected `str`"),
        ({"WantRunning": "yes", "WantRunningSet": False}, "WantRunning: Expected `bool`"),
        ({"Config": 1}, "Config: Expected `object"),
        ({"HostnameSet": "yes"}, "HostnameSet: expected true or false"),
        ({"HostnameSet": 0}, "HostnameSet: expected true or false"),
        ({"EggSet": 1}, "EggSet: expected true or false"),
        ({"AutoUpdate": []}, "AutoUpdate: Expected `object"),
        *(
            ({"AutoUpdate": value, "AutoUpdateSet": {"CheckSet": True}}, "AutoUpdate: Expected `object")
            for value in (False, 0, "", [])
        ),
        *(({"AutoUpdateSet": value}, "AutoUpdateSet: expected an object") for value in (False, 0, "", [], True)),
        ({"AutoUpdateSet": {"CheckSet": 1}}, "CheckSet: expected true or false"),
    ],
)
def test_edit_takes_no_wrong_type_even_where_it_is_not_marked(masked: dict[str, Any], complaint: str) -> None:
    """PP-02, PP-05: tailscaled answers 400 as well."""
    with pytest.raises(MeshdError, match=re.escape(complaint)):
        p.edit(p.Prefs(), masked)


def test_edit_takes_null_for_what_is_not_said() -> None:
    """PP-02."""
    said_nothing = dict.fromkeys(("Hostname", "HostnameSet", "AutoUpdate", "AutoUpdateSet", "Config", "EggSet"))
    assert p.edit(p.Prefs(hostname="a"), said_nothing) == p.Prefs(hostname="a")


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
        (
            {"AutoExitNode": "any", "AdvertiseRoutes": ["0.0.0.0/0", "::/0"]},
            "Cannot advertise an exit node and use an exit node at the same time.",
        ),
        ({"AdvertiseRoutes": ["10.0.0.1/8"]}, "route 10.0.0.1/8 has non-address bits set; expected 10.0.0.0/8"),
        ({"AdvertiseRoutes": ["nonsense"]}, "'nonsense' is not a route"),
        ({"AdvertiseTags": ["nonsense"]}, "tags must start with 'tag:'"),
        ({"NetfilterMode": 5}, "NetfilterMode is 5"),
        ({"RunSSH": True}, "This build of meshd has no SSH server."),
        ({"ExitNodeIP": "nowhere"}, "is not an IP address"),
        ({"ControlURL": "ftp://x"}, "must start with http"),
        ({"ControlURL": "https://x/path"}, "not the URL of a coordination server. Write it as"),
        ({"ControlURL": "https://a b"}, "not the URL of a coordination server"),
        ({"ControlURL": "https://[::1"}, "not the URL of a coordination server"),
        ({"AutoUpdate": {"Check": True, "Apply": True}}, "Auto-updates are not supported on this platform."),
    ],
)
def test_check_complaint_is_clear(changes: dict[str, object], text: str) -> None:
    """PP-06, PP-05."""
    with pytest.raises(MeshdError) as caught:
        p.check(p.from_json(changes))
    assert text in caught.value.message


def test_check_reports_all_complaints_at_once() -> None:
    """PP-05."""
    with pytest.raises(MeshdError) as caught:
        p.check(p.from_json({"NetfilterMode": 9, "AdvertiseTags": ["x"]}))
    assert len(caught.value.message.splitlines()) == 2


def test_redacted_prefs_hold_no_private_key() -> None:
    """pref:Config; INV-3, PP-01."""
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


def test_prefs_relay_server_settings_are_kept_as_clients_write_them() -> None:
    """PP-01: absent until set, zero is a value, null and an empty list take them back."""
    assert "RelayServerPort" not in p.to_json(p.Prefs())
    asked = {"RelayServerPort": 0, "RelayServerStaticEndpoints": ["192.0.2.1:40000"]}
    marks = {"RelayServerPortSet": True, "RelayServerStaticEndpointsSet": True}
    changed = p.edit(p.Prefs(), asked | marks)
    assert json.loads(json.dumps({name: p.to_json(changed)[name] for name in asked})) == asked
    assert p.from_json(p.to_json(changed)) == changed
    assert p.without_effect(changed) == ["RelayServerPort", "RelayServerStaticEndpoints"]
    assert p.edit(changed, marks) == p.Prefs()
    with pytest.raises(MeshdError, match="RelayServerPort"):
        p.edit(p.Prefs(), {"RelayServerPort": 70000, "RelayServerPortSet": True})
    with pytest.raises(MeshdError, match="not an address with a port"):
        p.check(p.edit(p.Prefs(), {"RelayServerStaticEndpoints": ["x"], "RelayServerStaticEndpointsSet": True}))
