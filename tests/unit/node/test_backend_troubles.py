"""The backend when something fails: a full disk, a server or key that cannot be, a user who is quicker than we are."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from meshd.base.errors import MeshdError
from meshd.base.keys import DiscoPrivate, NodePrivate
from meshd.core.mapchange import MapChange
from meshd.core.node import Node
from meshd.core.prefs import to_json
from meshd.core.state import State
from meshd.node.authority import Authority
from meshd.node.profiles import Profiles
from meshd.node.store import MemoryStore
from meshd.testing.clock import FakeClock
from meshd.wire.control import ClientVersion, NetInfo, UserProfile
from tests.unit.node.backendworld import KEY, PERSIST, ControlDouble, Fixture, log_in, netmap, run

FULL = "cannot write the state file s: No space left on device"
BAD_SERVER = "http://refused"  # only refuse_server() refuses it: prefs would not take a URL that is none
NEWER = NodePrivate.generate()
EXIT = Node(
    id=2,
    stable_id="exit",
    user=1,
    name="exit.example.",
    key=NodePrivate.generate().public(),
    addresses=(ip_network("100.64.0.2/32"),),
    allowed_ips=(ip_network("0.0.0.0/0"), ip_network("::/0")),
)


class Disk(MemoryStore):
    """Full while ``full`` is set."""

    ephemeral = False
    full = False
    refused = 0

    def __init__(self) -> None:
        super().__init__()
        self._asked = asyncio.Event()

    async def until(self, done: Callable[[], object]) -> None:
        """Wait for an attempt to write after which ``done()`` holds."""
        async with asyncio.timeout(5):
            while not done():
                self._asked.clear()
                await self._asked.wait()

    def update(self, changes: Mapping[str, bytes | None]) -> None:
        self._asked.set()
        if self.full:
            self.refused += 1
            raise MeshdError(FULL, code="unavailable", hint="Free space.")
        super().update(changes)


def running(made: Fixture) -> None:
    made.live = True
    made.backend.begin()
    log_in(made)
    assert made.backend.state is State.RUNNING


def renew(made: Fixture) -> None:
    made.control.report(logged_in=True, login_finished=True, persist=replace(PERSIST, node_private=NEWER))
    made.control.report(
        logged_in=True, in_map_poll=True, netmap=netmap(NEWER), change=MapChange(full=True, self_changed=True)
    )


def stored_key(made: Fixture) -> NodePrivate | None:
    return Profiles(made.store, bytes, made.clock.wall).prefs.persist().node_private()


def add_exit_node(made: Fixture) -> None:
    known = made.backend.netmap
    assert known is not None
    known.peers[EXIT.id] = EXIT
    known.by_ip[EXIT.ips[0].packed] = EXIT.id
    made.control.report(logged_in=True, in_map_poll=True, netmap=known, change=MapChange(added=[EXIT]))


# -- a full disk --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", ["", '{"version": "alpha0", "hostname": "other"}'])
def test_backend_starts_with_a_full_disk(config: str, tmp_path: Path) -> None:
    """SM-10: what an earlier version stored has other fields, and the configuration file may say something new."""
    disk = Disk()

    async def join(made: Fixture) -> None:
        running(made)

    run(join, disk)
    profile = Profiles(disk, bytes, FakeClock().wall).current
    stored = msgspec.json.decode(disk.read(profile.key) or b"")
    del stored["ShieldsUp"]
    disk.write(profile.key, msgspec.json.encode(stored))
    disk.full = True
    path = tmp_path / "config"
    path.write_text(config)
    authority = Authority(str(path) if config else "")
    authority.load()

    async def test() -> None:
        made = Fixture(disk, authority=authority)
        made.backend.begin()
        assert made.control.calls[-1].startswith("login")
        assert made.backend.prefs.hostname == ("other" if config else "")
        assert FULL in made.backend.health.texts()[0]
        await made.backend.close()

    asyncio.run(test())


def test_backend_key_that_cannot_be_stored_is_used_all_the_same() -> None:
    """LK-05: server and peers know the new key only, so the old one leads nowhere."""
    disk = Disk()

    async def test(made: Fixture) -> None:
        running(made)
        made.reconciler.calls.clear()
        disk.full = True
        renew(made)
        assert made.backend.node_private == NEWER
        assert made.reconciler.calls == ["apply", "apply"]  # at once, and with the map
        assert stored_key(made) == KEY
        [text] = made.backend.health.texts()
        assert text.startswith(FULL)
        assert not [n for n in made.told if "ErrMessage" in n]
        with pytest.raises(MeshdError, match="No space left"):
            made.backend.edit_prefs({"Hostname": "other", "HostnameSet": True})
        assert made.backend.prefs.hostname == ""
        disk.full = False
        made.backend.edit_prefs({"Hostname": "other", "HostnameSet": True})
        assert stored_key(made) == NEWER
        assert made.backend.health.texts() == []

    run(test, disk)


def test_backend_key_that_cannot_be_stored_is_written_as_soon_as_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """LK-05, warn:state-store-health: without anybody doing anything, and what the store itself says stays."""
    monkeypatch.setattr("meshd.node.storewatch.RETRY_S", 0.001)
    disk = Disk()

    async def test(made: Fixture) -> None:
        running(made)
        disk.full, disk.notice = True, "not encrypted"
        renew(made)
        tries = disk.refused
        await disk.until(lambda: disk.refused >= tries + 2)
        assert made.backend.health.texts()[0].startswith(FULL)
        disk.full = False
        await disk.until(lambda: stored_key(made) == NEWER)
        assert made.backend.health.texts() == ["not encrypted"]

    run(test, disk)


class Away(Disk):
    """Cannot be reached at the start, nor the first time that it is asked again."""

    ephemeral = False
    tries = 0

    @property
    def passing(self) -> bool:  # type: ignore[override]
        return self.problem is not None

    def reopen(self) -> None:
        self._asked.set()
        self.tries += 1
        if self.tries > 1:
            self.problem = None


def test_backend_store_that_is_reached_late_goes_on_with_its_login(monkeypatch: pytest.MonkeyPatch) -> None:
    """SM-21: the API server of a cluster that starts is away for minutes, and nobody restarts its pods."""
    monkeypatch.setattr("meshd.node.storewatch.RETRY_S", 0.001)
    disk = Away()

    async def log_in_first(made: Fixture) -> None:
        running(made)

    async def test(made: Fixture) -> None:
        made.backend.begin()
        assert made.controls == []
        assert "API server" in made.backend.health.texts()[0]
        await disk.until(lambda: disk.tries >= 2)
        assert any(call.startswith("login") for call in made.control.calls)
        assert made.backend.node_private == KEY
        assert not any("API server" in text for text in made.backend.health.texts())

    run(log_in_first, disk)
    disk.problem = MeshdError("the API server does not answer", code="unavailable")
    run(test, disk)


def test_backend_login_in_a_store_that_is_away_is_not_said_to_be_gone() -> None:
    """SM-21: it would be back with the store."""
    disk = Away()

    async def test(made: Fixture) -> None:
        backend = made.backend
        backend.begin()
        with pytest.raises(MeshdError, match="cannot log out when state store is unhealthy: away"):
            await backend.logout()
        for act in (backend.delete_profile, backend.switch_profile):
            with pytest.raises(MeshdError, match="state store is unhealthy: away"):
                act("ab12")

    disk.problem = MeshdError("away", code="unavailable")
    run(test, disk)


def test_backend_key_that_could_not_be_stored_is_tried_a_last_time_at_the_end() -> None:
    disk = Disk()

    async def test(made: Fixture) -> None:
        running(made)
        disk.full = True
        renew(made)
        disk.full = False

    assert stored_key(run(test, disk)) == NEWER


def test_backend_change_that_got_no_answer_is_settled_at_the_end() -> None:
    """INV-2: the store decides what is true for the next start."""
    disk = Disk()
    seen: list[Mapping[str, bytes | None]] = []

    async def test(made: Fixture) -> None:
        running(made)
        update = disk.update

        def record(changes: Mapping[str, bytes | None]) -> None:
            seen.append(changes)
            update(changes)

        disk.update = record  # type: ignore[method-assign]

    run(test, disk)
    assert seen[-1] == {}


def test_backend_store_that_fails_slowly_is_asked_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """An API server that does not answer holds the whole node up for seconds each time."""
    monkeypatch.setattr("meshd.node.storewatch.RETRY_S", 0.001)
    disk = Disk()

    async def test(made: Fixture) -> None:
        running(made)
        update = disk.update

        def slow(changes: Mapping[str, bytes | None]) -> None:
            made.clock.advance(10)
            update(changes)

        disk.full = True
        renew(made)
        monkeypatch.setattr(disk, "update", slow)
        tries = disk.refused
        await asyncio.sleep(0.05)
        assert disk.refused == tries + 1

    run(test, disk)


def test_backend_exit_node_of_the_map_is_used_although_it_cannot_be_stored() -> None:
    """PP-08: a failure of ours must not look like one of the server's map."""
    disk = Disk()

    async def test(made: Fixture) -> None:
        running(made)
        made.backend.edit_prefs({"ExitNodeIP": "100.64.0.2", "ExitNodeIPSet": True})
        disk.full = True
        add_exit_node(made)
        assert (made.backend.prefs.exit_node_id, made.backend.prefs.exit_node_ip) == ("exit", "")
        assert made.reconciler.prefs is made.backend.prefs
        assert made.backend.health.texts()[0].startswith(FULL)

    run(test, disk)


