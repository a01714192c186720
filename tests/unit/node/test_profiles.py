"""Login profiles and where their preferences live."""

from __future__ import annotations

import os
from pathlib import Path
from unittest.mock import Mock

import msgspec
import pytest

from meshd.base.errors import MeshdError
from meshd.base.keys import NodePrivate
from meshd.core.prefs import Persist, Prefs, UserProfile, to_json
from meshd.node.identity import from_control, to_control
from meshd.node.profiles import Profiles
from meshd.node.store import FileStore, MemoryStore


def logged_in(user: int = 1, node: str = "1", url: str = "http://c", name: str = "u") -> Prefs:
    key = NodePrivate.generate().text()
    persist = Persist(private_node_key=key, user_profile=UserProfile(id=user, login_name=name), node_id=node)
    return Prefs(control_url=url, want_running=True, config=persist)


def profiles(store: object) -> Profiles:
    return Profiles(store, os.urandom, lambda: 1.0)  # type: ignore[arg-type]


def test_profiles_first_login_gets_an_id_and_survives_restart(tmp_path: Path) -> None:
    """PS-04, PS-05, PS-07."""
    store = FileStore(tmp_path / "state")
    first = profiles(store)
    assert first.current.id == ""
    prefs = logged_in()
    first.set_prefs(prefs)
    assert first.current.key == f"profile-{first.current.id}"
    again = profiles(FileStore(tmp_path / "state"))
    assert again.current == first.current
    assert again.prefs == prefs


def test_profiles_before_login_nothing_is_stored(tmp_path: Path) -> None:
    """PS-07."""
    store = FileStore(tmp_path / "state")
    made = profiles(store)
    made.set_prefs(Prefs(hostname="x"))
    assert made.prefs.hostname == "x"
    assert profiles(FileStore(tmp_path / "state")).prefs.hostname == ""


def test_profiles_same_user_at_same_server_uses_its_profile_again() -> None:
    """PS-07."""
    made = profiles(MemoryStore())
    made.set_prefs(logged_in())
    first = made.current.id
    made.new()
    made.set_prefs(logged_in(node="2"))
    assert made.current.id == first
    assert len(made.list()) == 1


def test_profiles_two_servers_are_two_profiles_and_switch() -> None:
    """PS-10, PS-11."""
    made = profiles(MemoryStore())
    made.set_prefs(logged_in(url="http://one", name="a"))
    one = made.current.id
    made.new()
    made.set_prefs(logged_in(url="http://two", name="b"))
    assert [p.name for p in made.list()] == ["a", "b"]
    made.switch(one)
    assert made.prefs.control_url == "http://one"
    with pytest.raises(MeshdError) as caught:
        made.switch("zzzz")
    assert caught.value.code == "not_found"


def test_profiles_deleting_the_current_one_begins_an_empty_one() -> None:
    """PS-12."""
    store = MemoryStore()
    made = profiles(store)
    made.set_prefs(logged_in())
    key = made.current.key
    assert made.delete(made.current.id)
    assert made.current.id == ""
    assert store.read(key) is None
    assert not made.delete("unknown")


def test_profiles_machine_key_is_made_once(tmp_path: Path) -> None:
    """LK-01."""
    key = profiles(FileStore(tmp_path / "s")).machine_key()
    assert profiles(FileStore(tmp_path / "s")).machine_key() == key


@pytest.mark.parametrize("stored", [b"privkey:" + b"00" * 32, b"nonsense", b"privkey:12"])
def test_profiles_bad_machine_key_is_an_error_not_a_new_identity(stored: bytes) -> None:
    """LK-01."""
    store = MemoryStore()
    store.write("_machinekey", stored)
    with pytest.raises(MeshdError, match="_machinekey"):
        profiles(store).machine_key()
    assert store.read("_machinekey") == stored


STATE_OF_A_CLIENT = {
    "ControlURL": "http://c",
    "WantRunning": True,
    "Config": {
        "PrivateMachineKey": "privkey:" + "0a" * 32,
        "PrivateNodeKey": "privkey:" + "0b" * 32,
        "OldPrivateNodeKey": "privkey:" + "0c" * 32,
        "UserProfile": {"ID": 1, "LoginName": "u", "DisplayName": "U", "Roles": []},
        "NetworkLockKey": "nlpriv:" + "0d" * 64,
        "NodeID": "n1",
        "AttestationKey": {"wrapped": "by a chip"},
        "DisallowedTKAStateIDs": ["12:34"],
    },
}


