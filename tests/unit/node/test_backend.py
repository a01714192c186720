"""The backend: reports of the control client and wishes of the user become states and preferences."""

from __future__ import annotations

import asyncio
from ipaddress import ip_network
from typing import Any

import pytest
from msgspec.structs import replace

from meshd.base.errors import MeshdError
from meshd.base.keys import NodePrivate
from meshd.core.controlstatus import LoginFlags
from meshd.core.mapchange import MapChange
from meshd.core.netmap import Refusal
from meshd.core.prefs import to_json
from meshd.core.state import State
from meshd.node.store import FileStore, MemoryStore
from meshd.wire.control import ClientVersion, DisplayMessage, DisplayMessageAction
from tests.unit.node.backendworld import KEY, PERSIST, Fixture, log_in, netmap, run


def test_backend_first_start_needs_login() -> None:
    """SM-04, SM-10."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        assert made.backend.state is State.NEEDS_LOGIN
        assert not any(call.startswith("login") for call in made.control.calls)
        assert made.service[-1].startswith("Needs login")

    run(test)


def test_backend_login_goes_through_starting_to_running() -> None:
    """SM-02, SM-03, SM-04, LK-05."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        made.backend.start({"AuthKey": "k", "UpdatePrefs": {"WantRunning": True, "ControlURL": "http://c"}})
        assert made.control.options["auth_key"] == "k"
        assert made.control.options["server_url"] == "http://c"
        made.backend.login_interactive()
        log_in(made)
        assert made.backend.state is State.STARTING
        made.live = True
        made.backend.decide()
        assert made.backend.state is State.RUNNING
        assert made.backend.prefs.want_running
        assert not made.backend.prefs.logged_out
        assert made.service[-1] == "Connected; u; 100.64.0.1"
        assert "apply" in made.reconciler.calls
        assert {} in [n["LoginFinished"] for n in made.told if "LoginFinished" in n]

    run(test)


def test_backend_own_node_that_changes_is_told() -> None:
    """notify:SelfChange: with every map of ourselves or of the network's names, not with news of peers alone."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        log_in(made)
        told = [n["SelfChange"] for n in made.told if "SelfChange" in n]
        assert [node["Key"] for node in told] == [KEY.public().text()]
        made.control.report(logged_in=True, in_map_poll=True, netmap=netmap(KEY), change=MapChange())
        assert len([n for n in made.told if "SelfChange" in n]) == 1
        for number, field in enumerate(("self_changed", "dns_changed", "settings_changed"), 2):
            change = MapChange(**{field: True})
            made.control.report(logged_in=True, in_map_poll=True, netmap=netmap(KEY), change=change)
            assert len([n for n in made.told if "SelfChange" in n]) == number

    run(test)


def test_backend_restart_logs_in_by_itself_with_the_stored_key() -> None:
    """SM-10, LK-05."""
    store = MemoryStore()

    async def first(made: Fixture) -> None:
        made.backend.begin()
        made.backend.start({"UpdatePrefs": {"WantRunning": True}})
        log_in(made)

    run(first, store)
    store.ephemeral = False

    async def second(made: Fixture) -> None:
        made.backend.begin()
        assert any(call.startswith("login") for call in made.control.calls)
        assert made.control.options["persist"].node_private == KEY

    run(second, store)


def test_backend_refused_login_is_told_and_leaves_the_node_alive() -> None:
    """LK-20."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        made.control.report(error=MeshdError("invalid auth key", code="auth-refused"))
        assert [n["ErrMessage"] for n in made.told if "ErrMessage" in n] == ["invalid auth key"]
        assert made.backend.health.texts() == ["Tailscale is stopped.", "invalid auth key"]
        made.live = True
        log_in(made)
        assert made.backend.health.texts() == []

    run(test)


def test_backend_unreachable_server_is_health_not_failure() -> None:
    async def test(made: Fixture) -> None:
        made.backend.begin()
        made.control.report(error=MeshdError("connection refused", code="control-unreachable"))
        assert not [n for n in made.told if "ErrMessage" in n]
        assert sorted(made.backend.health.texts()) == ["Tailscale is stopped.", "connection refused"]

    run(test)


