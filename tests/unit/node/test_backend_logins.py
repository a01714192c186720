"""The backend: logins, networks and ends; what is told to control, and what is stored first."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from msgspec.structs import replace

from meshd.base.addr import AddrPort
from meshd.base.errors import MeshdError
from meshd.base.keys import NodePrivate
from meshd.core.healthcheck import RelayView
from meshd.core.mapchange import MapChange
from meshd.core.state import State
from meshd.node.store import MACHINE_KEY, MemoryStore
from meshd.wire.control import NetInfo, UserProfile
from tests.unit.node.backendworld import KEY, PERSIST, Fixture, log_in, netmap, run, take_down


def test_backend_login_url_that_is_old_is_asked_for_anew() -> None:
    """LK-02: a link ends after a week; an hour earlier it is no good any more."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        made.backend.start({"UpdatePrefs": {"WantRunning": True, "ControlURL": "https://c"}})
        made.control.report(auth_url="https://c/a")
        made.clock.advance(7 * 86400 - 3600)
        made.backend.login_interactive()
        assert made.control.calls[-1].startswith("login ")

    run(test)


def test_backend_start_without_a_node_key_waits_for_a_login() -> None:
    """SM-02: a client that is told so asks for the login; one auth key is enough for it, and nothing happens before."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        before = len(made.told)
        made.backend.start({"UpdatePrefs": {"WantRunning": True, "ControlURL": "https://c"}, "AuthKey": "k"})
        assert made.backend.state is State.NEEDS_LOGIN
        assert [n["State"] for n in made.told[before:] if "State" in n] == [State.NEEDS_LOGIN]
        assert not any(call.startswith("login") for call in made.control.calls)
        made.live = True
        log_in(made)
        assert made.backend.state is State.RUNNING

    run(test)


def test_backend_that_left_its_server_serves_peers_until_somebody_wants_it_back() -> None:
    """api:disconnect-control: a router that is about to stop: another one takes over, and connections end in peace."""

    def up(made: Fixture) -> None:
        made.backend.edit_prefs({"WantRunning": True, "WantRunningSet": True})

    def down_and_up(made: Fixture) -> None:
        made.backend.edit_prefs({"WantRunning": False, "WantRunningSet": True})
        assert made.control.paused
        up(made)

    async def test(made: Fixture) -> None:
        made.backend.begin()
        made.live = True
        log_in(made)
        running = {"UpdatePrefs": {"WantRunning": True, "ControlURL": made.backend.prefs.control_url}}
        for ends in (
            up,
            down_and_up,
            lambda _: made.backend.login_interactive(),
            lambda _: made.backend.start(running),
        ):
            stops = made.reconciler.calls.count("stop")
            assert not made.control.paused
            made.backend.disconnect_control()
            assert made.control.calls[-1] == "disconnect"
            assert made.control.paused
            made.backend.edit_prefs({"Hostname": "other", "HostnameSet": True})
            made.backend.network_changed(frozenset())
            assert (made.backend.state, made.control.paused) == (State.RUNNING, True)
            assert made.reconciler.calls.count("stop") == stops
            ends(made)
            assert not made.control.paused
            log_in(made)
            assert made.backend.state is State.RUNNING

    run(test)


def test_backend_page_of_the_server_is_shown_and_is_no_login() -> None:
    """LK-04: PopBrowserURL of a map message; the next login asks for a link of its own."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        made.backend.start({"UpdatePrefs": {"WantRunning": True, "ControlURL": "https://c"}})
        made.backend.browse("https://c/page")
        assert [n["BrowseToURL"] for n in made.told if "BrowseToURL" in n] == ["https://c/page"]
        assert made.backend.auth_url == ""
        made.backend.login_interactive()
        assert made.control.calls[-1].startswith("login ")

    run(test)


