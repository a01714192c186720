"""What is in the state file under which key, as tailscaled would look for it."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from pathlib import Path

import msgspec

from meshd.base.keys import NodePrivate
from meshd.core.prefs import Persist, UserProfile, default_prefs
from meshd.node.componentlog import ComponentLog
from meshd.node.profiles import Profiles
from meshd.node.store import FileStore
from meshd.testing.clock import FakeClock


def random(size: int) -> bytes:
    return bytes(range(10, 10 + size))


def logged_in(profiles: Profiles) -> str:
    persist = Persist(
        private_node_key=NodePrivate.generate(random).text(),
        user_profile=UserProfile(id=7, login_name="ann@example"),
        node_id="n1",
    )
    profiles.set_prefs(msgspec.structs.replace(default_prefs(), config=persist, want_running=True))
    return profiles.current.id


def entries(path: Path) -> dict[str, bytes]:
    return {key: base64.b64decode(value) for key, value in json.loads(path.read_text()).items()}


def test_state_has_machine_key_profiles_and_preferences_under_the_known_keys(tmp_path: Path) -> None:
    """PS-03: _machinekey, _profiles, _current-profile, and profile-XXXX with the identity under Config; file:state
    file: one JSON object of base64 values, two spaces deep, for its owner only.
    (file:state file)."""
    path = tmp_path / "state"
    profiles = Profiles(FileStore(path), random, lambda: 1.0)
    machine = profiles.machine_key()
    identity = logged_in(profiles)
    assert path.stat().st_mode & 0o777 == 0o600
    assert re.search(r'^  "_machinekey": "', path.read_text(), re.MULTILINE)
    stored = entries(path)
    assert stored["_machinekey"].decode() == machine.text()
    assert stored["_machinekey"].startswith(b"privkey:")
    assert json.loads(stored["_profiles"])[identity]["UserProfile"]["LoginName"] == "ann@example"
    assert stored["_current-profile"].decode() == f"profile-{identity}"
    assert re.fullmatch("[0-9a-f]{4}", identity)
    prefs = json.loads(stored[f"profile-{identity}"])
    assert prefs["Config"]["PrivateNodeKey"].startswith("privkey:")
    assert prefs["WantRunning"] is True


def test_state_of_a_profile_goes_with_it(tmp_path: Path) -> None:
    """_serve/<profileID> and <profileKey>||_routeInfo of other daemons are kept while there is the profile."""
    path = tmp_path / "state"
    store = FileStore(path)
    profiles = Profiles(store, random, lambda: 1.0)
    identity = logged_in(profiles)
    others = {f"_serve/{identity}": b"{}", f"profile-{identity}||_routeInfo": b"{}"}
    kept = {"_taildrop-received": b"1", "server-mode-start-key": b"x", "_current/1000": b"profile-ffff"}
    store.update({**others, **kept})
    assert others.items() <= entries(path).items()
    profiles.delete(identity)
    left = entries(path)
    assert not others.keys() & left.keys()
    assert kept.items() <= left.items()


def test_state_has_until_when_a_component_logs_more(tmp_path: Path) -> None:
    """DB-01: _debug_<component>_until, unix seconds."""
    path = tmp_path / "state"

    async def scenario() -> None:
        clock = FakeClock()
        log = ComponentLog(FileStore(path), clock)
        log.enable("magicsock", 60)
        assert entries(path)["_debug_magicsock_until"] == b"%d" % (int(clock.wall()) + 60)
        log.enable("magicsock", 0)
        assert "_debug_magicsock_until" not in entries(path)
        log.close()

    asyncio.run(scenario())


def test_state_machine_key_that_is_null_is_made(tmp_path: Path) -> None:
    """_machinekey: null."""
    path = tmp_path / "state"
    path.write_text('{"_machinekey": null}')
    assert not Profiles(FileStore(path), random, lambda: 1.0).machine_key().is_zero
    assert entries(path)["_machinekey"].startswith(b"privkey:")