@pytest.mark.parametrize(
    ("url", "control", "shown"),
    [
        ("https://c/a", "https://c", True),
        ("http://c/a", "http://c", True),
        ("http://c/a", "https://c", False),
        ("javascript:alert(1)", "http://c", False),
        ("https://c/\x1b[2J", "https://c", False),
        ("https://login.tailscale.com/a/1", "", True),
        ("https://LOGIN.TAILSCALE.COM./a/1", "https://login.tailscale.com", True),
        ("https://tailscale.com/a", "https://controlplane.tailscale.com", True),
        ("https://login.example.com/a", "", False),
        ("https://nottailscale.com/a", "", False),
        ("https://evil.example\\@login.tailscale.com/", "", False),
        ("https://u@login.tailscale.com/", "", False),
        ("https:///a", "https://c", False),
        ("https://[::1/a", "https://c", False),
    ],
)
def test_backend_login_url_is_checked(url: str, control: str, shown: bool) -> None:
    """LK-04: the official server shows pages of its own only."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        made.backend.start({"UpdatePrefs": {"WantRunning": True, "ControlURL": control}})
        made.control.report(auth_url=url)
        assert bool([n for n in made.told if n.get("BrowseToURL") == url]) is shown
        assert (made.backend.auth_url == url) is shown

    run(test)


@pytest.mark.parametrize(
    ("url", "control", "offered"),
    [
        ("https://login.example.com/a", "https://c", True),
        ("http://c/a", "http://c", True),
        ("http://c/a", "https://c", False),
        ("https://login.tailscale.com/a", "", True),
        ("https://login.example.com/a", "", False),
        ("https://evil.example\\@login.tailscale.com/", "", False),
    ],
)
def test_backend_page_of_a_health_message_is_checked(url: str, control: str, offered: bool) -> None:
    """LK-04, HE-01: what no browser should open is not offered beside a message either."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        made.backend.start({"UpdatePrefs": {"WantRunning": True, "ControlURL": control}})
        made.control.report(logged_in=True, login_finished=True, persist=PERSIST)
        known = netmap(KEY)
        action = DisplayMessageAction(url=url, label="Look")
        known.messages = {"m": DisplayMessage(title="T", text="x", primary_action=action)}
        made.control.report(logged_in=True, in_map_poll=True, netmap=known, change=MapChange(full=True))
        told = made.backend.health.warnings()["control-health.m"]
        assert told["Text"] == "x"
        assert ("PrimaryAction" in told) is offered
        assert any(url in text for text in made.backend.health.texts()) is offered

    run(test)


def test_backend_without_a_network_says_nothing_of_the_former_one() -> None:
    """HE-01, NM-01: messages of its server, refused peers and a refused filter are of no network any more."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        made.live = True
        made.control.report(logged_in=True, login_finished=True, persist=PERSIST)
        known = netmap(KEY)
        known.invalid_filter = True
        known.messages = {"m": DisplayMessage(title="T", text="x")}
        known.refused = {7: Refusal(7, "seven", "no key")}
        made.control.report(logged_in=True, in_map_poll=True, netmap=known, change=MapChange(full=True))
        of_network = {"control-health.m", "refused-peers", "invalid-packet-filter"}
        assert of_network <= made.backend.health.warnings().keys()
        made.backend.new_profile()
        assert not of_network & made.backend.health.warnings().keys()

    run(test)


@pytest.mark.parametrize("stays", [False, True])
def test_backend_new_profile_keeps_the_operator_who_begins_it(stays: bool) -> None:
    """PP-13, PS-11."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        made.backend.edit_prefs({"OperatorUser": "nobody", "OperatorUserSet": True})
        made.backend.new_profile(operator_stays=stays)
        assert made.backend.prefs.operator_user == ("nobody" if stays else "")

    run(test)


def test_backend_pending_login_url_is_shown_again() -> None:
    """LK-02."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        made.backend.start({"UpdatePrefs": {"WantRunning": True, "ControlURL": "https://c"}})
        made.control.report(auth_url="https://c/a")
        before = list(made.control.calls)
        made.backend.login_interactive()
        assert made.control.calls == before
        assert [n for n in made.told if n.get("BrowseToURL")] == [{"BrowseToURL": "https://c/a"}] * 2

    run(test)


def test_backend_down_stops_and_pauses_up_goes_on() -> None:
    """SM-05, PP-04."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        made.live = True
        log_in(made)
        assert made.backend.state is State.RUNNING
        made.backend.edit_prefs({"WantRunning": False, "WantRunningSet": True})
        assert made.backend.state is State.STOPPED
        assert made.reconciler.calls[-1] == "stop"
        assert made.control.paused
        assert made.control.calls[-1] == "disco key"
        made.backend.edit_prefs({"WantRunning": True, "WantRunningSet": True})
        assert made.backend.state is State.RUNNING
        assert not made.control.paused

    run(test)