def test_backend_host_with_an_address_of_the_meshs_range_is_not_told_that_its_network_is_down() -> None:
    """HE-01: providers give such addresses to their customers."""

    async def test(made: Fixture) -> None:
        made.backend._relay_view = lambda: RelayView(network_up=False)
        for address, down in (("100.70.1.5", False), ("fe80::1", True), ("100.70.1.6", False), ("127.0.0.1", True)):
            made.backend.network_changed(frozenset({ip_address(address)}))
            assert made.backend.health.is_broken("network-status") is down

    run(test)


def test_backend_network_change_reaches_control_filter_and_routes() -> None:
    """SM-06: what control is told is which addresses there are, and whether one is new."""

    async def test(made: Fixture) -> None:
        one, two = ip_address("192.0.2.1"), ip_address("192.0.2.2")
        made.backend.host_addresses = frozenset({one})
        made.backend.begin()
        made.backend.network_changed(frozenset({one}))
        assert made.control.calls[-1] == "network ['192.0.2.1'] False"
        assert "network" not in made.reconciler.calls
        log_in(made)
        made.backend.network_changed(frozenset({one, two}))
        assert made.control.calls[-1] == "network ['192.0.2.1', '192.0.2.2'] True"
        made.backend.network_changed(frozenset({one, two}), woke=True)
        assert made.control.calls[-1] == "network ['192.0.2.1', '192.0.2.2'] True"
        made.backend.network_changed(frozenset())
        assert made.control.calls[-1] == "network [] False"
        assert made.reconciler.calls.count("network") == 3

    run(test)


def test_backend_edit_is_stored_before_it_is_carried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """PP-04: what cannot be stored does not happen."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        log_in(made)
        stored: list[str] = []
        update = made.store.update

        def noting(changes: Any) -> None:
            stored.append(made.control.calls[-1])
            update(changes)

        monkeypatch.setattr(made.store, "update", noting)
        made.backend.edit_prefs({"Hostname": "one", "HostnameSet": True})
        assert stored
        assert "hostinfo one" not in stored
        assert made.control.calls[-1] == "hostinfo one"

        def full(_: Any) -> None:
            raise MeshdError("disk full")

        monkeypatch.setattr(made.store, "update", full)
        told = len(made.told)
        with pytest.raises(MeshdError, match="disk full"):
            made.backend.edit_prefs({"Hostname": "two", "HostnameSet": True})
        assert (made.backend.prefs.hostname, made.control.calls[-1], len(made.told)) == ("one", "hostinfo one", told)
        monkeypatch.undo()

    run(test)


def test_backend_profile_name_of_another_is_refused() -> None:
    """PP-05."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        log_in(made)
        made.backend.edit_prefs({"ProfileName": "home", "ProfileNameSet": True})
        made.backend.new_profile()
        with pytest.raises(MeshdError, match='^profile name "home" already in use$'):
            made.backend.edit_prefs({"ProfileName": "home", "ProfileNameSet": True})

    run(test)


def test_backend_profile_whose_name_another_got_by_its_login_stays_editable() -> None:
    """PP-05: nobody did anything wrong, and the user must be able to disconnect."""

    async def test(made: Fixture) -> None:
        backend = made.backend
        backend.begin()
        log_in(made)
        backend.edit_prefs({"ProfileName": "other", "ProfileNameSet": True})
        first = backend.profiles.current.id
        backend.new_profile()
        someone = UserProfile(id=2, login_name="other")
        made.control.report(
            logged_in=True, login_finished=True, persist=replace(PERSIST, user_profile=someone, stable_id="2")
        )
        assert [profile.name for profile in backend.profiles.list()] == ["other", "other"]
        backend.switch_profile(first)
        backend.check(backend.prefs)
        assert not backend.edit_prefs({"WantRunning": False, "WantRunningSet": True}).want_running

    run(test)


