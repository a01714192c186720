"""What the state holds for login profiles: entries of every kind, old forms, and processes killed while they change."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from meshd.base.errors import MeshdError
from meshd.base.keys import MachinePrivate, NodePrivate
from meshd.core.prefs import Persist, Prefs, UserProfile
from meshd.core.profile import NetworkProfile
from meshd.node import profiles as profiles_module
from meshd.node.profiles import Profiles
from meshd.node.statekey import InFile
from meshd.node.store import FileStore, MemoryStore, Store
from tests.unit.node.killpoints import kill_everywhere

MACHINE = MachinePrivate.generate()
NODE = NodePrivate.generate()

# How an entry is called in general, and in the states of these tests.
ENTRIES = {
    "_machinekey": "_machinekey",
    "_profiles": "_profiles",
    "_current-profile": "_current-profile",
    "profile-XXXX": "profile-ab12",
    "_serve/<profileID>": "_serve/ab12",
    "<profileKey>||_routeInfo": "profile-ab12||_routeInfo",
}

LOGIN_PROFILE = {
    "ID": "ab12",
    "Name": "work",
    "NetworkProfile": {"MagicDNSName": "tail1.ts.net", "DomainName": "example.com", "DisplayName": "Example"},
    "Key": "profile-ab12",
    "UserProfile": {"ID": 7, "LoginName": "u@example.com", "DisplayName": "U", "Roles": None},
    "NodeID": "n7",
    "LocalUserID": "",
    "ControlURL": "https://c.example",
    "Created": "2025-02-03T04:05:06Z",
}


def prefs_of(**config: Any) -> dict[str, Any]:
    persist = {"PrivateNodeKey": NODE.text(), "UserProfile": {"ID": 7, "LoginName": "u@example.com"}, "NodeID": "n7"}
    return {"ControlURL": "https://c.example", "WantRunning": True, "Hostname": "h", "Config": persist | config}


def tailscaled_state() -> dict[str, bytes]:
    """As tailscaled leaves it."""
    values = {
        "_machinekey": MACHINE.text(),
        "_profiles": json.dumps({"ab12": LOGIN_PROFILE}),
        "_current-profile": "profile-ab12",
        "profile-XXXX": json.dumps(prefs_of(), indent="\t"),
        "_serve/<profileID>": '{"TCP":{}}',
        "<profileKey>||_routeInfo": "{}",
    }
    return {ENTRIES[name]: value.encode() for name, value in values.items()}


def store_with(values: dict[str, bytes]) -> MemoryStore:
    store = MemoryStore()
    store.update(values)
    return store


def open_profiles(store: Store) -> Profiles:
    made = Profiles(store, os.urandom, lambda: 1.0)
    assert store.problem is None, store.problem
    return made


def identity(node: str, url: str = "http://c", user: int = 1) -> Prefs:
    persist = Persist(
        private_node_key=NodePrivate.generate().text(), user_profile=UserProfile(user, f"u{user}"), node_id=node
    )
    return Prefs(control_url=url, want_running=True, config=persist)


def test_profiles_entries_of_tailscaled_are_read_and_kept() -> None:
    """PS-05, PS-09, PS-17."""
    before = tailscaled_state()
    store = store_with(before)
    made = open_profiles(store)
    assert made.machine_key() == MACHINE
    assert made.current.id == "ab12"
    assert made.prefs.persist().node_private() == NODE
    assert [profile.name for profile in made.list()] == ["work"]
    made.set_prefs(made.prefs)
    for name in ("_serve/<profileID>", "<profileKey>||_routeInfo", "_machinekey", "_current-profile"):
        assert store.read(ENTRIES[name]) == before[ENTRIES[name]]


def test_profiles_all_of_a_login_profile_comes_back() -> None:
    made = open_profiles(store_with(tailscaled_state()))
    network = {"MagicDNSName": "tail1.ts.net", "DomainName": "example.com", "DisplayName": "Example"}
    given = msgspec.to_builtins(made.current)
    for name in ("ID", "Name", "Key", "NodeID", "LocalUserID", "ControlURL", "Created"):
        assert given[name] == LOGIN_PROFILE[name]
    assert given["NetworkProfile"] == network
    assert given["UserProfile"] == {"ID": 7, "LoginName": "u@example.com", "DisplayName": "U"}


def test_profiles_fields_of_other_daemons_survive_a_change() -> None:
    """A tailscaled that takes the state over again finds what it wrote."""
    values = tailscaled_state()
    data = prefs_of(DisallowedTKAStateIDs=["1:2"], AttestationKey={"a": 1}) | {"PrefOfTomorrow": [1], "Egg": None}
    values["profile-ab12"] = json.dumps(data).encode()
    store = store_with(values)
    made = open_profiles(store)
    made.set_prefs(msgspec.structs.replace(made.prefs, hostname="new"))
    written = json.loads(store.read("profile-ab12") or b"")
    assert (written["Hostname"], written["PrefOfTomorrow"], written["Egg"]) == ("new", [1], None)
    assert written["Config"]["DisallowedTKAStateIDs"] == ["1:2"]
    assert written["Config"]["AttestationKey"] == {"a": 1}
    assert written["Config"]["PrivateNodeKey"] == NODE.text()


def test_profiles_deleted_profile_leaves_none_of_its_entries() -> None:
    """PS-12, PS-17."""
    store = store_with(tailscaled_state())
    open_profiles(store).delete("ab12")
    assert store.read("_machinekey") is not None
    for name in ("profile-XXXX", "_serve/<profileID>", "<profileKey>||_routeInfo", "_current-profile"):
        assert store.read(ENTRIES[name]) is None


def test_profiles_login_from_before_there_were_profiles_goes_on() -> None:
    """PS-05, LK-01: `_daemon` is read while there is nothing newer, and is left in place."""
    legacy = json.dumps(prefs_of(NodeID="", PrivateMachineKey=MACHINE.text())).encode()
    store = store_with({"_daemon": legacy})
    made = open_profiles(store)
    assert made.prefs.persist().node_private() == NODE
    assert made.machine_key() == MACHINE
    persist = msgspec.structs.replace(made.prefs.persist(), node_id="n7")
    made.set_prefs(msgspec.structs.replace(made.prefs, config=persist))
    again = open_profiles(store)
    assert again.current.node_id == "n7"
    assert again.machine_key() == MACHINE
    assert store.read("_daemon") == legacy
    again.delete(again.current.id)
    assert open_profiles(store).prefs.persist().node_private() is None


def test_profiles_old_login_that_was_left_does_not_come_back() -> None:
    store = store_with({"_daemon": json.dumps(prefs_of()).encode()})
    made = open_profiles(store)
    assert made.delete(made.current.id)
    assert open_profiles(store).prefs.persist().node_private() is None


@pytest.mark.parametrize("text", ["privkey:" + "00" * 32, "", None])
def test_profiles_old_login_without_usable_machine_key_gets_one(text: str | None) -> None:
    """LK-01."""
    store = store_with({"_daemon": json.dumps(prefs_of(PrivateMachineKey=text)).encode()})
    key = open_profiles(store).machine_key()
    assert not key.is_zero
    assert open_profiles(store).machine_key() == key


def test_profiles_repairs_what_daemons_of_the_past_wrote() -> None:
    """PS-08."""
    data = prefs_of() | {"ControlURL": "https://login.tailscale.com", "AutoUpdate": {"Check": True, "Apply": True}}
    del data["Hostname"]
    made = open_profiles(store_with(tailscaled_state() | {"profile-ab12": json.dumps(data).encode()}))
    assert made.prefs.control_url == ""
    assert made.prefs.auto_update.apply is None
    assert made.prefs.corp_dns
    empty = open_profiles(store_with(tailscaled_state() | {"profile-ab12": b""}))
    assert (empty.prefs.want_running, empty.prefs.logged_out) == (False, True)


@pytest.mark.parametrize(
    "blob",
    [b"{", b"[]", b'{"Hostname": 5}', b'{"Config": {"PrivateNodeKey": "privkey:12"}}', b'{"Config": 1}', b"\xff"],
)
def test_profiles_damaged_preferences_refuse_the_switch_and_the_start(blob: bytes) -> None:
    store = MemoryStore()
    made = open_profiles(store)
    made.set_prefs(identity("1"))
    one = made.current
    made.new()
    made.set_prefs(identity("2", url="http://d"))
    two = made.current
    store.write(one.key, blob)
    with pytest.raises(MeshdError, match="damaged|Hostname|Config"):
        made.switch(one.id)
    assert made.current == two
    assert store.read("_current-profile") == two.key.encode()
    store.write("_current-profile", one.key.encode())
    Profiles(store, os.urandom, lambda: 1.0)
    assert store.problem is not None
    assert "does not log in" in str(store.problem)
    assert store.read(one.key) == blob


def test_profiles_names_are_sorted_and_the_current_one_may_be_none_of_them() -> None:
    """PS-09."""
    made = open_profiles(MemoryStore())
    for node, name in (("1", "zebra"), ("2", "ant")):
        made.new()
        made.set_prefs(msgspec.structs.replace(identity(node, user=int(node)), profile_name=name))
    made.new()
    assert [profile.name for profile in made.list()] == ["ant", "zebra"]
    assert (made.current.id, made.current.name) == ("", "")


def test_profiles_network_that_is_learnt_later_is_stored() -> None:
    """PS-16."""
    store = MemoryStore()
    made = open_profiles(store)
    made.set_prefs(identity("1"))
    assert made.current.network_profile.domain_name == ""
    made.set_prefs(made.prefs, NetworkProfile("x.mesh.", "example.com"))
    assert open_profiles(store).current.network_profile.domain_name == "example.com"


def test_profiles_reset_forgets_everything_in_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """PS-14."""
    store = store_with(tailscaled_state())
    made = open_profiles(store)
    gone: list[str] = []
    made.on_deleted = gone.append

    def full(_: object) -> None:
        raise MeshdError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(store, "update", full)
        with pytest.raises(MeshdError):
            made.reset()
    assert (made.current.id, gone) == ("ab12", [])
    made.reset()
    assert gone == ["ab12"]
    assert [key for key in ENTRIES.values() if store.read(key)] == ["_profiles"]
    assert open_profiles(store).machine_key() != MACHINE


def test_profiles_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles_module, "MAX_PROFILES", 2)
    made = open_profiles(MemoryStore())
    for node in ("1", "2"):
        made.check_room()
        made.new()
        made.set_prefs(identity(node, user=int(node)))
    with pytest.raises(MeshdError, match="2 login profiles already"):
        made.check_room()
    made.delete(made.current.id)
    made.check_room()


def _switch(made: Profiles, one: str, _: str) -> None:
    made.switch(one)


def _delete_other(made: Profiles, one: str, _: str) -> None:
    made.delete(one)


def _delete_current(made: Profiles, _: str, two: str) -> None:
    made.delete(two)


def _log_in_anew(made: Profiles, one: str, two: str) -> None:
    made.new()
    made.set_prefs(identity("3", url="http://e", user=3))


def _rename(made: Profiles, one: str, two: str) -> None:
    made.set_prefs(msgspec.structs.replace(made.prefs, profile_name="other"))


def _forget_all(made: Profiles, one: str, two: str) -> None:
    made.reset()


@pytest.mark.parametrize("act", [_switch, _delete_other, _delete_current, _log_in_anew, _rename, _forget_all])
@pytest.mark.parametrize("sealed", [False, True], ids=["plain", "sealed"])
def test_profiles_killed_at_every_step_of_a_change_lose_no_key(
    tmp_path: Path, act: Callable[[Profiles, str, str], None], sealed: bool
) -> None:
    """INV-2, PS-10, PS-12: all of the change is there afterwards, or nothing of it."""
    path = tmp_path / "state"

    def opened() -> Profiles:
        return open_profiles(FileStore(path, sealed=sealed, protection=InFile()))

    made = opened()
    made.machine_key()
    made.set_prefs(identity("1"))
    one = made.current.id
    made.new()
    made.set_prefs(identity("2", url="http://d", user=2))
    two = made.current.id
    files = {file: file.read_bytes() for file in tmp_path.iterdir()}
    before = _facts(opened())
    outcomes = []

    def prepare() -> None:
        for file in tmp_path.iterdir():
            file.unlink()
        for file, content in files.items():
            file.write_bytes(content)

    for _ in kill_everywhere(prepare, lambda: act(opened(), one, two)):
        outcomes.append(_facts(opened()))
    after = outcomes[-1]
    assert after[:2] != before[:2]
    # A profile that logs in anew gets another id and key every time; all else must be one of the two.
    shape = [_shape(facts) for facts in outcomes]
    assert all(one in (_shape(before), _shape(after)) for one in shape)
    assert len(outcomes) > 4


Facts = tuple[str, dict[str, str], bytes | None]


def _facts(made: Profiles) -> Facts:
    """The current profile by name, node keys by name, and the machine key."""
    keys = {p.name: made._read_prefs(p.key).persist().private_node_key for p in made.list()}
    return made.current.name, keys, made._store.read("_machinekey")


def _shape(facts: Facts) -> tuple[str, dict[str, str], bytes | None]:
    current, keys, machine = facts
    return current, {name: key for name, key in keys.items() if name != "u3"} | {"u3": str("u3" in keys)}, machine