def test_backend_edit_without_change_has_no_side_effect() -> None:
    """PP-02."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        log_in(made)
        calls, told = list(made.control.calls), len(made.told)
        made.backend.edit_prefs({"WantRunning": True, "WantRunningSet": True})
        assert (made.control.calls, len(made.told)) == (calls, told)

    run(test)


def test_backend_bad_edit_changes_nothing() -> None:
    """PP-05."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        before = made.backend.prefs
        with pytest.raises(MeshdError):
            made.backend.edit_prefs({"AdvertiseRoutes": ["10.0.0.1/8"], "AdvertiseRoutesSet": True})
        assert made.backend.prefs is before

    run(test)


def test_backend_key_expiry_blocks_and_extension_goes_on() -> None:
    """SM-09, LK-09."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        made.live = True
        log_in(made)
        assert made.backend.state is State.RUNNING
        known = made.backend.netmap
        made.control.report(logged_in=True, in_map_poll=True, netmap=known, key_expired=True)
        assert made.backend.state is State.NEEDS_LOGIN
        assert made.reconciler.calls[-1] == "stop"
        made.control.report(logged_in=True, in_map_poll=True, netmap=known, change=MapChange(self_changed=True))
        assert made.backend.state is State.RUNNING
        assert made.reconciler.calls[-1] == "apply"

    run(test)


def test_backend_new_login_of_a_running_node_leaves_the_data_plane_alone() -> None:
    """SM-07, SM-20, LK-03, SM-09: peers notice nothing while a person is asked, however long that takes."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        log_in(made)
        made.live = True
        made.backend.decide()
        assert made.backend.state is State.RUNNING
        made.reconciler.calls.clear()
        wanted = to_json(made.backend.prefs) | {"Hostname": "other"}
        made.backend.start({"UpdatePrefs": wanted})
        assert len(made.controls) == 1
        assert "hostinfo other" in made.control.calls
        made.backend.login_interactive()
        assert made.control.calls[-1] == f"login {LoginFlags.INTERACTIVE | LoginFlags.EPHEMERAL!r}"
        made.control.report(auth_url="https://login.tailscale.com/a", netmap=made.backend.netmap)
        assert made.backend.auth_url == "https://login.tailscale.com/a"
        assert made.backend.state is State.RUNNING
        assert "stop" not in made.reconciler.calls
        renewed = NodePrivate.generate()
        made.control.report(logged_in=True, login_finished=True, persist=replace(PERSIST, node_private=renewed))
        made.control.report(
            logged_in=True, in_map_poll=True, netmap=netmap(renewed), change=MapChange(self_changed=True)
        )
        assert made.backend.node_private == renewed
        assert made.reconciler.calls[-1] == "apply"
        assert "stop" not in made.reconciler.calls
        assert made.backend.auth_url == ""

    run(test)


@pytest.mark.parametrize("options", [{"AuthKey": "k"}, {"UpdatePrefs": {"ControlURL": "http://other"}}])
def test_backend_start_with_another_server_or_key_begins_anew(options: dict[str, Any]) -> None:
    """SM-10."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        log_in(made)
        made.live = True
        made.backend.decide()
        wanted = to_json(made.backend.prefs) | options.get("UpdatePrefs", {})
        made.backend.start(options | {"UpdatePrefs": wanted})
        await asyncio.sleep(0)
        assert len(made.controls) == 2
        assert made.controls[0].calls[-1] == "shutdown"
        assert made.control.options["server_url"] == wanted["ControlURL"]

    run(test)


def test_backend_unapproved_machine_waits_and_then_starts() -> None:
    async def test(made: Fixture) -> None:
        made.backend.begin()
        made.live = True
        log_in(made, machine_authorized=False)
        assert made.backend.state is State.NEEDS_MACHINE_AUTH
        made.control.report(logged_in=True, in_map_poll=True, netmap=netmap(KEY), change=MapChange(self_changed=True))
        assert made.backend.state is State.RUNNING

    run(test)


def test_backend_logout_forgets_key_and_profile() -> None:
    """LK-07."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        log_in(made)
        control = made.control
        await made.backend.logout()
        assert "logout" in control.calls
        assert made.backend.node_private is None
        assert made.backend.profiles.list() == []
        assert made.backend.state is State.NEEDS_LOGIN

    run(test)


