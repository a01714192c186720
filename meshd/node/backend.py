"""The node as local programs see it: login state, preferences, netmap, and what follows from them.

Everything happens on one event loop, so there is no lock. A change comes in (a preference, a report of the
control client, a timer), ``_decide`` computes the state that follows, and entering a state carries it out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import msgspec

from meshd.base.addr import AddrPort
from meshd.base.clock import Clock
from meshd.base.errors import MeshdError
from meshd.base.keys import DiscoPublic, LockPrivate, MachinePrivate, NodePrivate
from meshd.base.log import get_logger, kv
from meshd.base.version import long_version
from meshd.core import exitnode
from meshd.core import prefs as prefs_module
from meshd.core.controlstatus import ControlStatus, LoginFlags
from meshd.core.controlstatus import Persist as ControlPersist
from meshd.core.mapchange import MapChange
from meshd.core.netmap import Netmap
from meshd.core.prefs import Persist, Prefs, UserProfile, same_control
from meshd.core.profile import NetworkProfile
from meshd.core.state import Facts, State, next_state
from meshd.node.bus import NotifyBus
from meshd.node.health import Health
from meshd.node.nodejson import node_json
from meshd.node.peernews import tell_peers
from meshd.node.profiles import Profiles
from meshd.node.reconciler import Reconciler
from meshd.node.store import Store
from meshd.wire.control import Hostinfo, NetInfo
from meshd.wire.control import UserProfile as WireUser

log = get_logger(__name__)
JSON = dict[str, Any]

AUTH_URL_LIFE_S = 7 * 86400 - 3600
LOGOUT_PATIENCE_S = 5.0

# Errors that trying again does not mend; the others are told as health while the node keeps trying.
FINAL_ERRORS = frozenset({"auth-refused", "auth-lock", "control-version", "control-url"})


class Control(Protocol):
    """What the backend asks of a control client; ``node.control.ControlClient`` is one."""

    def login(self, flags: LoginFlags = LoginFlags.DEFAULT) -> None: ...
    async def logout(self, timeout: float) -> None: ...
    def set_paused(self, paused: bool) -> None: ...
    def update_hostinfo(self, hostinfo: Hostinfo) -> None: ...
    def update_endpoints(self, endpoints: Iterable[tuple[AddrPort, int]]) -> None: ...
    def update_netinfo(self, net_info: NetInfo) -> None: ...
    def update_disco_key(self, disco_public: DiscoPublic) -> None: ...
    async def set_expiry_sooner(self, expiry: float) -> None: ...
    async def request(self, method: str, path: str, body: bytes) -> tuple[int, bytes]: ...
    def disconnect(self) -> None: ...
    async def shutdown(self) -> None: ...


class ControlFactory(Protocol):
    """Makes a control client for one login; it calls ``on_status`` on the event loop."""

    def __call__(
        self,
        *,
        server_url: str,
        machine_private: MachinePrivate,
        persist: ControlPersist,
        auth_key: str,
        hostinfo: Hostinfo,
        on_status: Callable[[ControlStatus], None],
    ) -> Control: ...


class Live(Protocol):
    """Whether anything of the data plane lives: a peer has handshaken or a relay is connected."""

    def __call__(self) -> bool: ...


class Backend:
    """One node. ``begin`` once, then calls in any order, ``close`` at the end."""

    def __init__(
        self,
        *,
        clock: Clock,
        store: Store,
        profiles: Profiles,
        reconciler: Reconciler,
        make_control: ControlFactory,
        describe_host: Callable[[Prefs], Hostinfo],
        disco_key: Callable[[], DiscoPublic],
        is_live: Live,
        service_status: Callable[[str], None],
    ) -> None:
        self._clock = clock
        self.store = store
        self.profiles = profiles
        self.reconciler = reconciler
        self._make_control = make_control
        self._describe_host = describe_host
        self._disco_key = disco_key
        self._is_live = is_live
        self._service_status = service_status
        self.bus = NotifyBus()
        self.health = Health(self._health_changed, clock.wall)
        self.state = State.NO_STATE
        self.netmap: Netmap | None = None
        self.auth_url = ""
        self.error = ""
        self._last_error = ""
        self._auth_url_at = 0.0
        self._blocked = False
        self._control: Control | None = None
        self._control_status = ControlStatus()
        self._endpoints: tuple[tuple[AddrPort, int], ...] = ()
        self._net_info: NetInfo | None = None
        self._closing: set[asyncio.Task[None]] = set()
        if store.problem is not None:
            self.health.set("state-store-health", str(store.problem))

    # -- what we are ----------------------------------------------------------------------------------------

    @property
    def prefs(self) -> Prefs:
        return self.profiles.prefs

    @property
    def node_private(self) -> NodePrivate | None:
        return self.prefs.persist().node_private()

    def key_expired(self) -> bool:
        """Whether our own key has passed its expiry (LK-09)."""
        if self.netmap is None:
            return False
        expiry = self.netmap.expiry
        return self.netmap.self_node.expired or (expiry is not None and expiry <= self._clock.wall())

    # -- starting -------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start with the stored profile; what is wrong with the store is told by the status."""
        if self.store.problem is not None:
            self._enter(State.NEEDS_LOGIN)
            return
        try:
            self.start({})
        except MeshdError as error:
            self.health.set("start", str(error))
            self._enter(State.NEEDS_LOGIN)

    def start(self, options: Mapping[str, Any]) -> None:
        """Begin anew with the preferences in ``UpdatePrefs`` and an ``AuthKey`` (SM-10).

        Raises MeshdError, with nothing changed, when the preferences are bad or cannot be stored.
        """
        if self.store.problem is not None:
            raise self.store.problem
        prefs = self.prefs
        update = options.get("UpdatePrefs")
        if update is not None:
            wanted = prefs_module.from_json(update)
            prefs = msgspec.structs.replace(
                wanted, config=prefs.config, internal_exit_node_prior=prefs.internal_exit_node_prior
            )
            self.check(prefs)
        machine = self.profiles.machine_key()
        self._detach_control()
        self.profiles.set_prefs(prefs)
        self._set_netmap(None, None)
        self.state = State.NO_STATE
        self._forget_auth_url()
        self.error = self._last_error = ""
        self._control_status = ControlStatus()
        control = self._make_control(
            server_url=prefs.effective_control_url(),
            machine_private=machine,
            persist=to_control(prefs.persist()),
            auth_key=str(options.get("AuthKey") or ""),
            hostinfo=self._describe_host(prefs),
            on_status=lambda status: self._on_control(control, status),
        )
        self._control = control
        if self._endpoints:
            control.update_endpoints(self._endpoints)
        if self._net_info is not None:
            control.update_netinfo(self._net_info)
        self._send_prefs()
        if not prefs.logged_out and prefs.want_running and self.node_private is not None:
            control.login(self._flags())
        self.decide()

    def _flags(self) -> LoginFlags:
        return LoginFlags.EPHEMERAL if self.store.ephemeral else LoginFlags.DEFAULT

    def _detach_control(self) -> None:
        old, self._control = self._control, None
        if old is not None:
            task = asyncio.get_running_loop().create_task(old.shutdown())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    # -- preferences ----------------------------------------------------------------------------------------

    def check(self, prefs: Prefs) -> None:
        """MeshdError "invalid" with every complaint (PP-05)."""
        prefs_module.check(prefs)
        if prefs.profile_name and self.profiles.name_taken(prefs.profile_name):
            raise MeshdError(f'profile name "{prefs.profile_name}" already in use', code="invalid")

    def edit_prefs(self, masked: Mapping[str, Any]) -> Prefs:
        """Change, check, store and apply preferences (PP-02, PP-04); returns them without keys."""
        return self._change_prefs(self._resolve_exit_node(prefs_module.edit(self.prefs, masked)))

    def use_exit_node(self, enabled: bool) -> Prefs:
        """Switch the exit node off, or the last one on again."""
        return self._change_prefs(exitnode.toggle(self.prefs, enabled))

    def _change_prefs(self, after: Prefs) -> Prefs:
        before = self.prefs
        if after == before:
            return before.redacted()
        self.check(after)
        if self.store.problem is not None:
            raise self.store.problem
        self.profiles.set_prefs(after)
        control = self._control
        if control is not None:
            control.update_hostinfo(self._describe_host(after))
            if after.want_running and not before.want_running and self.node_private is not None:
                control.login(self._flags())
        if self._needs_apply(before, after):
            self.apply()
        self._send_prefs()
        self.decide()
        return after.redacted()

    def _needs_apply(self, before: Prefs, after: Prefs) -> bool:
        return self.state in (State.STARTING, State.RUNNING) and before.want_running == after.want_running

    def _resolve_exit_node(self, prefs: Prefs) -> Prefs:
        """PP-08: an exit node given by address becomes one by id as soon as the netmap knows it."""
        address = prefs.exit_ip() if prefs.exit_node_ip and self.netmap else None
        if address is None or self.netmap is None:
            return prefs
        node = self.netmap.peer_by_ip(address)
        if node is None:
            return prefs
        return msgspec.structs.replace(prefs, exit_node_id=node.stable_id, exit_node_ip="")

    # -- login ----------------------------------------------------------------------------------------------

    def login_interactive(self) -> None:
        """Ask for a login URL, or show the one that is still good (LK-02)."""
        if self.store.problem is not None:
            raise self.store.problem
        if self._control is None:
            self.start({})
        assert self._control is not None
        if self.auth_url and self._clock.wall() - self._auth_url_at < AUTH_URL_LIFE_S:
            self.bus.send({"BrowseToURL": self.auth_url})
            return
        self._control.login(self._flags() | LoginFlags.INTERACTIVE)

    async def logout(self) -> None:
        """Expire the key at the server if it can be reached within seconds, and forget it (LK-07)."""
        if self.node_private is None:
            return
        await self._leave()
        self.profiles.delete(self.profiles.current.id)
        self.profiles.new()
        self.start({})

    async def _leave(self) -> None:
        control = self._control
        if control is None:
            return
        try:
            await control.logout(LOGOUT_PATIENCE_S)
        except MeshdError as error:
            log.warning("logout_unconfirmed", extra=kv(reason=error.message))

    def reset_auth(self) -> None:
        """Forget every login and the machine key (PS-14)."""
        self._detach_control()
        self.profiles.delete_all()
        self.profiles.forget_machine_key()
        self.start({})

    def new_profile(self) -> None:
        self.profiles.new()
        self.start({})

    def switch_profile(self, profile_id: str) -> None:
        if profile_id != self.profiles.current.id:
            self.profiles.switch(profile_id)
            self.start({})

    def delete_profile(self, profile_id: str) -> None:
        if self.profiles.delete(profile_id):
            self.start({})

    async def expire_key(self, expiry: float) -> None:
        if self._control is None or self.netmap is None:
            raise MeshdError("not running", code="unavailable")
        await self._control.set_expiry_sooner(expiry)

    async def ask_control(self, method: str, path: str, body: JSON) -> tuple[int, bytes]:
        """A request in the name of this node; ``NodeKey`` is added to ``body``. Status and body of the answer."""
        if self._control is None or self.netmap is None:
            raise MeshdError("no netmap", code="unavailable")
        encoded = msgspec.json.encode(body | {"NodeKey": self.netmap.node_key.text()})
        return await self._control.request(method, path, encoded)

    def disconnect_control(self) -> None:
        """Drop the connection to the coordination server; the client opens another one when it needs it."""
        if self._control is not None:
            self._control.disconnect()

    # -- reports of the control client ----------------------------------------------------------------------

    def _on_control(self, control: Control, status: ControlStatus) -> None:
        """SM-07."""
        if control is not self._control:
            return
        before, self._control_status = self._control_status, status
        if status.logged_out:
            return
        self._note_error(status)
        if status.login_finished:
            self._blocked = False
            self._forget_auth_url()
            self.bus.send({"LoginFinished": {}})
        try:
            self._store_login(status)
        except MeshdError as error:
            self.health.set("state-store-health", str(error))
            self.bus.send({"ErrMessage": error.message})
        if status.netmap is not None and (status.change is not None or self.netmap is None):
            self._set_netmap(status.netmap, status.change)
        if status.auth_url and status.auth_url != before.auth_url:
            self.browse(status.auth_url)
        self.decide()

    def _note_error(self, status: ControlStatus) -> None:
        if status.error is not None:
            if status.error.code in FINAL_ERRORS and str(status.error) != self.error:
                self.bus.send({"ErrMessage": status.error.message})
            self.error = str(status.error) if status.error.code in FINAL_ERRORS else ""
            self._last_error = str(status.error)
        elif status.in_map_poll or status.login_finished:
            self.error = self._last_error = ""

    def _store_login(self, status: ControlStatus) -> None:
        """LK-05: what a login settles in the preferences."""
        before = prefs = self.prefs
        if status.persist is not None:
            prefs = msgspec.structs.replace(prefs, config=from_control(status.persist))
        if status.login_finished:
            prefs = msgspec.structs.replace(
                prefs, want_running=True, logged_out=False, control_url=prefs.effective_control_url()
            )
        if status.netmap is not None and prefs.auto_update.apply is None and _wants_no_updates(status.netmap):
            updates = msgspec.structs.replace(prefs.auto_update, apply=False)
            prefs = msgspec.structs.replace(prefs, auto_update=updates)
        network: NetworkProfile | None = None
        if status.netmap is not None:
            network = NetworkProfile(status.netmap.magic_dns_suffix, status.netmap.domain)
        if prefs != before or (network is not None and network != self.profiles.current.network_profile):
            self.profiles.set_prefs(prefs, network)
        if prefs != before:
            self._send_prefs()

    def browse(self, url: str) -> None:
        """LK-03, LK-04: show a login page, unless no browser should open it."""
        scheme_ok = url.startswith("https://") or (
            url.startswith("http://") and self.prefs.effective_control_url().startswith("http://")
        )
        if not scheme_ok or not url.isprintable():
            log.warning("login_url_refused", extra=kv(reason="not a web address"))
            return
        self.auth_url, self._auth_url_at = url, self._clock.wall()
        self.bus.send({"BrowseToURL": url})

    def _forget_auth_url(self) -> None:
        self.auth_url, self._auth_url_at = "", 0.0

    # -- reports of the data plane --------------------------------------------------------------------------

    def set_endpoints(self, endpoints: Iterable[tuple[AddrPort, int]]) -> None:
        """Where peers may find us; control hears of it."""
        self._endpoints = tuple(endpoints)
        if self._control is not None:
            self._control.update_endpoints(self._endpoints)

    def set_net_info(self, net_info: NetInfo) -> None:
        """What the network check found; control hears of it."""
        self._net_info = net_info
        if self._control is not None:
            self._control.update_netinfo(net_info)

    def network_changed(self) -> None:
        """Interfaces, addresses or routes of the host changed (SM-06)."""
        if self.netmap is not None:
            self.reconciler.network_changed(self.netmap, self.prefs)

    # -- netmap ---------------------------------------------------------------------------------------------

    def _set_netmap(self, netmap: Netmap | None, change: MapChange | None) -> None:
        self.netmap, told = netmap, change
        if netmap is None:
            return
        resolved = self._resolve_exit_node(self.prefs)
        if resolved != self.prefs:
            self.profiles.set_prefs(resolved)
            change = None
        self.health.set("control-health", "\n".join(netmap.health) or None)
        refusals = netmap.refusals()
        self.health.set("refused-peers", "; ".join(str(r) for r in refusals) or None)
        if self.state in (State.STARTING, State.RUNNING):
            self.apply(change)
        if told is None or told.full or told.self_changed:
            self.bus.send({"SelfChange": node_json(netmap.self_node)})
        tell_peers(self.bus, netmap, told)

    def apply(self, change: MapChange | None = None) -> None:
        """Carry out netmap and preferences (RT-01); nothing while a login blocks us."""
        private = self.node_private
        if self.netmap is None or private is None or self._blocked or not self.prefs.want_running:
            return
        self.reconciler.apply(self.netmap, self.prefs, private, change)

    # -- the state machine ----------------------------------------------------------------------------------

    def decide(self) -> None:
        """Compute and enter the state that follows from the facts; until it rests."""
        for _ in range(4):
            state = next_state(self.state, self._facts())
            if state is self.state:
                break
            self._enter(state)
        self._update_pause()
        self._judge()

    def _judge(self) -> None:
        """What the login state says about our health."""
        prefs, state = self.prefs, self.state
        out = prefs.want_running and state is State.NEEDS_LOGIN
        error = self._last_error
        why = f"You are logged out. The last login error was: {error}" if error else "You are logged out."
        polling = self._control_status.in_map_poll or state not in (State.STARTING, State.RUNNING)
        self.health.set("wantrunning-false", None if prefs.want_running else "The mesh is stopped.")
        self.health.set("login-state", why if out else None)
        self.health.set("control", None if out else error)
        self.health.set(
            "not-in-map-poll",
            None
            if polling
            else "Unable to connect to the coordination server to synchronize the state of your network. "
            "Peer reachability might degrade over time.",
        )

    def _facts(self) -> Facts:
        prefs = self.prefs
        return Facts(
            want_running=prefs.want_running,
            logged_out=prefs.logged_out,
            blocked=self._blocked,
            has_node_key=self.node_private is not None,
            has_netmap=self.netmap is not None,
            auth_cant_continue=bool(self.auth_url) or not self._control_status.can_continue,
            key_expired=self.key_expired(),
            machine_authorized=self.netmap is not None and self.netmap.machine_authorized,
            live=self._is_live(),
        )

    def _enter(self, state: State) -> None:
        """SM-03, SM-04."""
        log.info("state", extra=kv(was=self.state.label, now=state.label))
        self.state = state
        if state is State.RUNNING:
            self._forget_auth_url()
        self.bus.send({"State": int(state)})
        if state is State.NEEDS_LOGIN:
            self._blocked = self.key_expired()
            self._stop_data_plane()
            self._service_status(f"Needs login: {self.auth_url}")
        elif state is State.STOPPED:
            self._stop_data_plane()
            self._service_status("Stopped; run 'mesh up' to log in")
        elif state in (State.STARTING, State.NEEDS_MACHINE_AUTH):
            self._blocked = False
            if state is State.STARTING:
                self.apply()
        elif state is State.RUNNING and self.netmap is not None:
            addresses = " ".join(str(ip) for ip in self.netmap.self_node.ips)
            self._service_status(f"Connected; {self.prefs.persist().user_profile.login_name}; {addresses}")

    def _stop_data_plane(self) -> None:
        """Peers learn from the new disco key that our sessions are gone, and begin anew when we are back."""
        self.reconciler.stop()
        if self._control is not None:
            self._control.update_disco_key(self._disco_key())

    def _update_pause(self) -> None:
        """SM-05: a node that is stopped on purpose does not talk to control."""
        if self._control is not None:
            self._control.set_paused(self.state is State.STOPPED and self.netmap is not None)

    # -- telling --------------------------------------------------------------------------------------------

    def _send_prefs(self) -> None:
        self.bus.send({"Prefs": prefs_module.to_json(self.prefs.redacted())})

    def _health_changed(self) -> None:
        self.bus.send({"Health": {"Warnings": self.health.warnings()}})

    @property
    def version(self) -> str:
        return long_version()

    def control_differs(self, url: str) -> bool:
        """Whether ``url`` is another server than the one in use."""
        return not same_control(url, self.prefs.control_url)

    async def close(self) -> None:
        """End the control client; an ephemeral node logs out first (SM-13)."""
        if self.store.ephemeral and self.node_private is not None:
            await self._leave()
        self._detach_control()
        self.health.close()
        self.bus.close()
        if self._closing:
            await asyncio.wait(self._closing, timeout=LOGOUT_PATIENCE_S)