def test_backend_network_that_wants_records_is_not_joined() -> None:
    """SM-11: meshd keeps no records of connections, so it stays out, says so and is silent until asked again."""

    async def test(made: Fixture) -> None:
        made.live = True
        made.backend.begin()
        wants = {"cap_map": {"https://tailscale.com/cap/data-plane-audit-logs": ()}}
        log_in(made, **wants)
        assert made.backend.state is State.STOPPED
        assert (made.backend.prefs.want_running, made.backend.netmap) == (False, None)
        assert "apply" not in made.reconciler.calls
        assert made.control.paused
        [error] = [n["ErrMessage"] for n in made.told if "ErrMessage" in n]
        assert error.startswith("tailnet requires logging to be enabled")
        assert made.backend.health.is_broken("local-log-config-error")
        made.backend.edit_prefs({"WantRunning": True, "WantRunningSet": True})
        assert not made.control.paused
        assert not made.backend.health.is_broken("local-log-config-error")
        assert made.control.calls[-1].startswith("login")
        made.control.report(in_map_poll=True, netmap=netmap(KEY, **wants), change=MapChange(full=True))
        assert made.backend.state is State.STOPPED
        made.backend.edit_prefs({"WantRunning": True, "WantRunningSet": True})
        made.control.report(in_map_poll=True, netmap=netmap(KEY), change=MapChange(full=True))
        assert made.backend.state is State.RUNNING
        made.control.report(in_map_poll=True, netmap=netmap(KEY, **wants), change=MapChange(self_changed=True))
        assert made.backend.state is State.STOPPED
        assert made.reconciler.calls[-1] == "stop"

    run(test)


def test_backend_push_token_is_told_to_control_when_it_changes() -> None:
    """PP-12."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        for _ in range(2):
            made.backend.set_push_token("t")
        assert made.control.calls.count("hostinfo ") == 1
        made.backend.start({})
        assert made.control.options["hostinfo"].push_device_token == "t"

    run(test)


def test_backend_egg_is_told_and_not_stored() -> None:
    """PP-14: once it hatched there is one service more; preferences know nothing of it."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        before = made.backend.prefs
        for _ in range(2):
            made.backend.edit_prefs({"EggSet": True})
        assert made.backend.prefs == before
        assert made.control.calls.count("hostinfo ") == 1
        made.backend.start({})
        [service] = made.control.options["hostinfo"].services
        assert (service.proto, service.port) == ("egg", 1)

    run(test)


def test_backend_close_may_be_called_again_and_ends_what_late_reports_could_do() -> None:
    """LK-11, SM-13, SM-16: an ephemeral node logs out first; afterwards nothing reaches anybody."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        log_in(made)
        control, told = made.control, len(made.told)
        await made.backend.close()
        assert control.calls[-2:] == ["logout", "shutdown"]
        await made.backend.close()
        control.report(login_finished=True, netmap=netmap(KEY), change=MapChange(full=True))
        assert control.calls.count("shutdown") == 1
        assert len(made.told) == told

    run(test)


def test_backend_key_may_be_ended_sooner() -> None:
    """LK-08: control decides; without a login there is nothing to end."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        with pytest.raises(MeshdError, match="not running"):
            await made.backend.requests.expire_key(5.0)
        log_in(made)
        await made.backend.requests.expire_key(5.0)
        assert made.control.calls[-1] == "expire 5.0"

    run(test)


def test_backend_node_key_is_known_from_the_first_login_to_the_logout() -> None:
    """LK-15."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        assert made.backend.node_private is None
        log_in(made)
        assert made.backend.node_private == KEY
        await made.backend.logout()
        assert made.backend.node_private is None

    run(test)


def test_backend_endpoints_and_relay_reach_control_also_a_later_one() -> None:
    """SM-08, NM-11: what was found before there was a control client is not lost."""

    async def test(made: Fixture) -> None:
        made.backend.set_endpoints([(AddrPort.parse("192.0.2.1:1"), 1)])
        made.backend.set_net_info(NetInfo(preferred_derp=1))
        made.backend.begin()
        assert made.control.calls[:2] == ["endpoints", "netinfo"]
        made.backend.set_endpoints([])
        assert made.control.calls[-1] == "endpoints"

    run(test)


def test_backend_first_sign_of_life_makes_it_running() -> None:
    """SM-08: a handshake or a relay connection; until then the node is starting."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        log_in(made)
        made.backend.decide()
        assert made.backend.state is State.STARTING
        made.live = True
        made.backend.relays_changed()
        assert made.backend.state is State.RUNNING

    run(test)