def test_backend_report_of_a_former_control_client_is_ignored() -> None:
    """SM-16, SM-07."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        old = made.control
        made.backend.start({})
        old.report(logged_in=True, login_finished=True, persist=PERSIST)
        assert made.backend.node_private is None
        await asyncio.sleep(0)
        assert "shutdown" in old.calls

    run(test)


def test_backend_damaged_store_explains_itself_and_refuses_logins(tmp_path: Any) -> None:
    """warn:state-store-health; SM-21."""
    path = tmp_path / "state"
    path.write_bytes(b"{damaged")

    async def test(made: Fixture) -> None:
        made.backend.begin()
        assert made.backend.state is State.NO_STATE
        assert str(path) in made.backend.health.texts()[0]
        for act in (lambda: made.backend.start({}), made.backend.login_interactive):
            with pytest.raises(MeshdError, match="damaged"):
                act()

    run(test, FileStore(path))
    assert path.read_bytes() == b"{damaged"


def test_backend_another_profile_leaves_nothing_of_the_former_network() -> None:
    """NM-01, PS-11, PS-13: peers, keys, map and messages are gone before the new identity is even tried."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        made.live = True
        log_in(made)
        first, former = made.control, made.backend.profiles.current.id
        made.backend.set_client_version(ClientVersion(latest_version="9"))
        made.reconciler.calls.clear()
        made.backend.new_profile()
        await asyncio.sleep(0)
        assert "shutdown" in first.calls
        assert made.control is not first
        assert made.control.options["persist"].node_private is None
        assert "stop" in made.reconciler.calls
        assert "apply" not in made.reconciler.calls
        assert (made.backend.netmap, made.backend.client_version) == (None, None)
        assert made.backend.state is State.NEEDS_LOGIN
        first.report(logged_in=True, persist=PERSIST, netmap=netmap(KEY), change=MapChange(full=True))
        assert made.backend.netmap is None
        assert made.backend.node_private is None
        made.reconciler.calls.clear()
        made.backend.switch_profile(former)
        assert made.backend.node_private == KEY
        assert made.backend.state is State.NO_STATE
        assert any(call.startswith("login") for call in made.control.calls)
        assert "apply" not in made.reconciler.calls
        made.backend.switch_profile(former)
        assert len(made.controls) == 3
        made.backend.delete_profile(former)
        assert made.backend.state is State.NEEDS_LOGIN
        assert made.reconciler.calls.count("stop") >= 2

    run(test)


def test_backend_switch_that_cannot_be_stored_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """PS-10."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        log_in(made)
        former = made.backend.profiles.current.id
        made.backend.new_profile()
        control = made.control

        def full(*_: object) -> None:
            raise MeshdError("disk full")

        monkeypatch.setattr(made.store, "update", full)
        monkeypatch.setattr(made.store, "write", full)
        with pytest.raises(MeshdError, match="disk full"):
            made.backend.switch_profile(former)
        assert made.control is control
        assert made.backend.profiles.current.id == ""
        monkeypatch.undo()

    run(test)


def test_backend_reset_of_all_logins_begins_as_a_new_machine() -> None:
    """PS-14."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        log_in(made)
        machine = made.control.options["machine_private"]()
        made.backend.reset_auth()
        assert made.control.options["machine_private"]() != machine
        assert made.control.options["persist"].node_private is None
        assert made.backend.profiles.list() == []
        assert made.backend.state is State.NEEDS_LOGIN

    run(test)


