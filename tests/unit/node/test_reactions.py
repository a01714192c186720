"""What a changed preference brings about, and that it is stored by then."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from meshd.base.keys import NodePrivate
from meshd.core.mapchange import MapChange
from meshd.core.prefs import Prefs, from_json
from meshd.core.state import State
from meshd.node.backend import Backend
from tests.unit.node.backendworld import KEY, PERSIST, Fixture, log_in, netmap, run

DATA, SERVER = "data plane and host", "server"
REACTIONS: list[tuple[str, Any, set[str]]] = [
    ("RouteAll", True, {DATA}),
    ("CorpDNS", False, {DATA}),
    ("ExitNodeID", "n7", {DATA, SERVER}),
    ("ExitNodeIP", "100.64.0.77", {DATA}),
    ("ExitNodeAllowLANAccess", True, {DATA}),
    ("AdvertiseRoutes", ["10.0.0.0/8"], {DATA, SERVER}),
    ("NoSNAT", True, {DATA}),
    ("NoStatefulFiltering", False, {DATA}),
    ("NetfilterMode", 0, {DATA}),
    ("NetfilterKind", "iptables", {DATA}),
    ("ShieldsUp", True, {DATA, SERVER}),
    ("Hostname", "gw", {SERVER}),
    ("AdvertiseTags", ["tag:a"], {SERVER}),
]


def running(made: Fixture) -> Backend:
    made.live = True
    made.backend.begin()
    log_in(made)
    assert made.backend.state is State.RUNNING
    made.reconciler.calls.clear()
    made.told.clear()
    return made.backend


@pytest.mark.parametrize(("name", "value", "reached"), REACTIONS)
def test_edit_of_a_preference_reaches_what_it_concerns(name: str, value: Any, reached: set[str]) -> None:
    """PP-04: the data plane is set up anew with the preferences of now, the server hears what it is told of them, and
    watchers hear of every change once."""

    async def test(made: Fixture) -> None:
        backend = running(made)
        told = made.control.hostinfo
        backend.edit_prefs({name: value, f"{name}Set": True})
        wanted = from_json({name: value})
        field = next(f for f in Prefs.__struct_fields__ if getattr(wanted, f) != getattr(Prefs(), f))
        if DATA in reached:
            assert made.reconciler.calls == ["apply"]
        assert getattr(made.reconciler.prefs or backend.prefs, field) == getattr(wanted, field)
        assert (made.control.hostinfo != told) is (SERVER in reached)
        [news] = [n["Prefs"] for n in made.told if "Prefs" in n]
        assert from_json(news) == backend.prefs.redacted()
        assert backend.state is State.RUNNING

    run(test)


def test_edit_of_the_server_takes_effect_at_the_next_start() -> None:
    """react:ControlURL."""

    async def test(made: Fixture) -> None:
        backend = running(made)
        backend.edit_prefs({"ControlURL": "https://other.example", "ControlURLSet": True})
        assert len(made.controls) == 1
        backend.start({})
        assert made.control.options["server_url"] == "https://other.example"

    run(test)


def test_edit_of_logged_out_needs_a_login() -> None:
    """react:LoggedOut."""

    async def test(made: Fixture) -> None:
        backend = running(made)
        backend.edit_prefs({"LoggedOut": True, "LoggedOutSet": True, "WantRunningSet": True})
        assert backend.state is State.STOPPED
        backend.start({})
        assert backend.state is State.NEEDS_LOGIN
        assert not any(call.startswith("login") for call in made.control.calls)

    run(test)


def test_edit_of_the_profile_name_renames_it() -> None:
    """react:ProfileName."""

    async def test(made: Fixture) -> None:
        backend = running(made)
        backend.edit_prefs({"ProfileName": "home", "ProfileNameSet": True})
        assert [p.name for p in backend.profiles.list()] == ["home"]
        backend.edit_prefs({"ProfileName": "", "ProfileNameSet": True})
        assert [p.name for p in backend.profiles.list()] == ["u"]

    run(test)


@pytest.mark.parametrize("name", ["NotepadURLs", "ForceDaemon"])
def test_edit_of_what_has_no_effect_here_is_kept(name: str) -> None:
    """react:NotepadURLs, react:ForceDaemon."""

    async def test(made: Fixture) -> None:
        backend = running(made)
        told = made.control.hostinfo
        after = backend.edit_prefs({name: True, f"{name}Set": True})
        assert after == from_json({name: True}, after)
        assert made.control.hostinfo == told
        assert backend.state is State.RUNNING

    run(test)


def test_backend_exit_node_that_a_netmap_settles_is_told_to_server_and_watchers() -> None:
    """PP-08, PP-10: after the nodes themselves."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        made.backend.edit_prefs({"ExitNodeIP": "100.64.0.9", "ExitNodeIPSet": True})
        made.control.report(logged_in=True, login_finished=True, persist=PERSIST)
        known = netmap(KEY)
        peer = netmap(
            NodePrivate.generate(), id=2, stable_id="exit", addresses=(ip_network("100.64.0.9/32"),)
        ).self_node
        known.peers[2] = peer
        known.by_ip[peer.ips[0].packed] = 2
        made.told.clear()
        made.control.report(
            logged_in=True, in_map_poll=True, persist=PERSIST, netmap=known, change=MapChange(full=True)
        )
        assert made.control.hostinfo.exit_node_id == "exit"
        order = [name for told in made.told for name in told if name in ("SelfChange", "Prefs")]
        assert order == ["SelfChange", "Prefs"]
        assert next(told["Prefs"]["ExitNodeID"] for told in made.told if "Prefs" in told) == "exit"

    run(test)