def test_backend_machine_whose_approval_ends_has_only_what_the_map_leaves_it() -> None:
    """SM-04: the peers of before stayed, with their routes, until somebody approved it again."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        made.live = True
        log_in(made)
        waits = netmap(KEY, machine_authorized=False)
        for _ in range(2):
            made.reconciler.calls.clear()
            made.control.report(logged_in=True, in_map_poll=True, netmap=waits, change=MapChange(full=True))
            assert made.backend.state is State.NEEDS_MACHINE_AUTH
            assert "apply" in made.reconciler.calls
        made.backend.edit_prefs({"RouteAllSet": True, "RouteAll": True})
        assert made.reconciler.prefs is made.backend.prefs

    run(test)


def test_backend_start_that_nobody_follows_with_a_login_needs_one() -> None:
    """SM-02: a program that waits to be told so before it asks for a page; it was told NoState for ever."""

    async def test(made: Fixture) -> None:
        made.backend.start({"UpdatePrefs": {"WantRunning": True, "ControlURL": "https://c"}})
        assert made.backend.state is State.NEEDS_LOGIN
        assert [n["State"] for n in made.told if "State" in n] == [int(State.NEEDS_LOGIN)]
        made.backend.login_interactive()
        log_in(made)
        assert made.backend.state is State.STARTING

    run(test)


def test_backend_that_was_down_since_its_start_is_starting_as_soon_as_it_is_up() -> None:
    """SM-02: it has a key, and asks the server with it."""
    store = take_down(MemoryStore())

    async def test(made: Fixture) -> None:
        made.backend.begin()
        assert made.backend.state is State.STOPPED
        made.backend.edit_prefs({"WantRunning": True, "WantRunningSet": True})
        assert made.backend.state is State.STARTING
        assert made.control.calls[-1].startswith("login")

    run(test, store)


def test_backend_that_is_taken_down_while_it_logs_in_stays_down() -> None:
    """LK-05: the answer of the server comes after the user's word."""
    store = MemoryStore()

    async def join(made: Fixture) -> None:
        made.backend.begin()
        log_in(made)

    run(join, store)
    store.ephemeral = False

    async def test(made: Fixture) -> None:
        made.live = True
        made.backend.begin()
        assert made.control.calls[-1].startswith("login")
        made.backend.edit_prefs({"WantRunningSet": True})
        log_in(made)
        assert not made.backend.prefs.want_running
        assert made.backend.state is State.STOPPED
        assert made.control.paused
        assert "apply" not in made.reconciler.calls

    run(test, store)


@pytest.mark.parametrize("page", ["https://c/a", "http://not-to-be-shown/a"])
def test_backend_that_somebody_lets_in_is_connected(page: str) -> None:
    """LK-05: also when it had been down before the page was visited."""

    async def test(made: Fixture) -> None:
        made.backend.start({"UpdatePrefs": {"ControlURL": "https://c", "LoggedOut": False}})
        made.backend.login_interactive()
        made.control.report(auth_url=page, can_continue=False)
        log_in(made)
        assert made.backend.prefs.want_running

    run(test)


def test_backend_login_that_replaces_one_with_a_page_shows_that_page_no_more() -> None:
    """LK-02: a key that is let in there would be nobody's."""
    store = take_down(MemoryStore())

    async def test(made: Fixture) -> None:
        made.backend.begin()
        made.backend.login_interactive()
        made.control.report(auth_url="https://controlplane.tailscale.com/a", can_continue=False)
        made.backend.edit_prefs({"WantRunning": True, "WantRunningSet": True})
        assert made.backend.auth_url == ""
        made.backend.login_interactive()
        assert made.control.calls[-1] == "login <LoginFlags.INTERACTIVE: 1>"

    run(test, store)


