"""The node as local programs see it: login state, preferences, netmap, and what follows from them.

Everything happens on one event loop, so there is no lock. A change comes in (a preference, a report of the
control client, a timer), ``_decide`` computes the state that follows, and entering a state carries it out.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from meshd.base.addr import AddrPort, IPAddress
from meshd.base.clock import Clock
from meshd.base.errors import MeshdError, WireError
from meshd.base.keys import DiscoPublic, NodePrivate, NodePublic
from meshd.base.log import get_logger, kv
from meshd.base.version import long_version
from meshd.core import prefs as prefs_module
from meshd.core.controlstatus import ControlStatus, LoginFlags
from meshd.core.healthcheck import HealthView, RelayView
from meshd.core.mapchange import MapChange
from meshd.core.netmap import Netmap
from meshd.core.prefs import Persist, Prefs, same_control
from meshd.core.profile import NetworkProfile
from meshd.core.state import Facts, State, next_state
from meshd.node.authority import Authority
from meshd.node.bus import POLICY, NotifyBus
from meshd.node.controlport import Control, ControlFactory, Live
from meshd.node.controlrequests import ControlRequests
from meshd.node.dialplan import DialPlan
from meshd.node.discochannel import DiscoMemory
from meshd.node.health import NodeHealth
from meshd.node.identity import after_report, to_control
from meshd.node.loginpage import LoginPage
from meshd.node.netmapcache import NetmapCache
from meshd.node.nodejson import node_json
from meshd.node.nodereport import NodeReport
from meshd.node.peernews import tell_peers
from meshd.node.preferences import Preferences
from meshd.node.profiles import Profiles
from meshd.node.reconciler import Reconciler
from meshd.node.store import Store
from meshd.node.storewatch import StoreWatch
from meshd.wire.control import CapMap, ClientVersion, Hostinfo, NetInfo

log = get_logger(__name__)
JSON = dict[str, Any]

LOGOUT_PATIENCE_S = 5.0
_RECORDS_WANTED = "https://tailscale.com/cap/data-plane-audit-logs"
_NO_RECORDS = (
    "tailnet requires logging to be enabled: its nodes are to send records of their connections, and meshd sends none."
)


# Errors that trying again does not mend; the others are told as health while the node keeps trying.
FINAL_ERRORS = frozenset({"auth-refused", "auth-lock", "control-version", "control-url"})

# States in which netmap and preferences are carried out: a node that waits for approval has what the map leaves it.
CARRIED_OUT = frozenset({State.STARTING, State.NEEDS_MACHINE_AUTH, State.RUNNING})


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
        disco_memory: DiscoMemory,
        is_live: Live,
        service_status: Callable[[str], None],
        cache: NetmapCache | None = None,
        greet: Callable[[NodePublic], None] = lambda _: None,
        relay_view: Callable[[], RelayView] = RelayView,
        collect_services: Callable[[bool], None] = lambda _: None,
        authority: Authority | None = None,
        on_config: Callable[[], None] = lambda: None,
        on_attributes: Callable[[CapMap], None] = lambda _: None,
    ) -> None:
        self._clock = clock
        self.store = store
        self.profiles = profiles
        self.reconciler = reconciler
        self._make_control = make_control
        self._disco_key = disco_key
        self._disco_memory = disco_memory
        self._is_live = is_live
        self._service_status = service_status
        self._cache = cache
        self._greet = greet
        self._relay_view = relay_view
        self._collect_services = collect_services
        self.authority = authority if authority is not None else Authority()
        self._on_config = on_config
        self._on_attributes = on_attributes
        self.preferences = Preferences(store, profiles, self.authority, lambda: self.netmap, self._prefs_changed)
        self.requests = ControlRequests(clock, lambda: self._control, lambda: self.netmap)
        self.bus = NotifyBus()
        self.health = NodeHealth(clock, self._health_changed, self._health_view)
        self.state = self._told = State.NO_STATE
        self.netmap: Netmap | None = None
        self._key_of: Persist | None = None
        self._node_private: NodePrivate | None = None
        self._report = NodeReport(describe_host)
        self._page = LoginPage(clock, lambda url: self.bus.send({"BrowseToURL": url}))
        self.error = ""
        self._last_error = ""
        self.client_version: ClientVersion | None = None
        """What the coordination server knows of newer releases (LK-14)."""
        self._blocked = self._apart = False
        self._control: Control | None = None
        self._control_status = ControlStatus()
        self._judged: tuple[object, ...] = ()
        self._dial_plan = DialPlan()
        self.host_addresses: frozenset[IPAddress] = frozenset()
        """The host's own addresses that can be used now, without those of the mesh."""
        self._leaving: list[Control] = []
        """Clients that say goodbye, one for each who waits for it."""
        self._closing: set[asyncio.Task[None]] = set()
        tell = functools.partial(self.health.set, "state-store-health")
        self._store_watch = StoreWatch(clock, store, profiles, tell, self.begin)

    # -- what we are ----------------------------------------------------------------------------------------

    @property
    def prefs(self) -> Prefs:
        return self.profiles.prefs

    @property
    def node_private(self) -> NodePrivate | None:
        persist = self.prefs.persist()
        if persist is not self._key_of:
            self._key_of, self._node_private = persist, persist.node_private()
        return self._node_private

    @property
    def auth_url(self) -> str:
        """The page on which somebody has to approve this node, ``""`` when nobody is waited for."""
        return self._page.url

    @property
    def in_map_poll(self) -> bool:
        """Whether the map stream is open: the server can reach us."""
        return self._control is not None and self._control.in_map_poll

    def key_expired(self) -> bool:
        """Whether our own key has passed its expiry (LK-09)."""
        return self.netmap is not None and (self.netmap.self_node.expired or self._control_status.key_expired)

    # -- starting -------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start with the stored profile; what is wrong with the store is told by the status."""
        if self.store.problem is not None:
            return  # without a state there is nothing to be in, and no login that would be kept (SM-21)
        self.health.set("policy-file", self.authority.policy_problem)
        try:
            if self.authority.config is not None:
                self.profiles.keep(self.authority.configured(self.prefs))
            self.start({})
        except MeshdError as error:
            self._cannot_start(error)

    def _cannot_start(self, error: MeshdError) -> None:
        self.health.set("start", str(error))
        self._enter(State.NEEDS_LOGIN)

    def start(self, options: Mapping[str, Any]) -> None:
        """Begin anew with the preferences in ``UpdatePrefs`` and an ``AuthKey`` (SM-10).

        Raises MeshdError, with nothing changed, when preferences or key are bad or cannot be stored.
        """
        self._need_store("start backend")
        prefs = self.prefs
        update = options.get("UpdatePrefs")
        if update is not None:
            wanted = prefs_module.from_json(update)
            prefs = msgspec.structs.replace(
                wanted, config=prefs.config, internal_exit_node_prior=prefs.internal_exit_node_prior
            )
            self.check(prefs)
            if self._can_go_on(prefs, options):
                self.preferences.change(prefs)
                return
        prefs = self.preferences.settle(prefs)
        auth_key = str(options.get("AuthKey") or "")
        if not auth_key and self.state is not State.RUNNING:
            needed = prefs.logged_out or self.node_private is None
            auth_key = self.authority.auth_key(first_login=not self.profiles.list(), needed=needed)
        control = self._new_control(prefs, auth_key)
        try:
            # Only what somebody asked for is not begun when it cannot be stored.
            (self.profiles.keep if update is None else self.profiles.set_prefs)(prefs)
        except MeshdError:
            self._end(control)
            raise
        self._detach_control()
        self._forget_network()
        self._control, self._apart = control, False
        self._report.attach(control)
        self._send_prefs()
        if not prefs.logged_out and prefs.want_running and (self.node_private or self.authority.wants_login):
            self._recall(control)
            self._log_in(control)
        else:
            self._control_status = ControlStatus(can_continue=False)
            if not prefs.logged_out and self.node_private:
                self._recall(control)  # a node that is down still says who it is, and asks nobody for that
        self.health.set("start", None)
        self.decide()

    def _need_store(self, what: str) -> None:
        problem = self.store.problem
        if problem is not None:
            text = f"cannot {what} when state store is unhealthy: {problem.message}"
            raise MeshdError(text, code=problem.code, hint=problem.hint)

    def _forget_network(self) -> None:
        self._set_netmap(None, None)
        self.state = State.NO_STATE
        self._page.forget()
        self.error = self._last_error = ""
        self._control_status = ControlStatus()

    def _new_control(self, prefs: Prefs, auth_key: str) -> Control:
        """A client that does nothing yet. Raises MeshdError when server or key cannot be."""
        self.profiles.check_machine_key()
        control = self._make_control(
            server_url=prefs.effective_control_url(),
            machine_private=self.profiles.machine_key,
            persist=to_control(prefs.persist()),
            auth_key=auth_key,
            hostinfo=self._report.hostinfo(prefs),
            on_status=lambda status: self._on_control(control, status),
            on_client_version=lambda version: self._on_client_version(control, version),
            dial_plan=self._dial_plan,
            tailnet=self.authority.tailnet,
        )
        return control

    def _can_go_on(self, prefs: Prefs, options: Mapping[str, Any]) -> bool:
        """Whether nothing asks for a new conversation with the server: then peers need not notice anything either."""
        same = same_control(prefs.control_url, self.prefs.control_url)
        goes_on = self.state is State.RUNNING and self._control is not None and not self.prefs.logged_out
        return goes_on and same and not self._apart and not options.get("AuthKey")

    def _recall(self, control: Control) -> None:
        """Until the server is asked and has answered, the network is as we last knew it."""
        profile_id = self.profiles.current.id
        cached = self._cache.load(profile_id, self.prefs) if self._cache is not None and self.netmap is None else None
        private = self.node_private
        if cached is not None and self._cache is not None and private is not None:
            try:
                control.update_disco_key(self._disco_key())
                self._disco_memory.told(private.public())  # a node that is down takes another key at once
                control.recall(cached.response)
            except WireError as error:
                self._cache.refuse(profile_id, error)
            else:
                self.decide()
                for node in filter(None, map(self.netmap.peers.get, cached.met) if self.netmap else ()):
                    self._greet(node.key)

    def _log_in(self, control: Control, flags: LoginFlags = LoginFlags.DEFAULT) -> None:
        self._control_status = msgspec.structs.replace(self._control_status, can_continue=True, auth_url="")
        self._page.forget()  # nobody listens any more for what becomes of a former one
        control.login(flags | (LoginFlags.EPHEMERAL if self.store.ephemeral else LoginFlags.DEFAULT))

    def _detach_control(self, *, goodbye: bool = False) -> None:
        """``goodbye``: a logout that is under way is left to end, which ends the client."""
        old, self._control = self._control, None
        self._report.attach(None)
        if old is not None and not (goodbye and old in self._leaving):
            self._end(old)

    def _end(self, control: Control) -> None:
        task = asyncio.get_running_loop().create_task(control.shutdown())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    # -- preferences ----------------------------------------------------------------------------------------

    def check(self, prefs: Prefs) -> None:
        """MeshdError "invalid" with every complaint (PP-05) that does not hold already."""
        self.preferences.check(prefs, self.prefs)

    def edit_prefs(self, masked: Mapping[str, Any], reason: str = "") -> Prefs:
        """Change, check, store and apply preferences (PP-02, PP-04); returns them without keys.

        ``reason`` is what the user says of disconnecting, for a policy that asks.
        """
        after = self.preferences.edit(masked, reason)
        if prefs_module.hatches(masked):
            self._report.hatch(self.prefs)
        if self._apart and masked.get("WantRunningSet") is True and after.want_running:
            self._apart = False
            self._update_pause()
        return after

    def use_exit_node(self, enabled: bool) -> Prefs:
        """Switch the exit node off, or the last one on again."""
        return self.preferences.use_exit_node(enabled)

    def reload_config(self) -> bool:
        """Read the configuration file again and carry out what it says (CF-02); False when there is none.

        MeshdError, with nothing changed, when it is no good.
        """
        if not self.authority.reload_config():
            return False
        self._on_config()
        self.preferences.change(self.authority.configured(self.prefs))
        if self.state in (State.NO_STATE, State.NEEDS_LOGIN) and self.authority.auth_key(first_login=False):
            self.start({})
        return True

    def reload_policy(self) -> None:
        """Read the policy file again and hold it over the preferences."""
        before = self.authority.policy_json()
        self.authority.load_policy()
        if (policy := self.authority.policy_json()) != before:
            self.bus.send({"Policy": policy}, POLICY)
        self.health.set("policy-file", self.authority.policy_problem)
        self.preferences.change(self.prefs)

    def _prefs_changed(self, before: Prefs, after: Prefs) -> None:
        control = self._control
        if after.want_running:
            self.health.set("local-log-config-error", None)
        if control in self._leaving and after.want_running and not after.logged_out:
            self.start({})  # whoever wants in again does not wait until the server knows that we are out
            return
        if control is not None:
            self._report.host_changed(after)
            if after.want_running and not before.want_running and self._may_log_in():
                self._apart = False
                self._recall(control)
                self._log_in(control)
        if self._needs_apply(before, after):
            self.apply()
        self._send_prefs()
        self.decide()

    def _may_log_in(self) -> bool:
        """Whether a node that is to run asks the server by itself: with its key, or with a new one if none is tried."""
        if self.node_private is not None:
            return not self.prefs.logged_out
        return not (self._control_status.can_continue or self.auth_url)

    def _needs_apply(self, before: Prefs, after: Prefs) -> bool:
        return self.state in CARRIED_OUT and before.want_running == after.want_running

    # -- login ----------------------------------------------------------------------------------------------

    def login_interactive(self) -> None:
        """Ask for a login URL, or show the one that is still good (LK-02)."""
        self._need_store("log in")
        if self._control is None or self._control in self._leaving:
            self.start({})
        assert self._control is not None
        self._apart = False
        self._update_pause()
        if not self._page.show_again():
            self._log_in(self._control, LoginFlags.INTERACTIVE)

    async def logout(self, reason: str = "") -> None:
        """Expire the key at the server if it can be reached within seconds, and forget it (LK-07)."""
        self._need_store("log out")  # the login may be in it, and come back with it
        if self.node_private is None:
            return
        self.preferences.check_leave(reason)
        leaving, control = self.profiles.current.id, self._control
        # Stored first: what cannot be written is not begun, and whoever is killed meanwhile is out all the same.
        self.profiles.set_prefs(msgspec.structs.replace(self.prefs, want_running=False, logged_out=True))
        self._send_prefs()
        await self._leave()
        if self._control is not control and self.profiles.current.id == leaving:
            log.info("logout_superseded", extra=kv(reason="a login began meanwhile"))
            return
        try:
            self.delete_profile(leaving)  # by now the user may have switched to another one
        except MeshdError:
            if self.profiles.current.id == leaving:
                self._forget_network()
                self.decide()
            raise

    async def _leave(self) -> None:
        control = self._control
        if control is None:
            return
        self._leaving.append(control)
        try:
            self.decide()
            await control.logout(LOGOUT_PATIENCE_S)
        except MeshdError as error:
            log.warning("logout_unconfirmed", extra=kv(reason=error.message))
        finally:
            self._leaving.remove(control)
            if control is not self._control and control not in self._leaving:
                self._end(control)

    def reset_auth(self) -> None:
        """Forget every login and the machine key (PS-14)."""
        self.profiles.reset()
        self._profile_changed()

    def new_profile(self, *, operator_stays: bool = False) -> None:
        self.profiles.check_room()
        self.profiles.new(self.prefs.operator_user if operator_stays else "")
        self._profile_changed()

    def switch_profile(self, profile_id: str) -> None:
        if profile_id != self.profiles.current.id:
            self._need_store("switch profiles")
            self.profiles.switch(profile_id)
            self._profile_changed()

    def delete_profile(self, profile_id: str) -> None:
        self._need_store("delete a profile")
        if self.profiles.delete(profile_id):
            self._profile_changed()

    def _profile_changed(self) -> None:
        """Another identity: nothing of the former network stays (PS-13), whatever becomes of the new one."""
        self.preferences.profile_changed()
        self._hold_ways()
        self._detach_control(goodbye=True)
        self._dial_plan.forget()
        self._blocked = False
        self._set_netmap(None, None)
        self.health.set("local-log-config-error", None)
        self.client_version = None
        self.reconciler.stop()
        try:
            self.start({})
        except MeshdError as error:
            self._forget_network()
            self._cannot_start(error)
            raise

    def disco_key_changed(self) -> None:
        """Tell control the disco key that we have now, and through it the peers."""
        if self._control is not None:
            self._control.update_disco_key(self._disco_key())

    def clear_netmap_cache(self) -> None:
        """Remove the network map of this profile from the disk; the next change of the map writes it anew."""
        if self._cache is not None:
            self._cache.forget(self.profiles.current.id)

    def disconnect_control(self) -> None:
        """Leave the coordination server, which takes us for gone. Peers are served on; a login or "up" ends it."""
        if self._control is not None:
            self._apart = True
            self._update_pause()
            self._control.disconnect()

    # -- reports of the control client ----------------------------------------------------------------------

    def _on_control(self, control: Control, status: ControlStatus) -> None:
        """SM-07."""
        if control is not self._control:
            return
        before, self._control_status = self._control_status, status.facts()
        if status.logged_out:
            return
        runs = self.state is State.RUNNING and not self._last_error and status.netmap is self.netmap
        if runs and status.is_of_peers_only(before):
            prefs = self.prefs
            self._take_netmap(status)
            if self.prefs is not prefs:
                self.decide()
            return  # no other fact is different, and most reports are like that
        self._note_error(status)
        let_in = bool(self._page.url or before.auth_url)
        if status.login_finished:
            self._blocked = False
            self._page.forget()
            self.bus.send({"LoginFinished": {}})
        former = self.node_private
        self._keep_login(status, let_in=let_in)
        if self.node_private != former and self.state in CARRIED_OUT:
            self.apply()  # peers hear of the new key as soon as the server has it; our map may take a while
        if status.netmap is not None and _RECORDS_WANTED in status.netmap.self_node.cap_map:
            self._stay_out()
            return
        if status.netmap is not None and (status.change is not None or self.netmap is None):
            self._take_netmap(status)
        elif status.netmap is None and before.recalled:
            self._disown_netmap()
        if status.auth_url and status.auth_url != before.auth_url:
            self._page.ask(status.auth_url, self.prefs.effective_control_url())
        if self.netmap is not None and self.prefs.want_running:
            failed = bool(self._last_error) and not self.error
            if self._disco_memory.note(self.netmap.node_key, in_map_poll=status.in_map_poll, failed=failed):
                self.disco_key_changed()
        self.decide()

    def _on_client_version(self, control: Control, version: ClientVersion) -> None:
        if control is self._control:
            self.set_client_version(version)

    def _stay_out(self) -> None:
        """SM-11: a network that wants records of connections is not joined by a node that makes none."""
        self._set_netmap(None, None)
        self.clear_netmap_cache()
        if self.prefs.want_running:
            log.error("network_wants_records", extra=kv(action="disconnected"))
            self.health.set("local-log-config-error", _NO_RECORDS)
            self.profiles.keep(msgspec.structs.replace(self.prefs, want_running=False))
            self.bus.send({"ErrMessage": _NO_RECORDS})
            self._send_prefs()
        self.decide()

    def _take_netmap(self, status: ControlStatus) -> None:
        assert status.netmap is not None
        self._set_netmap(status.netmap, status.change)
        if self.key_expired():
            self.clear_netmap_cache()
        elif self._cache is not None and not status.recalled:
            self._cache.keep(self.profiles.current.id, self.prefs, status.netmap)

    def _note_error(self, status: ControlStatus) -> None:
        if status.error is not None:
            if status.error.code in FINAL_ERRORS and str(status.error) != self.error:
                self._page.forget()  # whoever tries again gets another one
                self.bus.send({"ErrMessage": status.error.message})
            self.error = str(status.error) if status.error.code in FINAL_ERRORS else ""
            self._last_error = str(status.error)
        elif status.in_map_poll or status.login_finished:
            self.error = self._last_error = ""

    def _keep_login(self, status: ControlStatus, *, let_in: bool) -> None:
        """LK-05: store what a login settles."""
        before = self.prefs
        prefs = self.authority.overlay(after_report(before, status, let_in=let_in))
        network: NetworkProfile | None = None
        if status.netmap is not None:
            netmap = status.netmap
            network = NetworkProfile(netmap.magic_dns_suffix, netmap.domain, netmap.display_name)
        if prefs != before or (network is not None and network != self.profiles.current.network_profile):
            self.profiles.keep(prefs, network)
        if prefs != before:
            self._send_prefs()

    def browse(self, url: str) -> bool:
        """Show a page of the coordination server, unless no browser should open it (LK-04)."""
        return self._page.browse(url, self.prefs.effective_control_url())

    # -- reports of the host and the data plane -------------------------------------------------------------

    def set_endpoints(self, endpoints: Iterable[tuple[AddrPort, int]]) -> None:
        """Where peers may find us; control hears of it."""
        self._report.set_endpoints(endpoints)

    def set_net_info(self, net_info: NetInfo) -> None:
        """What the network check found; control hears of it."""
        self.preferences.network_changed()
        self._report.set_net_info(net_info)

    def host_changed(self) -> None:
        """What there is to tell of this host is different."""
        self._report.host_changed(self.prefs)

    def set_push_token(self, token: str) -> None:
        """Where a graphical client takes push messages (PP-12); control hears of it."""
        self._report.set_push_token(token, self.prefs)

    def network_changed(self, addresses: frozenset[IPAddress], *, woke: bool = False) -> None:
        """Interfaces, addresses or routes of the host changed (SM-06), or it ``woke`` from sleep; ``addresses`` are
        those it has now."""
        before, self.host_addresses = self.host_addresses, addresses
        if self._control is not None:
            self._control.network_changed(addresses, gained=woke or bool(addresses - before))
        if self.netmap is not None:
            self.reconciler.network_changed(self.netmap, self.prefs)
        self.preferences.network_changed()
        self.health.look()

    # -- netmap ---------------------------------------------------------------------------------------------

    def _set_netmap(self, netmap: Netmap | None, change: MapChange | None) -> None:
        self.netmap, told = netmap, change
        if netmap is None:
            self._on_attributes({})
            self.health.set_messages({})
            self.health.set("refused-peers", None)
            return
        before, resolved = self.prefs, self.preferences.settle(self.prefs)
        if resolved != before:
            self.profiles.keep(resolved)
            change = None
        if told is None or told.full or told.self_changed:
            self._on_attributes(netmap.self_node.cap_map)
        self.health.set_messages(netmap.messages, self.prefs.effective_control_url())
        refusals = netmap.refusals()
        self.health.set("refused-peers", "; ".join(str(r) for r in refusals) or None)
        if self.state in CARRIED_OUT:
            self.apply(change)
        if told is None or told.full or told.self_changed or told.dns_changed or told.settings_changed:
            # By it containers learn that there are other names and certificates to ask for, too.
            self.bus.send({"SelfChange": node_json(netmap.self_node, netmap.magic_dns_suffix)})
        tell_peers(self.bus, netmap, told)
        if resolved != before:  # told after the nodes, of which one is the exit node now
            self._report.host_changed(resolved)
            self._send_prefs()

    def _disown_netmap(self) -> None:
        """The server does not know us as the cached netmap says: begin as if there had been none."""
        self.clear_netmap_cache()
        self._set_netmap(None, None)
        self.reconciler.stop()
        self.state = State.NO_STATE

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
        self._tell_state()
        self._update_pause()
        self._judge()
        netmap, running = self.netmap, self.state is State.RUNNING
        self._collect_services(running and netmap is not None and netmap.collect_services and not self.prefs.shields_up)

    def _judge(self) -> None:
        """Have a look at our health, when something that it follows from is different."""
        status = self._control_status
        netmap = self.netmap
        basis = (self.state, self.prefs, self._last_error, status.in_map_poll, netmap and netmap.invalid_filter)
        if basis != self._judged:
            self._judged = basis
            self.health.look()

    def _health_view(self) -> HealthView:
        """HE-01."""
        prefs, netmap, control = self.prefs, self.netmap, self._control
        out = prefs.want_running and self.state is State.NEEDS_LOGIN
        return HealthView(
            want_running=prefs.want_running,
            running=self.state is State.RUNNING,
            logged_out=out,
            login_error=self._last_error,
            sync=prefs.sync is not False,
            polls=self.state in (State.STARTING, State.RUNNING),
            in_map_poll=self._control_status.in_map_poll,
            map_heard_at=control.map_heard_at if control is not None else None,
            control_error="" if out else self._last_error,
            invalid_filter=netmap is not None and netmap.invalid_filter,
            client_version=self.client_version,
            check_updates=prefs.auto_update.check,
            apply_updates=prefs.auto_update.apply,
            relays=self._relays_of_host(),
        )

    def _relays_of_host(self) -> RelayView:
        """Providers give hosts addresses of 100.64.0.0/10, too, which the paths cannot tell from those of the mesh."""
        view = self._relay_view()
        if view.network_up is False:
            view.network_up = any(not (ip.is_loopback or ip.is_link_local) for ip in self.host_addresses)
        return view

    def relays_changed(self) -> None:
        """Relay connections, the home relay or what relays report are different."""
        self.decide()
        self.health.look()

    def set_client_version(self, version: ClientVersion) -> None:
        """LK-14: the server told us about newer releases."""
        if version != self.client_version:
            self.client_version = version
            self.bus.send({"ClientVersion": msgspec.to_builtins(version)})
            self.health.look()

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
            live=self._control_status.recalled or self._disco_memory.alone or self._is_live(),
        )

    def _enter(self, state: State) -> None:
        """SM-03, SM-04."""
        log.info("state", extra=kv(was=self.state.label, now=state.label))
        self.state = state
        if state is State.RUNNING:
            self._page.forget()
        self._tell_state(again=True)
        if state is State.NEEDS_LOGIN:
            self._blocked = self.key_expired()
            self._stop_data_plane()
            self._service_status(f"Needs login: {self.auth_url}")
        elif state is State.STOPPED:
            self._stop_data_plane()
            self._service_status("Stopped; run 'mesh up' to log in")
        elif state in (State.STARTING, State.NEEDS_MACHINE_AUTH):
            self._blocked = False
            self.apply()
        elif state is State.RUNNING and self.netmap is not None:
            addresses = " ".join(str(ip) for ip in self.netmap.self_node.ips)
            self._service_status(f"Connected; {self.prefs.persist().user_profile.login_name}; {addresses}")

    def _stop_data_plane(self) -> None:
        """Peers learn from the new disco key that our sessions are gone, and begin anew when we are back."""
        self._hold_ways()
        self.reconciler.stop()
        self.disco_key_changed()

    def _hold_ways(self) -> None:
        """Of what peers know of us, the server may not get the chance to tell them more."""
        self._disco_memory.stopping()
        if self._cache is not None:
            self._cache.hold()

    def _update_pause(self) -> None:
        """SM-05: a node that is stopped on purpose does not talk to control, nor one that shall not be synchronized."""
        if self._control is not None and self._control not in self._leaving:
            refused = self.health.is_broken("local-log-config-error")
            stopped = self.state is State.STOPPED and (self.netmap is not None or refused)
            self._control.set_paused(stopped or self._apart or self.prefs.sync is False)

    # -- telling --------------------------------------------------------------------------------------------

    def _tell_state(self, *, again: bool = False) -> None:
        """To watchers, who also want to know of a node that began anew and has not got far."""
        if again or self.state is not self._told:
            self._told = self.state
            self.bus.send({"State": int(self.state)})

    def _send_prefs(self) -> None:
        self.bus.send({"Prefs": prefs_module.to_json(self.prefs.redacted())})

    def _health_changed(self) -> None:
        self.bus.send({"Health": {"Warnings": self.health.warnings()}})

    @property
    def version(self) -> str:
        return long_version()

    async def close(self) -> None:
        """End the control client; an ephemeral node logs out first (SM-13)."""
        if self.store.ephemeral and self.node_private is not None:
            await self._leave()
        self._detach_control()
        if self._cache is not None:
            self._cache.close()
        self.preferences.close()
        self._store_watch.close()
        self.health.close()
        self.bus.close()
        if self._closing:
            await asyncio.wait(self._closing, timeout=LOGOUT_PATIENCE_S)