def test_backend_exit_node_address_nobody_has_outweighs_an_id() -> None:
    """PP-08: what counts is the address, until somebody has it."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        log_in(made)
        made.backend.edit_prefs({"ExitNodeIP": "100.99.99.99", "ExitNodeIPSet": True})
        made.backend.edit_prefs({"ExitNodeID": "nope", "ExitNodeIDSet": True})
        assert (made.backend.prefs.exit_node_id, made.backend.prefs.exit_node_ip) == ("", "100.99.99.99")

    run(test)


def test_backend_exit_node_by_address_becomes_one_by_id() -> None:
    """EX-01, PP-08."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        log_in(made)
        peer = netmap(
            NodePrivate.generate(), id=2, stable_id="exit", addresses=(ip_network("100.64.0.9/32"),)
        ).self_node
        made.backend.netmap.peers[2] = peer  # type: ignore[union-attr]
        made.backend.netmap.by_ip[peer.ips[0].packed] = 2  # type: ignore[union-attr]
        made.backend.edit_prefs({"ExitNodeIP": "100.64.0.9", "ExitNodeIPSet": True})
        assert (made.backend.prefs.exit_node_id, made.backend.prefs.exit_node_ip) == ("exit", "")

    run(test)


def test_backend_private_keys_never_reach_the_bus() -> None:
    """INV-3."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        log_in(made)
        made.backend.edit_prefs({"Hostname": "x", "HostnameSet": True})
        assert KEY.raw.hex() not in str(made.told)

    run(test)


def test_backend_wants_to_run_without_login_says_why_in_health() -> None:
    """HE-01: `login-state` carries the last error; nothing else is told about the same thing."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        made.backend.edit_prefs({"WantRunning": True, "WantRunningSet": True})
        assert list(made.backend.health.warnings()) == ["warming-up", "login-state"]
        made.control.report(error=MeshdError("invalid auth key", code="auth-refused"))
        _, told = made.backend.health.texts()
        assert told == "You are logged out. The last login error was: invalid auth key"

    run(test)


def test_backend_network_default_leaves_updates_alone_unless_the_user_spoke() -> None:
    """UP-04."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        log_in(made)
        assert made.backend.prefs.auto_update.apply is None
        default = netmap(KEY, cap_map={"default-auto-update": (False,)})
        made.control.report(netmap=default, change=MapChange(full=True), in_map_poll=True)
        assert made.backend.prefs.auto_update.apply is False

    run(test)


def test_backend_requests_to_control_carry_our_node_key() -> None:
    """LK-16: id-token, query-feature and set-dns go to the server in the name of this node."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        with pytest.raises(MeshdError, match="no netmap"):
            await made.backend.requests.ask("POST", "/machine/id-token", {})
        log_in(made)
        assert await made.backend.requests.ask("POST", "/machine/x", {"A": 1}) == (501, b"Not implemented yet")
        sent = made.control.calls[-1]
        assert sent.startswith('POST /machine/x {"A":1,"NodeKey":"nodekey:')
        made.backend.disconnect_control()
        assert made.control.calls[-1] == "disconnect"

    run(test)


def test_backend_exit_node_is_switched_off_and_on_again() -> None:
    """PP-07, EX-02: the toggle remembers the node that was used."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        log_in(made)
        with pytest.raises(MeshdError, match="no exit node IP to enable & prior"):
            made.backend.use_exit_node(True)
        made.backend.edit_prefs({"ExitNodeID": "n7", "ExitNodeIDSet": True})
        off = made.backend.use_exit_node(False)
        assert (off.exit_node_id, off.internal_exit_node_prior) == ("", "n7")
        assert made.backend.use_exit_node(True).exit_node_id == "n7"

    run(test)


@pytest.mark.parametrize(("values", "shown"), [(["Example"], "Example"), ([], ""), (None, ""), ([7], "")])
def test_backend_display_name_of_the_network_is_kept_with_the_profile(values: Any, shown: str) -> None:
    """PS-05."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        log_in(made, cap_map={"tailnet-display-name": values})
        assert made.backend.profiles.current.network_profile.display_name == shown

    run(test)


