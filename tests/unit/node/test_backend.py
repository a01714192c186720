"""The backend: reports of the control client and wishes of the user become states and preferences."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

import pytest

from meshd.base.addr import AddrPort
from meshd.base.errors import MeshdError
from meshd.base.keys import DiscoPrivate, DiscoPublic, NodePrivate
from meshd.core.controlstatus import ControlStatus, LoginFlags, Persist
from meshd.core.mapchange import MapChange
from meshd.core.netmap import Netmap
from meshd.core.node import Node
from meshd.core.prefs import Prefs
from meshd.core.state import State
from meshd.node.backend import Backend
from meshd.node.profiles import Profiles
from meshd.node.store import FileStore, MemoryStore, Store
from meshd.testing.clock import FakeClock
from meshd.wire.control import Hostinfo, NetInfo, UserProfile


@dataclass
class ControlDouble:
    """A control client that does nothing but remember."""

    options: dict[str, Any]
    calls: list[str] = field(default_factory=list)
    paused: bool = False

    def login(self, flags: LoginFlags = LoginFlags.DEFAULT) -> None:
        self.calls.append(f"login {flags!r}")

    async def logout(self, timeout: float) -> None:
        self.calls.append("logout")

    def set_paused(self, paused: bool) -> None:
        self.paused = paused

    def update_hostinfo(self, hostinfo: Hostinfo) -> None:
        self.calls.append(f"hostinfo {hostinfo.hostname}")

    def update_endpoints(self, endpoints: Iterable[tuple[AddrPort, int]]) -> None:
        self.calls.append("endpoints")

    def update_netinfo(self, net_info: NetInfo) -> None:
        self.calls.append("netinfo")

    def update_disco_key(self, disco_public: DiscoPublic) -> None:
        self.calls.append("disco key")

    async def set_expiry_sooner(self, expiry: float) -> None:
        self.calls.append(f"expire {expiry}")

    async def request(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        self.calls.append(f"{method} {path} {body.decode()}")
        return 501, b"Not implemented yet"

    def disconnect(self) -> None:
        self.calls.append("disconnect")

    async def shutdown(self) -> None:
        self.calls.append("shutdown")

    def report(self, **status: Any) -> None:
        self.options["on_status"](ControlStatus(**status))


class ReconcilerDouble:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def apply(self, netmap: Netmap, prefs: Prefs, private: NodePrivate, change: MapChange | None) -> None:
        self.calls.append("apply")

    def stop(self) -> None:
        self.calls.append("stop")


class Fixture:
    """A backend with doubles around it."""

    def __init__(self, store: Store | None = None) -> None:
        self.store = store if store is not None else MemoryStore()
        self.clock = FakeClock()
        self.controls: list[ControlDouble] = []
        self.reconciler = ReconcilerDouble()
        self.service: list[str] = []
        self.live = False
        self.backend = Backend(
            clock=self.clock,
            store=self.store,
            profiles=Profiles(self.store, os.urandom, self.clock.wall),
            reconciler=self.reconciler,  # type: ignore[arg-type]
            make_control=self.make_control,
            describe_host=lambda prefs: Hostinfo(hostname=prefs.hostname),
            disco_key=lambda: DISCO,
            is_live=lambda: self.live,
            service_status=self.service.append,
        )

    def make_control(self, **options: Any) -> ControlDouble:
        self.controls.append(ControlDouble(options))
        return self.controls[-1]

    @property
    def control(self) -> ControlDouble:
        return self.controls[-1]

    def record(self) -> None:
        self._log: list[dict[str, Any]] = []
        original = self.backend.bus.send

        def send(notify: dict[str, Any]) -> None:
            self._log.append(notify)
            original(notify)

        self.backend.bus.send = send  # type: ignore[method-assign]


def netmap(key: NodePrivate, **changes: Any) -> Netmap:
    fields: dict[str, Any] = {
        "id": 1,
        "stable_id": "1",
        "name": "me.example.",
        "user": 1,
        "key": key.public(),
        "addresses": (ip_network("100.64.0.1/32"),),
        "allowed_ips": (ip_network("100.64.0.1/32"),),
        "machine_authorized": True,
    } | changes
    return Netmap(Node(**fields))


KEY = NodePrivate.generate()
DISCO = DiscoPrivate.generate().public()
PERSIST = Persist(node_private=KEY, user_profile=UserProfile(id=1, login_name="u"), stable_id="1")


def log_in(made: Fixture, **changes: Any) -> None:
    made.control.report(logged_in=True, login_finished=True, persist=PERSIST)
    made.control.report(
        logged_in=True, in_map_poll=True, persist=PERSIST, netmap=netmap(KEY, **changes), change=MapChange(full=True)
    )


def run(test: Callable[[Fixture], Awaitable[None]], store: Store | None = None) -> Fixture:
    async def body() -> Fixture:
        made = Fixture(store)
        made.record()
        await test(made)
        await made.backend.close()
        return made

    return asyncio.run(body())


def test_backend_first_start_needs_login() -> None:
    """SM-10."""

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
        assert {} in [n["LoginFinished"] for n in made._log if "LoginFinished" in n]

    run(test)


def test_backend_restart_logs_in_by_itself_with_the_stored_key() -> None:
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
        assert [n["ErrMessage"] for n in made._log if "ErrMessage" in n] == ["invalid auth key"]
        assert made.backend.health.texts() == ["The mesh is stopped.", "invalid auth key"]
        log_in(made)
        assert made.backend.health.texts() == []

    run(test)


def test_backend_unreachable_server_is_health_not_failure() -> None:
    async def test(made: Fixture) -> None:
        made.backend.begin()
        made.control.report(error=MeshdError("connection refused", code="control-unreachable"))
        assert not [n for n in made._log if "ErrMessage" in n]
        assert made.backend.health.texts() == ["The mesh is stopped.", "connection refused"]

    run(test)


@pytest.mark.parametrize(
    ("url", "control", "shown"),
    [
        ("https://c/a", "https://c", True),
        ("http://c/a", "http://c", True),
        ("http://c/a", "https://c", False),
        ("javascript:alert(1)", "http://c", False),
        ("https://c/\x1b[2J", "https://c", False),
    ],
)
def test_backend_login_url_is_checked(url: str, control: str, shown: bool) -> None:
    """LK-04."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        made.backend.start({"UpdatePrefs": {"WantRunning": True, "ControlURL": control}})
        made.control.report(auth_url=url)
        assert bool([n for n in made._log if n.get("BrowseToURL") == url]) is shown
        assert (made.backend.auth_url == url) is shown

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
        assert [n for n in made._log if n.get("BrowseToURL")] == [{"BrowseToURL": "https://c/a"}] * 2

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
        calls, told = list(made.control.calls), len(made._log)
        made.backend.edit_prefs({"WantRunning": True, "WantRunningSet": True})
        assert (made.control.calls, len(made._log)) == (calls, told)

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
    """LK-09."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        made.live = True
        expired = made.clock.wall() - 1
        log_in(made, key_expiry=expired)
        assert made.backend.state is State.NEEDS_LOGIN
        extended = netmap(KEY, key_expiry=made.clock.wall() + 1000)
        made.control.report(logged_in=True, in_map_poll=True, netmap=extended, change=MapChange(self_changed=True))
        assert made.backend.state is State.RUNNING

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
    """SM-07."""

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
    """SM-21."""
    path = tmp_path / "state"
    path.write_bytes(b"{damaged")

    async def test(made: Fixture) -> None:
        made.backend.begin()
        assert made.backend.state is State.NEEDS_LOGIN
        assert str(path) in made.backend.health.texts()[0]
        for act in (lambda: made.backend.start({}), made.backend.login_interactive):
            with pytest.raises(MeshdError, match="damaged"):
                act()

    run(test, FileStore(path))
    assert path.read_bytes() == b"{damaged"


def test_backend_exit_node_by_address_becomes_one_by_id() -> None:
    """PP-08."""

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
        assert KEY.raw.hex() not in str(made._log)

    run(test)


def test_backend_wants_to_run_without_login_says_why_in_health() -> None:
    """HE-01: `login-state` carries the last error; nothing else is told about the same thing."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        made.backend.edit_prefs({"WantRunning": True, "WantRunningSet": True})
        assert list(made.backend.health.warnings()) == ["login-state"]
        made.control.report(error=MeshdError("invalid auth key", code="auth-refused"))
        (told,) = made.backend.health.texts()
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
    """LA: id-token, query-feature and set-dns go to the server in the name of this node."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        with pytest.raises(MeshdError, match="no netmap"):
            await made.backend.ask_control("POST", "/machine/id-token", {})
        log_in(made)
        assert await made.backend.ask_control("POST", "/machine/x", {"A": 1}) == (501, b"Not implemented yet")
        sent = made.control.calls[-1]
        assert sent.startswith('POST /machine/x {"A":1,"NodeKey":"nodekey:')
        made.backend.disconnect_control()
        assert made.control.calls[-1] == "disconnect"

    run(test)


def test_backend_exit_node_is_switched_off_and_on_again() -> None:
    """EX: the toggle remembers the node that was used."""

    async def test(made: Fixture) -> None:
        made.backend.begin()
        log_in(made)
        with pytest.raises(MeshdError, match="no prior exit node to enable"):
            made.backend.use_exit_node(True)
        made.backend.edit_prefs({"ExitNodeID": "n7", "ExitNodeIDSet": True})
        off = made.backend.use_exit_node(False)
        assert (off.exit_node_id, off.internal_exit_node_prior) == ("", "n7")
        assert made.backend.use_exit_node(True).exit_node_id == "n7"

    run(test)