def test_backend_without_a_key_that_is_to_run_asks_for_a_page() -> None:
    """PP-04: a program with a switch and no login of its own shows the page that comes."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        made.backend.edit_prefs({"WantRunning": True, "WantRunningSet": True})
        assert made.control.calls.count("login <LoginFlags.EPHEMERAL: 2>") == 1
        assert made.backend.state is State.NEEDS_LOGIN
        page = "https://controlplane.tailscale.com/a"
        made.control.report(auth_url=page, can_continue=False)
        assert {"BrowseToURL": page} in made.told
        log_in(made)
        assert made.backend.state is State.STARTING

    run(test)


@pytest.mark.parametrize("answered", [False, True])
def test_backend_without_a_key_that_is_to_run_waits_for_the_login_under_way(*, answered: bool) -> None:
    """PP-04: the page, or the auth key that serves once, is for the key that is tried."""

    async def test(made: Fixture) -> None:
        made.backend.start({"AuthKey": "k", "UpdatePrefs": {"ControlURL": "https://c"}})
        made.backend.login_interactive()
        if answered:
            made.control.report(auth_url="https://c/a", can_continue=False)
        made.backend.edit_prefs({"WantRunning": True, "WantRunningSet": True})
        assert len([call for call in made.control.calls if call.startswith("login")]) == 1

    run(test)


def test_backend_that_never_logged_in_has_no_machine_key() -> None:
    """LK-01: machines that are made from an image of this one are not one machine to the server."""
    store = MemoryStore()

    async def test(made: Fixture) -> None:
        made.backend.begin()
        made.backend.start({})
        assert store.read(MACHINE_KEY) is None
        made.backend.login_interactive()
        machine = made.control.options["machine_private"]()
        made.backend.start({})
        assert made.control.options["machine_private"]() == machine

    run(test, store)


def test_backend_with_a_damaged_machine_key_says_so_before_any_login() -> None:
    """LK-01."""
    store = MemoryStore()
    store.write(MACHINE_KEY, b"nonsense")

    async def test(made: Fixture) -> None:
        made.backend.begin()
        assert MACHINE_KEY in made.backend.health.texts()[0]
        assert made.controls == []

    run(test, store)


def test_backend_that_was_turned_away_shows_another_page_to_whoever_tries_again() -> None:
    """LK-02, LK-20."""

    async def test(made: Fixture) -> None:
        made.backend.start({"UpdatePrefs": {"WantRunning": True, "ControlURL": "https://c"}})
        made.backend.login_interactive()
        made.control.report(auth_url="https://c/a", can_continue=False)
        made.control.report(error=MeshdError("no", code="auth-refused"), can_continue=False)
        assert made.backend.state is State.NEEDS_LOGIN
        assert made.backend.auth_url == ""
        made.backend.login_interactive()
        assert len([call for call in made.control.calls if "INTERACTIVE" in call]) == 2

    run(test)


def test_backend_renewed_key_is_used_before_the_map_comes() -> None:
    """LK-10, SM-07: peers answer to no other any more, and the server may end before it sends a map."""

    async def test(made: Fixture) -> None:
        made.live = True
        made.backend.begin()
        log_in(made)
        newer = NodePrivate.generate()
        assert made.reconciler.private == KEY
        known = made.backend.netmap
        made.control.report(
            logged_in=True, login_finished=True, netmap=known, persist=replace(PERSIST, node_private=newer)
        )
        assert made.reconciler.private == newer
        assert made.backend.state is State.RUNNING
        applied = len(made.reconciler.calls)
        made.control.report(logged_in=True, login_finished=True, netmap=known)  # as after a restart of the server
        assert len(made.reconciler.calls) == applied

    run(test)