def stored_by_a_client(**changes: object) -> MemoryStore:
    """A store with one profile, as another client of these networks left it."""
    store = MemoryStore()
    profile = {
        "ID": "abcd",
        "Name": "u",
        "Key": "profile-abcd",
        "NetworkProfile": {"MagicDNSName": "mesh.test", "DomainName": "example.com", "DisplayName": "Example"},
        "UserProfile": {"ID": 1, "LoginName": "u", "DisplayName": "U"},
        "NodeID": "n1",
        "LocalUserID": "1000",
        "ControlURL": "http://c",
        "Created": "2024-05-06T07:08:09Z",
    }
    store.write("_profiles", msgspec.json.encode({"abcd": profile}))
    store.write("_current-profile", b"profile-abcd")
    config = {**STATE_OF_A_CLIENT["Config"], **changes}  # type: ignore[dict-item]
    store.write("profile-abcd", msgspec.json.encode({**STATE_OF_A_CLIENT, "Config": config}))
    return store


@pytest.mark.parametrize(
    "name",
    [
        "PrivateMachineKey",
        "PrivateNodeKey",
        "OldPrivateNodeKey",
        "NetworkLockKey",
        "NodeID",
        "AttestationKey",
        "DisallowedTKAStateIDs",
    ],
)
def test_profiles_identity_of_another_client_is_kept_whole(name: str) -> None:
    """PS-08: a login renewed here leaves everything in its place, also what this program has no use for."""
    store = stored_by_a_client()
    opened = profiles(store)
    renewed = from_control(to_control(opened.prefs.persist()), opened.prefs.persist())
    opened.set_prefs(msgspec.structs.replace(opened.prefs, hostname="h", config=renewed))
    written = msgspec.json.decode(store.read("profile-abcd") or b"")
    assert written["Hostname"] == "h"
    assert written["Config"][name] == STATE_OF_A_CLIENT["Config"][name]  # type: ignore[index]


@pytest.mark.parametrize("name", ["AttestationKey", "DisallowedTKAStateIDs", "PrivateMachineKey"])
def test_profiles_identity_of_ours_has_no_fields_of_others(name: str) -> None:
    store = MemoryStore()
    opened = profiles(store)
    opened.set_prefs(logged_in())
    assert name not in msgspec.json.decode(store.read(opened.current.key) or b"")["Config"]


@pytest.mark.parametrize("name", ["NetworkProfile", "LocalUserID", "Created", "ControlURL", "NodeID", "Key", "ID"])
def test_profiles_of_another_client_are_kept_as_they_were(name: str) -> None:
    """PS-05."""
    store = stored_by_a_client()
    before = msgspec.json.decode(store.read("_profiles") or b"")["abcd"]
    opened = profiles(store)
    opened.set_prefs(msgspec.structs.replace(opened.prefs, profile_name="mine"))
    after = msgspec.json.decode(store.read("_profiles") or b"")["abcd"]
    assert after["Name"] == "mine"
    assert after[name] == before[name]


def test_profiles_old_machine_key_moves_to_its_place() -> None:
    """LK-01: the device stays the device; the zero key that newer versions write there is none."""
    store = stored_by_a_client()
    key = profiles(store).machine_key()
    assert key.text() == "privkey:" + "0a" * 32
    assert store.read("_machinekey") == key.text().encode()
    fresh = profiles(stored_by_a_client(PrivateMachineKey="privkey:" + "00" * 32)).machine_key()
    assert not fresh.is_zero
    with pytest.raises(MeshdError, match="PrivateMachineKey"):
        profiles(stored_by_a_client(PrivateMachineKey="privkey:12")).machine_key()


@pytest.mark.parametrize("name", ["PrivateNodeKey", "OldPrivateNodeKey", "NetworkLockKey"])
def test_profiles_damaged_key_is_explained_and_kept(name: str) -> None:
    """SM-21: no crash, no new identity in its place, and not a word of the key itself."""
    store = stored_by_a_client(**{name: "privkey:0b0b"})
    profiles(store)
    assert store.problem is not None
    assert "keys in profile-abcd are damaged" in store.problem.message
    assert "0b0b" not in str(store.problem)
    assert b'"privkey:0b0b"' in (store.read("profile-abcd") or b"")