def test_backend_news_of_the_network_get_through_with_a_full_disk() -> None:
    """SM-06, PP-17: the exit node that is best now is used, and control hears of the network."""
    disk = Disk()

    async def test(made: Fixture) -> None:
        running(made)
        best = "exit"
        made.backend.preferences.suggest_exit_node = lambda: best
        add_exit_node(made)
        made.backend.edit_prefs({"AutoExitNode": "any", "AutoExitNodeSet": True})
        assert made.backend.prefs.exit_node_id == "exit"
        disk.full = True
        best = "other"
        made.backend.set_net_info(NetInfo(preferred_derp=1))
        assert made.backend.prefs.exit_node_id == "other"
        assert made.control.calls[-1] == "netinfo"
        best = "exit"
        made.backend.network_changed(frozenset({ip_address("192.0.2.1")}))
        assert made.backend.prefs.exit_node_id == "exit"

    run(test, disk)


def test_backend_network_that_wants_records_is_left_also_with_a_full_disk() -> None:
    """SM-11."""
    disk = Disk()

    async def test(made: Fixture) -> None:
        running(made)
        disk.full = True
        wants = netmap(KEY, cap_map={"https://tailscale.com/cap/data-plane-audit-logs": ()})
        made.control.report(logged_in=True, in_map_poll=True, netmap=wants, change=MapChange(self_changed=True))
        assert made.backend.state is State.STOPPED
        assert not made.backend.prefs.want_running

    run(test, disk)


