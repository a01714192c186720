"""Every preference, field of a login profile and field of an identity: its name, its default, and what it holds."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from meshd.core import prefs as p
from meshd.core.profile import LoginProfile, NetworkProfile

PREFERENCES: dict[str, tuple[Any, Any]] = {
    "ControlURL": ("", "https://mesh.example"),
    "RouteAll": (False, True),
    "ExitNodeID": ("", "n1"),
    "ExitNodeIP": ("", "100.64.0.9"),
    "ExitNodeAllowLANAccess": (False, True),
    "CorpDNS": (True, False),
    "RunSSH": (False, True),
    "RunWebClient": (False, True),
    "WantRunning": (False, True),
    "LoggedOut": (True, False),
    "ShieldsUp": (False, True),
    "AdvertiseTags": (None, ["tag:a"]),
    "Hostname": ("", "router"),
    "NotepadURLs": (False, True),
    "AdvertiseRoutes": (None, ["10.0.0.0/8"]),
    "AdvertiseServices": (None, ["svc:a"]),
    "NoSNAT": (False, True),
    "NoStatefulFiltering": (True, False),
    "NetfilterMode": (2, 0),
    "PostureChecking": (False, True),
    "NetfilterKind": ("", "iptables"),
    "DriveShares": (None, [{"name": "a", "path": "/a", "who": "u", "bookmarkData": "AA=="}]),
    "AppConnector": ({"Advertise": False}, {"Advertise": True}),
    "RemoteConfig": (False, True),
    "Sync": (None, False),
}
"""By name: the default of a new profile, another value."""
WRITTEN_WHEN_SET: dict[str, Any] = {
    "AutoExitNode": "any",
    "ForceDaemon": True,
    "OperatorUser": "ann",
    "ProfileName": "work",
    "RelayServerPort": 40000,
    "RelayServerStaticEndpoints": ["192.0.2.1:40000"],
}
"""Absent from the JSON until they have a value."""
NOT_KEPT = {"Egg": True, "AllowSingleHosts": True, "OfTheFuture": 1}


def written(prefs: p.Prefs) -> dict[str, Any]:
    """The JSON object as it reads for others."""
    read: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(p.to_json(prefs)))
    return read


@pytest.mark.parametrize("name", PREFERENCES)
def test_preference_has_its_default_and_takes_another_value(name: str) -> None:
    """PP-02: an edit with its mask changes it and nothing else; without the mask it changes nothing."""
    default, other = PREFERENCES[name]
    before = p.default_prefs()
    assert written(before)[name] == default
    after = written(p.edit(before, {name: other, f"{name}Set": True}))
    assert after == written(before) | {name: other}
    assert p.edit(before, {name: other}) == before
    assert written(p.from_json(json.loads(json.dumps(after)))) == after


@pytest.mark.parametrize("name", WRITTEN_WHEN_SET)
def test_preference_is_written_only_when_it_is_set(name: str) -> None:
    before = p.default_prefs()
    assert name not in written(before)
    after = p.edit(before, {name: WRITTEN_WHEN_SET[name], f"{name}Set": True})
    assert written(after) == written(before) | {name: WRITTEN_WHEN_SET[name]}
    assert p.from_json(written(after)) == after


def test_preference_auto_update_has_two_parts() -> None:
    """pref:AutoUpdate: Check and Apply, each with a mask."""
    before = p.default_prefs()
    assert written(before)["AutoUpdate"] == {"Check": True, "Apply": None}
    edit = {"AutoUpdate": {"Check": False, "Apply": False}, "AutoUpdateSet": {"ApplySet": True}}
    assert written(p.edit(before, edit))["AutoUpdate"] == {"Check": True, "Apply": False}


def test_preference_of_the_last_exit_node_is_kept_and_not_settable() -> None:
    """pref:InternalExitNodePrior."""
    prefs = p.from_json({"InternalExitNodePrior": "n1"})
    assert written(prefs)["InternalExitNodePrior"] == "n1"
    with pytest.raises(p.MeshdError, match="can't set Internal fields"):
        p.edit(prefs, {"InternalExitNodePrior": "n2", "InternalExitNodePriorSet": True})


@pytest.mark.parametrize("name", NOT_KEPT)
def test_preference_that_means_nothing_here_is_read_over(name: str) -> None:
    prefs = p.from_json({name: NOT_KEPT[name], "Hostname": "x"})
    assert name not in written(prefs)
    assert prefs.hostname == "x"


def test_preferences_of_the_table_are_all_there_are() -> None:
    others = {"AutoUpdate", "InternalExitNodePrior", "Config"}
    names = {field.encode_name for field in msgspec.structs.fields(p.Prefs)}
    assert names == PREFERENCES.keys() | WRITTEN_WHEN_SET.keys() | others


KEY = "privkey:" + "1f" * 32
LOCK = "nlpriv:" + "2f" * 64
PERSIST: dict[str, Any] = {
    "PrivateNodeKey": KEY,
    "OldPrivateNodeKey": KEY,
    "UserProfile": {"ID": 7, "LoginName": "ann@example", "DisplayName": "Ann"},
    "NetworkLockKey": LOCK,
    "NodeID": "n1",
    "DisallowedTKAStateIDs": ["1:2"],
    "PrivateMachineKey": KEY,
    "AttestationKey": {"tpm": "blob"},
}
SECRET = ("PrivateNodeKey", "OldPrivateNodeKey", "NetworkLockKey", "PrivateMachineKey", "AttestationKey")


@pytest.mark.parametrize("name", PERSIST)
def test_identity_field_comes_back_as_it_was_stored(name: str) -> None:
    """INV-3: and what is secret is not in what local programs see."""
    stored = written(p.from_json({"Config": PERSIST}))
    assert stored["Config"][name] == PERSIST[name]
    shown = written(p.from_json({"Config": PERSIST}).redacted())["Config"]
    if name in SECRET:
        assert str(PERSIST[name]) not in json.dumps(shown)
    else:
        assert shown[name] == PERSIST[name]


def test_identity_that_was_never_stored_has_keys_of_zeros() -> None:
    """state:Config of zero keys; a legacy machine key and locked-out states are absent, unless there were some."""
    assert written(p.from_json({"Config": {}}))["Config"] == {
        "PrivateNodeKey": "privkey:" + "00" * 32,
        "OldPrivateNodeKey": "privkey:" + "00" * 32,
        "UserProfile": {"ID": 0, "LoginName": "", "DisplayName": ""},
        "NetworkLockKey": "nlpriv:" + "00" * 64,
        "NodeID": "",
    }


PROFILE: dict[str, Any] = {
    "ID": "0a1b",
    "Name": "ann@example",
    "NetworkProfile": {"MagicDNSName": "t.ts.net", "DomainName": "example", "DisplayName": "Example"},
    "Key": "profile-0a1b",
    "UserProfile": {"ID": 7, "LoginName": "ann@example", "DisplayName": "Ann", "ProfilePicURL": "https://p"},
    "NodeID": "n1",
    "LocalUserID": "1000",
    "ControlURL": "https://mesh.example",
    "Created": "2026-11-28T10:00:00Z",
}


@pytest.mark.parametrize("name", PROFILE)
def test_login_profile_field_comes_back_as_it_was_stored(name: str) -> None:
    """And one that is absent has its zero value."""
    profile = msgspec.json.decode(json.dumps(PROFILE), type=LoginProfile)
    assert msgspec.to_builtins(profile)[name] == PROFILE[name]
    without = {key: value for key, value in PROFILE.items() if key != name}
    empty = msgspec.to_builtins(msgspec.json.decode(json.dumps(without), type=LoginProfile))[name]
    assert empty == msgspec.to_builtins(LoginProfile())[name]


def test_login_profile_names_are_all_there_are() -> None:
    assert {field.encode_name for field in msgspec.structs.fields(LoginProfile)} == PROFILE.keys()
    assert {field.encode_name for field in msgspec.structs.fields(NetworkProfile)} == PROFILE["NetworkProfile"].keys()