def _wants_no_updates(netmap: Netmap) -> bool:
    """UP-04: the network's default, which holds until the user says otherwise. Switching updates on is not for us:
    this program comes with a package manager."""
    values = netmap.self_node.cap_map.get("default-auto-update")
    return netmap.default_auto_update is False or bool(values and values[0] is False)


def to_control(persist: Persist) -> ControlPersist:
    """The identity as the control client holds it."""
    node = NodePrivate.parse(persist.private_node_key)
    old = NodePrivate.parse(persist.old_private_node_key)
    lock = LockPrivate.parse(persist.network_lock_key)
    profile = persist.user_profile
    return ControlPersist(
        node_private=None if node.is_zero else node,
        old_node_private=None if old.is_zero else old,
        lock_private=None if lock.is_zero else lock,
        user_profile=WireUser(
            id=profile.id,
            login_name=profile.login_name,
            display_name=profile.display_name,
            profile_pic_url=profile.profile_pic_url,
        )
        if profile.id
        else None,
        stable_id=persist.node_id,
    )


def from_control(persist: ControlPersist) -> Persist:
    """The identity as it is stored."""
    user = persist.user_profile
    return Persist(
        private_node_key=(persist.node_private or NodePrivate.zero()).text(),
        old_private_node_key=(persist.old_node_private or NodePrivate.zero()).text(),
        network_lock_key=(persist.lock_private or LockPrivate.zero()).text(),
        user_profile=UserProfile(user.id, user.login_name, user.display_name, user.profile_pic_url)
        if user
        else UserProfile(),
        node_id=persist.stable_id,
    )