# -- a start that cannot be ---------------------------------------------------------------------------------


def refuse_server(made: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    make = made.make_control

    def checked(**options: Any) -> ControlDouble:
        if options["server_url"] == BAD_SERVER:
            raise MeshdError("that is not the URL of a server", code="control-url")
        return make(**options)

    monkeypatch.setattr(made.backend, "_make_control", checked)


def test_backend_start_with_a_bad_server_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """SM-10."""

    async def test(made: Fixture) -> None:
        refuse_server(made, monkeypatch)
        running(made)
        before, known = made.backend.prefs, made.backend.netmap
        for update in ({"ControlURL": BAD_SERVER}, {"ControlURL": BAD_SERVER, "Hostname": "other"}):
            with pytest.raises(MeshdError, match="not the URL"):
                made.backend.start({"UpdatePrefs": to_json(before) | update})
        assert made.backend.prefs is before
        assert made.backend.netmap is known
        assert made.backend.state is State.RUNNING
        await asyncio.sleep(0)
        assert "shutdown" not in made.control.calls
        made.backend.login_interactive()
        assert made.control.calls[-1].startswith("login")
        assert len(made.controls) == 1

    run(test)


def test_backend_start_that_cannot_be_stored_changes_nothing() -> None:
    """SM-10: the client that was made for it is given up, not the one at work."""
    disk = Disk()

    async def test(made: Fixture) -> None:
        running(made)
        before = made.backend.prefs
        disk.full = True
        with pytest.raises(MeshdError, match="No space left"):
            made.backend.start({"UpdatePrefs": to_json(before) | {"ControlURL": "http://other"}})
        assert made.backend.prefs is before
        assert made.backend.state is State.RUNNING
        await asyncio.sleep(0)
        at_work, unused = made.controls
        assert "shutdown" not in at_work.calls
        assert unused.calls == ["shutdown"]
        at_work.report(logged_in=True, in_map_poll=True, netmap=netmap(KEY), change=MapChange(self_changed=True))
        assert made.reconciler.calls[-1] == "apply"

    run(test, disk)


def test_backend_start_that_works_ends_what_health_said_of_the_one_that_did_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(made: Fixture) -> None:
        refuse_server(made, monkeypatch)
        monkeypatch.setattr(made.backend.profiles, "prefs", replace(made.backend.prefs, control_url=BAD_SERVER))
        made.backend.begin()
        assert made.backend.state is State.NEEDS_LOGIN
        assert "that is not the URL of a server" in made.backend.health.texts()
        made.backend.start({"UpdatePrefs": {"ControlURL": "http://c"}})
        assert not made.backend.health.is_broken("start")

    run(test)


def test_backend_profile_whose_server_cannot_be_leaves_nothing_of_the_former_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """PS-13."""

    async def test(made: Fixture) -> None:
        running(made)
        bad = made.backend.profiles.current.id
        made.backend.edit_prefs({"ControlURL": BAD_SERVER, "ControlURLSet": True})
        made.backend.new_profile()
        log_in_another(made)
        refuse_server(made, monkeypatch)
        with pytest.raises(MeshdError, match="not the URL"):
            made.backend.switch_profile(bad)
        assert made.backend.state is State.NEEDS_LOGIN
        assert (made.backend.netmap, made.backend.auth_url) == (None, "")
        assert made.backend.health.is_broken("start")
        assert made.reconciler.calls[-1] == "stop"

    run(test)


def test_backend_keeps_nothing_of_a_report_but_what_stays_true() -> None:
    """The change of the last report may be all the peers of a network, and the next report a day away."""

    async def test(made: Fixture) -> None:
        running(made)
        change, error = MapChange(dns_changed=True), MeshdError("x")
        held = sys.getrefcount(change), sys.getrefcount(error)
        made.control.report(logged_in=True, in_map_poll=True, netmap=made.backend.netmap, change=change, error=error)
        assert (sys.getrefcount(change), sys.getrefcount(error)) == held
        assert made.backend._last_error == "x"

    run(test)


# -- other identities ---------------------------------------------------------------------------------------


def log_in_another(made: Fixture) -> None:
    user = UserProfile(id=2, login_name="another")
    persist = replace(PERSIST, node_private=NEWER, user_profile=user, stable_id="2")
    made.control.report(logged_in=True, login_finished=True, persist=persist)
    made.control.report(logged_in=True, in_map_poll=True, netmap=netmap(NEWER), change=MapChange(full=True))


def slow_logout(made: Fixture, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    answered = asyncio.Event()

    async def logout(control: ControlDouble, timeout: float) -> None:
        await answered.wait()

    monkeypatch.setattr(ControlDouble, "logout", logout)
    return answered


def test_backend_logout_ends_the_identity_that_was_current_when_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    """LK-07: somebody switches while the server takes its time to answer."""

    async def test(made: Fixture) -> None:
        running(made)
        stays = made.backend.profiles.current.id
        made.backend.new_profile()
        log_in_another(made)
        leaves = made.backend.profiles.current.id
        answered = slow_logout(made, monkeypatch)
        leaving = asyncio.create_task(made.backend.logout())
        await asyncio.sleep(0)
        made.backend.switch_profile(stays)
        controls = len(made.controls)
        answered.set()
        await leaving
        assert [profile.id for profile in made.backend.profiles.list()] == [stays]
        assert leaves != stays
        assert made.backend.profiles.current.id == stays
        assert made.backend.node_private == KEY
        assert len(made.controls) == controls

    run(test, Disk())


def test_backend_logout_that_cannot_be_stored_tells_nobody() -> None:
    """LK-07, INV-2: the server had ended the key, and the node went on with it for ever."""
    disk = Disk()

    async def test(made: Fixture) -> None:
        running(made)
        disk.full = True
        with pytest.raises(MeshdError, match="No space left"):
            await made.backend.logout()
        assert "logout" not in made.control.calls
        assert (made.backend.state, made.backend.prefs.logged_out) == (State.RUNNING, False)
        assert made.backend.profiles.list()

    run(test, disk)


def test_backend_logout_while_the_disk_fills_up_is_a_logout(monkeypatch: pytest.MonkeyPatch) -> None:
    """LK-07: by then the server knows."""
    disk = Disk()

    async def test(made: Fixture) -> None:
        running(made)
        answered = slow_logout(made, monkeypatch)
        leaving = asyncio.create_task(made.backend.logout())
        await asyncio.sleep(0)
        disk.full = True
        answered.set()
        with pytest.raises(MeshdError, match="No space left"):
            await leaving
        assert made.backend.state is State.NEEDS_LOGIN
        assert made.reconciler.calls[-1] == "stop"
        assert Profiles(disk, bytes, lambda: 0.0).prefs.logged_out

    run(test, disk)


def test_backend_logout_ends_the_traffic_before_the_server_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """LK-07: and programs see that; the node went on as Running for as long as the server was waited for."""
    disk = Disk()

    async def test(made: Fixture) -> None:
        running(made)
        answered = slow_logout(made, monkeypatch)
        leaving = asyncio.create_task(made.backend.logout())
        await asyncio.sleep(0)
        assert made.backend.state is State.STOPPED
        assert made.reconciler.calls[-1] == "stop"
        assert [n["State"] for n in made.told if "State" in n][-1] == int(State.STOPPED)
        prefs = Profiles(disk, bytes, made.clock.wall).prefs
        assert (prefs.want_running, prefs.logged_out) == (False, True)
        made.backend.relays_changed()
        assert not made.control.paused  # that would cut the connection to the server
        answered.set()
        await leaving
        assert [n["State"] for n in made.told if "State" in n][-1] == int(State.NEEDS_LOGIN)

    run(test, disk)


def test_backend_login_while_the_server_does_not_answer_the_logout_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """LK-07: a user who does not wait any longer and comes back with another key."""

    async def test(made: Fixture) -> None:
        running(made)
        answered = slow_logout(made, monkeypatch)
        leaving = asyncio.create_task(made.backend.logout())
        await asyncio.sleep(0)
        back = replace(made.backend.prefs, want_running=True, logged_out=False)
        made.backend.start({"UpdatePrefs": to_json(back)})
        assert len(made.controls) == 2
        log_in(made)
        answered.set()
        await leaving
        assert made.backend.state is State.RUNNING
        assert len(made.backend.profiles.list()) == 1

    run(test, Disk())


def back_by_page(made: Fixture) -> None:
    made.backend.login_interactive()
    assert "INTERACTIVE" in made.control.calls[-1]


def back_by_prefs(made: Fixture) -> None:
    made.backend.edit_prefs({"WantRunningSet": True, "WantRunning": True, "LoggedOutSet": True})
    assert made.control.calls[-1].startswith("login")


@pytest.mark.parametrize("come_back", [back_by_page, back_by_prefs])
def test_backend_login_of_any_kind_overtakes_a_logout(
    monkeypatch: pytest.MonkeyPatch, come_back: Callable[[Fixture], None]
) -> None:
    """LK-07: the login was begun by the client that said goodbye, and ended with the profile."""

    async def test(made: Fixture) -> None:
        running(made)
        stays = made.backend.profiles.current.id
        answered = slow_logout(made, monkeypatch)
        leaving = asyncio.create_task(made.backend.logout())
        await asyncio.sleep(0)
        come_back(made)
        assert len(made.controls) == 2
        await asyncio.sleep(0)
        assert made.controls[0].calls[-1] == "shutdown"
        log_in(made)
        answered.set()
        await leaving
        assert made.backend.state is State.RUNNING
        assert [profile.id for profile in made.backend.profiles.list()] == [stays]

    run(test, Disk())


def test_backend_who_is_out_stays_out_whatever_else_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(made: Fixture) -> None:
        running(made)
        made.backend.edit_prefs({"WantRunningSet": True})
        answered = slow_logout(made, monkeypatch)
        leaving = asyncio.create_task(made.backend.logout())
        await asyncio.sleep(0)
        before = [call for call in made.control.calls if call.startswith("login")]
        made.backend.edit_prefs({"WantRunningSet": True, "WantRunning": True})
        assert [call for call in made.control.calls if call.startswith("login")] == before
        answered.set()
        await leaving
        assert (made.backend.state, made.backend.profiles.list()) == (State.NEEDS_LOGIN, [])

    run(test, Disk())


def test_backend_switch_during_a_logout_lets_it_reach_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """LK-07: the request was cancelled, so the server and the peers kept a node whose key was gone."""

    async def test(made: Fixture) -> None:
        running(made)
        stays = made.backend.profiles.current.id
        made.backend.new_profile()
        log_in_another(made)
        leaver = made.control
        answered = slow_logout(made, monkeypatch)
        leaving = [asyncio.create_task(made.backend.logout()) for _ in range(2)]
        await asyncio.sleep(0)
        made.backend.switch_profile(stays)
        for _ in range(3):
            await asyncio.sleep(0)
        assert "shutdown" not in leaver.calls
        answered.set()
        await asyncio.gather(*leaving)
        await asyncio.sleep(0)
        assert leaver.calls.count("shutdown") == 1
        assert [profile.id for profile in made.backend.profiles.list()] == [stays]

    run(test, Disk())


def test_backend_logout_of_an_identity_without_profile_spares_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """LK-07: a key whose owner the server has not named yet belongs to no profile."""

    async def test(made: Fixture) -> None:
        running(made)
        stays = made.backend.profiles.current.id
        made.backend.new_profile()
        made.control.report(persist=replace(PERSIST, node_private=NEWER, user_profile=UserProfile(), stable_id=""))
        assert (made.backend.profiles.current.id, made.backend.node_private) == ("", NEWER)
        answered = slow_logout(made, monkeypatch)
        leaving = asyncio.create_task(made.backend.logout())
        await asyncio.sleep(0)
        made.backend.switch_profile(stays)
        answered.set()
        await leaving
        assert (made.backend.profiles.current.id, made.backend.node_private) == (stays, KEY)

    run(test, Disk())


def test_backend_expired_key_of_one_profile_does_not_block_another() -> None:
    """SM-09, PS-13: a profile that was left with "down" is down."""

    async def test(made: Fixture) -> None:
        running(made)
        stopped = made.backend.profiles.current.id
        made.backend.edit_prefs({"WantRunning": False, "WantRunningSet": True})
        made.backend.new_profile()
        log_in_another(made)
        known = made.backend.netmap
        made.control.report(logged_in=True, in_map_poll=True, netmap=known, key_expired=True)
        assert made.backend.state is State.NEEDS_LOGIN
        made.backend.switch_profile(stopped)
        assert made.backend.state is State.STOPPED

    run(test)


def test_backend_hears_nothing_of_releases_from_the_server_of_another_profile() -> None:
    """LK-14, PS-13: a message that was being read when the profile changed."""

    async def test(made: Fixture) -> None:
        running(made)
        former = made.control
        made.backend.new_profile()
        former.options["on_client_version"](ClientVersion(latest_version="9"))
        assert made.backend.client_version is None

    run(test)


def stopped_with_a_new_key(made: Fixture) -> DiscoPrivate:
    """A node that ran and is down; the key that its peers know it by."""
    running(made)
    known = made.disco
    made.met = [EXIT.key]
    made.backend.edit_prefs({"WantRunning": False, "WantRunningSet": True})
    made.met = []
    made.disco = DiscoPrivate.generate()  # as the sockets do when they are stopped
    return known


def test_backend_up_while_the_server_is_away_goes_on_by_the_key_that_peers_know() -> None:
    """SM-05: nobody tells them of the key that the stop made, and to the former one they answer."""

    async def test(made: Fixture) -> None:
        known = stopped_with_a_new_key(made)
        made.live = False
        made.backend.edit_prefs({"WantRunning": True, "WantRunningSet": True})
        assert made.backend.state is State.STARTING
        made.control.calls.clear()
        away = MeshdError("connection refused", code="control-unreachable")
        made.control.report(logged_in=True, netmap=made.backend.netmap, error=away)
        assert made.disco == known
        assert made.greeted == [EXIT.key]  # who may still use the session that ended
        assert made.control.calls == ["disco key"]
        assert made.backend.state is State.RUNNING
        made.control.report(logged_in=True, netmap=made.backend.netmap, error=away)
        assert made.control.calls == ["disco key"]

    run(test)


def test_backend_up_with_the_server_tells_peers_of_the_new_key() -> None:
    async def test(made: Fixture) -> None:
        known = stopped_with_a_new_key(made)
        made.backend.edit_prefs({"WantRunning": True, "WantRunningSet": True})
        made.control.report(logged_in=True, in_map_poll=True, netmap=made.backend.netmap)
        away = MeshdError("connection refused", code="control-unreachable")
        made.control.report(logged_in=True, netmap=made.backend.netmap, error=away)
        assert made.disco != known

    run(test)


def test_backend_of_another_profile_does_not_go_on_by_the_key_of_the_former() -> None:
    """PS-13."""

    async def test(made: Fixture) -> None:
        known = stopped_with_a_new_key(made)
        made.backend.new_profile()
        log_in_another(made)
        fresh = made.disco
        made.control.report(
            logged_in=True, netmap=made.backend.netmap, error=MeshdError("refused", code="control-unreachable")
        )
        assert made.disco == fresh != known

    run(test)