def test_backend_news_of_releases_is_told_once_and_shown_to_those_who_check() -> None:
    """LK-14: Notify{ClientVersion} and the `update-available` problem."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        log_in(made)
        news = ClientVersion(latest_version="9.9")
        for _ in range(2):
            made.control.options["on_client_version"](news)
        assert [n["ClientVersion"] for n in made.told if "ClientVersion" in n] == [{"LatestVersion": "9.9"}]
        assert made.backend.health.is_broken("update-available")
        off = {"AutoUpdate": {"Check": False}, "AutoUpdateSet": {"CheckSet": True}}
        made.backend.edit_prefs(off)
        assert not made.backend.health.is_broken("update-available")

    run(test)


def test_backend_that_shall_not_synchronize_is_paused_and_says_so() -> None:
    """SM-19, HE-01: `sync-disabled`."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        log_in(made)
        made.backend.edit_prefs({"Sync": False, "SyncSet": True})
        assert made.control.paused
        assert made.backend.health.is_broken("sync-disabled")
        made.backend.edit_prefs({"Sync": True, "SyncSet": True})
        assert not made.control.paused
        assert not made.backend.health.is_broken("sync-disabled")

    run(test)


def test_backend_a_patch_of_a_peer_takes_no_look_at_our_health() -> None:
    """HE-01: a look costs something, and nothing that it follows from is different."""

    async def test(made: Fixture) -> None:
        made.live = True
        made.backend.begin()
        log_in(made)
        looks: list[int] = []
        made.backend.health.look = lambda: looks.append(1)  # type: ignore[method-assign]
        made.control.report(logged_in=True, in_map_poll=True, netmap=made.backend.netmap, change=MapChange())
        assert not looks
        made.backend.relays_changed()
        assert looks

    run(test)


def test_backend_services_are_listed_only_when_the_network_asks_and_shields_are_down() -> None:
    """MI-01, PP-11."""

    async def test(made: Fixture) -> None:
        made.live = True
        made.backend.begin()
        log_in(made)
        assert not any(made.collected)
        assert made.backend.netmap is not None
        made.backend.netmap.collect_services = True
        made.control.report(logged_in=True, in_map_poll=True, netmap=made.backend.netmap, change=MapChange())
        assert made.collected[-1]
        calls = len(made.control.calls)
        made.backend.host_changed()
        assert made.control.calls[calls:] == ["hostinfo "]
        made.backend.edit_prefs({"ShieldsUp": True, "ShieldsUpSet": True})
        assert not made.collected[-1]

    run(test)


def test_backend_network_that_requires_logs_is_left() -> None:
    """SM-11, cap:https://tailscale.com/cap/data-plane-audit-logs, warn:local-log-config-error."""

    async def test(made: Fixture) -> None:
        made.live = True
        made.backend.begin()
        made.record()
        log_in(made, cap_map={"https://tailscale.com/cap/data-plane-audit-logs": ()})
        assert made.backend.state is State.STOPPED
        assert not made.backend.prefs.want_running
        text = "tailnet requires logging to be enabled"
        assert made.backend.health.is_broken("local-log-config-error")
        assert any(text in told for told in made.backend.health.texts())
        assert any(text in n["ErrMessage"] for n in made.told if "ErrMessage" in n)

    run(test)


def test_backend_attributes_of_the_network_are_told_and_forgotten_with_it() -> None:
    """With the self node, not with every message."""

    async def test(made: Fixture) -> None:
        made.live = True
        made.backend.begin()
        log_in(made, cap_map={"only-tcp-443": ()})
        assert made.attributes[-1] == {"only-tcp-443": ()}
        count = len(made.attributes)
        made.control.report(logged_in=True, in_map_poll=True, netmap=made.backend.netmap, change=MapChange())
        assert len(made.attributes) == count
        made.backend.new_profile()
        assert made.attributes[-1] == {}

    run(test)


def test_backend_news_of_peers_alone_are_applied_and_nothing_else_is_looked_at() -> None:
    """NM-03: what a running node does with most reports."""

    async def test(made: Fixture) -> None:
        made.live = True
        made.backend.begin()
        log_in(made)
        assert made.backend.state is State.RUNNING
        netmap = made.backend.netmap
        assert netmap is not None
        now = {"logged_in": True, "in_map_poll": True, "netmap": netmap}
        made.control.report(**now, change=MapChange(settings_changed=True))
        looked, applied = len(made.collected), len(made.reconciler.calls)
        own = netmap.self_node
        made.control.report(**now, change=MapChange(patched=[(own, own)]))
        assert (len(made.collected), made.reconciler.calls[applied:]) == (looked, ["apply"])
        made.control.report(**now, key_expired=True, change=MapChange(patched=[(own, own)]))
        assert len(made.collected) > looked
        assert made.backend.state is State.NEEDS_LOGIN

    run(test)