def test_profiles_switch_to_a_damaged_one_stays_where_it_is() -> None:
    """PS-10."""
    store = stored_by_a_client(PrivateNodeKey="privkey:0b0b")
    store.write("_current-profile", b"")
    opened = profiles(store)
    with pytest.raises(MeshdError, match="keys in profile-abcd are damaged"):
        opened.switch("abcd")
    assert opened.current.id == ""
    assert store.problem is None


def test_profiles_other_peoples_keys_are_not_shown() -> None:
    """INV-3."""
    shown = repr(to_json(profiles(stored_by_a_client()).prefs.redacted()))
    assert "0a0a" not in shown
    assert "0b0b" not in shown
    assert "by a chip" not in shown


def test_profiles_damaged_list_stops_logins_and_keeps_the_state() -> None:
    store = MemoryStore()
    store.write("_profiles", b"{broken")
    profiles(store)
    assert store.problem is not None
    assert "profiles cannot be understood" in store.problem.message
    assert store.read("_profiles") == b"{broken"


def test_profiles_failed_write_keeps_the_old_preferences(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    made = profiles(store)
    made.set_prefs(logged_in())
    before = made.prefs

    def refuse(changes: object) -> None:
        raise MeshdError("disk full")

    monkeypatch.setattr(store, "update", refuse)
    with pytest.raises(MeshdError):
        made.set_prefs(msgspec.structs.replace(before, hostname="new"))
    assert made.prefs is before


def test_profiles_kept_ones_are_current_and_stored_with_the_next_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """LK-05: two logins that a full disk did not take, one of which replaces what was there."""
    store = MemoryStore()
    made = profiles(store)
    heard: list[MeshdError | None] = []
    made.on_unstored = heard.append
    made.set_prefs(logged_in(node="1"))
    first = made.current.id
    full = MeshdError("disk full")
    with monkeypatch.context() as patched:
        patched.setattr(store, "update", Mock(side_effect=full))
        renewed = msgspec.structs.replace(logged_in(node="2"), hostname="renewed")
        made.keep(renewed)
        assert (made.prefs, made.current.id, made.current.node_id) == (renewed, first, "2")
        made.new()
        made.keep(logged_in(user=2, node="3", name="another"))
        second = made.current.id
        assert {p.id for p in made.list()} == {first, second}
        assert not made.store_rest()
        with pytest.raises(MeshdError):
            made.switch(first)
        assert made.current.id == second
        assert heard == [full, full, full]
    assert profiles(store).prefs.persist().node_id == "1"
    made.switch(first)
    assert made.prefs == renewed
    assert heard == [full, full, full, None]
    assert made.store_rest()
    again = profiles(store)
    assert (again.prefs, again.current, again.list()) == (renewed, made.current, made.list())
    again.switch(second)
    assert again.prefs.persist().node_id == "3"


def test_profiles_kept_one_that_is_deleted_does_not_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """PS-12."""
    store = MemoryStore()
    made = profiles(store)
    made.set_prefs(logged_in())
    with monkeypatch.context() as patched:
        patched.setattr(store, "update", Mock(side_effect=MeshdError("disk full")))
        made.keep(msgspec.structs.replace(made.prefs, hostname="new"))
    key = made.current.key
    made.delete(made.current.id)
    assert made.store_rest()
    assert store.read(key) is None
    assert profiles(store).list() == []


def test_profiles_login_that_replaces_a_profile_is_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash or a full disk in between would lose the node key of the old profile before the new one is stored."""
    store = FileStore(tmp_path / "state")
    made = profiles(store)
    made.set_prefs(logged_in(node="1"))
    before = (tmp_path / "state").read_bytes()
    made.new()

    def full(path: Path, data: bytes, mode: int = 0o600) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("meshd.node.store.write_atomic", full)
        with pytest.raises(MeshdError):
            made.set_prefs(logged_in(node="1"))
        assert (tmp_path / "state").read_bytes() == before
    writes: list[bytes] = []
    real = store._save
    monkeypatch.setattr(store, "_save", lambda values: (writes.append(b""), real(values)))
    made.set_prefs(logged_in(node="1"))
    assert len(writes) == 1
    again = profiles(FileStore(tmp_path / "state"))
    assert again.prefs == made.prefs
    assert again.list() == made.list()
