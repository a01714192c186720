"""The node as the LocalAPI serves it: one object that answers every route's question.

Reading is done here, on top of what the backend, the engine and the paths know; changes go to the backend.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from inspect import isawaitable
from typing import Any

import msgspec

from meshd.base.addr import IPAddress, parse_ip
from meshd.base.clock import Clock
from meshd.base.errors import MeshdError, WireError
from meshd.base.gotime import format_time
from meshd.base.keys import NodePublic
from meshd.base.ranges import is_tailscale_ip
from meshd.base.version import long_version
from meshd.core import prefs as prefs_module
from meshd.core.dialnames import dial_address
from meshd.core.dnscompile import OSConfig
from meshd.core.mapsession import MapSession
from meshd.core.netmap import Netmap
from meshd.core.node import Node
from meshd.core.state import State
from meshd.host.resolvconf import host_resolvers
from meshd.io.clientlookup import ClientLookups, Found
from meshd.io.wakeonlan import wake
from meshd.node import posture
from meshd.node.backend import Backend
from meshd.node.bugreport import BugReport
from meshd.node.bus import POLICY, Later, Watcher
from meshd.node.capture import OpenTap, PacketCapture, no_tap
from meshd.node.clientmetrics import ClientMetrics
from meshd.node.componentlog import ComponentLog
from meshd.node.debugactions import DebugActions
from meshd.node.dnsresolver import NodeResolver
from meshd.node.engine import Engine
from meshd.node.hostinfo import host_name
from meshd.node.inspection import HostChecks, Inspection
from meshd.node.keptthings import KeptThings
from meshd.node.magicsock import MagicSock
from meshd.node.nodejson import netmap_json, netmap_work, node_json, user_json
from meshd.node.peercaps import node_capabilities
from meshd.node.probes import netcheck_json, peer_for, ping_json
from meshd.node.profiledata import ProfileData
from meshd.node.profiler import CpuProfile, heap_profile
from meshd.node.stacks import stack_dump
from meshd.node.status import PeerTraffic, Snapshot, status_json, status_parts, status_work
from meshd.node.usermetrics import metric, traffic_metrics
from meshd.wire.control import MapResponse, decode, encode

JSON = dict[str, Any]

_WATCH_ENGINE, _INITIAL_STATE, _INITIAL_PREFS, _INITIAL_NETMAP, _INITIAL_HEALTH = 1, 2, 4, 8, 128
_INITIAL_SHARES, _INITIAL_SUGGESTION, _INITIAL_CLIENT_VERSION, _INITIAL_STATUS = 1 << 5, 1 << 10, 1 << 11, 1 << 14
_TUNNELS = 1 << 18
_BEGINS = _INITIAL_STATE | _INITIAL_PREFS | _INITIAL_NETMAP | _INITIAL_STATUS | _INITIAL_SHARES
_BEGINS |= _INITIAL_SUGGESTION | _INITIAL_CLIENT_VERSION | POLICY | _TUNNELS
"""Bits whose watchers wait for a first message, even when there is nothing to say."""
ENGINE_INTERVAL_S = 2.0
ENGINE_FIRST_S = 2.25  # a watcher that only wants the beginning is gone by then
PEER_POLL_S, PEER_PATIENCE = 0.1, 8  # a peer that joined a moment ago is on its way in the map stream


class NodeService(Inspection):
    """Implements the LocalAPI's ``LocalBackend`` for one node."""

    def __init__(
        self,
        backend: Backend,
        engine: Engine,
        magicsock: MagicSock,
        clock: Clock,
        *,
        tun: bool,
        counters: Callable[[], dict[str, int]],
        host: HostChecks,
        resolver: NodeResolver,
        base_dns: Callable[[], OSConfig] = host_resolvers,
        stop: Callable[[], None],
        state_directory: str = "",
        open_tap: OpenTap = no_tap,
        data: ProfileData | None = None,
        lookups: ClientLookups | None = None,
    ) -> None:
        super().__init__(backend, magicsock, clock, host, resolver, base_dns)
        self._engine = engine
        self._tun = tun
        self._counters = counters
        self._stop = stop
        self._lookups = lookups or ClientLookups()
        self._engine_timer: asyncio.TimerHandle | None = None
        self._uploaded = ClientMetrics()
        self._components = ComponentLog(backend.store, clock)
        self._components.restore()
        self._capture = PacketCapture(clock, magicsock, open_tap)
        backend.preferences.suggest_exit_node = self._suggested_id
        self._kept = KeptThings(data or ProfileData(None), lambda: backend.profiles.current.id)
        self._report = BugReport(backend, magicsock, clock, host)
        self._actions = DebugActions(backend, magicsock, self.netmap, state_directory)

    # -- reading --------------------------------------------------------------------------------------------

    def status(self, *, peers: bool = True) -> JSON:
        return status_json(self._snapshot(), peers=peers)

    def status_parts(self) -> tuple[JSON, Iterator[str]]:
        return status_parts(self._snapshot())

    def _snapshot(self) -> Snapshot:
        backend = self._backend
        return Snapshot(
            version=long_version(),
            tun=self._tun,
            state=backend.state,
            has_node_key=backend.node_private is not None,
            auth_url=backend.auth_url,
            netmap=backend.netmap,
            prefs=backend.prefs,
            health=backend.health.texts(),
            own_relay=self._magicsock.relay_code(self._magicsock.home_relay),
            own_endpoints=[str(e.addr) for e in self._magicsock.endpoints],
            client_version=backend.client_version,
            in_map_poll=backend.in_map_poll,
            host_name=host_name(),
            traffic=self._traffic,
        )

    def _traffic(self, node: Node) -> PeerTraffic:
        tunnel = self._engine.peer_status(node.key)
        path = self._magicsock.status(node.key)
        return PeerTraffic(
            rx_bytes=tunnel.rx_bytes if tunnel else 0,
            tx_bytes=tunnel.tx_bytes if tunnel else 0,
            last_handshake=tunnel.last_handshake if tunnel else None,
            last_write=path.last_write if path else None,
            address=str(path.address) if path and path.address else "",
            relay=self._magicsock.relay_code(node.home_derp),
            active=bool(path and path.active),
            in_engine=bool(tunnel and tunnel.in_engine),
            in_magicsock=path is not None,
        )

    def prefs(self) -> JSON:
        return prefs_module.to_json(self._backend.prefs.redacted())

    def check_prefs(self, prefs: Mapping[str, Any]) -> None:
        self._backend.check(prefs_module.from_json(prefs))

    def whois(self, ip: IPAddress, port: int, proto: str, at: IPAddress | None = None) -> JSON | None:
        netmap = self._backend.netmap
        node = netmap.node_by_ip(ip) if netmap else None
        return self._whois(node, at) if node else None

    def whois_node(self, key: NodePublic, at: IPAddress | None = None) -> JSON | None:
        netmap = self._backend.netmap
        if netmap is None:
            return None
        node = netmap.self_node if netmap.node_key == key else netmap.peer_by_key(key)
        return self._whois(node, at) if node else None

    def _whois(self, node: Node, at: IPAddress | None) -> JSON:
        netmap = self._backend.netmap
        assert netmap is not None
        user = netmap.user_of(node)
        own = netmap.self_node.ips if at is None else (at,)
        # With the shields up nobody may do anything here.
        caps = {} if self._backend.prefs.shields_up else node_capabilities(netmap.filter_rules, node, own)
        return {
            "Node": node_json(node, netmap.magic_dns_suffix),
            "UserProfile": user_json(user) if user else {"ID": node.user, "LoginName": "", "DisplayName": ""},
            "CapMap": caps or None,
        }

    def peer_by_id(self, node_id: int) -> JSON | None:
        netmap = self._backend.netmap
        if netmap is None:
            return None
        node = netmap.self_node if netmap.self_node.id == node_id else netmap.peers.get(node_id)
        return node_json(node, netmap.magic_dns_suffix) if node else None

    def user_profile(self, user_id: int) -> JSON | None:
        netmap = self._backend.netmap
        profile = netmap.user_profiles.get(user_id) if netmap else None
        return user_json(profile) if profile else None

    def profiles(self) -> list[JSON]:
        return [msgspec.to_builtins(p) for p in self._backend.profiles.list()]

    def current_profile(self) -> JSON:
        built: JSON = msgspec.to_builtins(self._backend.profiles.current)
        return built

    def derp_map(self) -> JSON | None:
        netmap = self._backend.netmap
        if netmap is None or netmap.derp_map is None:
            return None
        built: JSON = msgspec.json.decode(encode(netmap.derp_map))
        return built

    def metrics(self) -> str:
        counters = self._own_counters()
        own = "".join(f"# TYPE {n} counter\n{n} {counters[n]}\n" for n in sorted(counters))
        return own + self._peer_drops() + self._uploaded.text()

    def _peer_drops(self) -> str:
        """One line per peer and reason that there was: nothing for a peer that lost nothing."""
        name = "meshd_peer_dropped_packets"
        lines = [
            f'{name}{{peer="{key.text()}",reason="{reason}"}} {count}\n'
            for key, reasons in self._engine.peer_drops().items()
            for reason, count in reasons.items()
        ]
        return f"# TYPE {name} counter\n" + "".join(lines) if lines else ""

    def _own_counters(self) -> dict[str, int]:
        return {f"meshd_{name}": value for name, value in {**self._counters(), **self._engine.counters()}.items()}

    async def upload_metrics(self, updates: list[Any]) -> None:
        self._uploaded.update(updates, self._own_counters())

    def user_metrics(self) -> str:
        """The metrics with stable names; everything else may change from one version to the next."""
        backend, netmap = self._backend, self._backend.netmap
        advertised = [route for route in backend.prefs.routes() if route.prefixlen]  # an exit node is no subnet
        allowed = netmap.self_node.allowed_ips if netmap is not None else ()
        gauges = (
            ("advertised_routes", "Number of advertised network routes", "", len(advertised)),
            ("approved_routes", "Number of approved network routes", "", sum(r in allowed for r in advertised)),
            ("health_messages", "Number of health messages", '{type="warning"}', len(backend.health.texts())),
            ("home_derp_region_id", "Relay region of this node's home", "", self._magicsock.home_relay),
        )
        text = "".join(metric(name, "gauge", text, [(labels, value)]) for name, text, labels, value in gauges)
        return text + traffic_metrics(self._counters())

    # -- watching -------------------------------------------------------------------------------------------

    def watch(self, mask: int) -> AsyncIterator[JSON]:
        backend = self._backend
        watcher: Watcher = backend.bus.watch(mask)
        first: JSON = {}
        if mask & _INITIAL_STATE:
            first |= {"SessionID": secrets.token_hex(8), "State": int(backend.state)}
            if backend.state is State.NEEDS_LOGIN and backend.auth_url:
                first["BrowseToURL"] = backend.auth_url
            if backend.error:
                first["ErrMessage"] = backend.error
        if mask & _INITIAL_PREFS:
            first["Prefs"] = self.prefs()
        if mask & _INITIAL_NETMAP:
            first["NetMap"] = None
            if backend.netmap is not None:
                first["NetMap"] = Later.of(netmap_work(backend.netmap))
                first["SelfChange"] = node_json(backend.netmap.self_node, backend.netmap.magic_dns_suffix)
        if mask & _INITIAL_STATUS:
            first["InitialStatus"] = Later.of(status_work(self._snapshot()))
        if mask & POLICY:
            first["Policy"] = self.policy()
        if mask & _INITIAL_SUGGESTION and self._suggested:
            first["SuggestedExitNode"] = self._suggested
        if mask & _INITIAL_CLIENT_VERSION and backend.client_version is not None and backend.prefs.auto_update.check:
            first["ClientVersion"] = msgspec.to_builtins(backend.client_version)
        if mask & _BEGINS:
            if mask & _INITIAL_HEALTH:
                first["Health"] = {"Warnings": backend.health.warnings()}
            watcher.put(first)
        if mask & _WATCH_ENGINE and self._engine_timer is None:
            self._engine_timer = asyncio.get_running_loop().call_later(ENGINE_FIRST_S, self._tell_engine)
        return watcher

    async def netmap(self) -> JSON | None:
        """The network map for programs: self, peers sorted by id, domain."""
        netmap = self._backend.netmap
        made: JSON | None = await Later(netmap_work(netmap)).made() if netmap is not None else None
        return made

    def candidate_netmap(self, message: bytes) -> JSON:
        """What `netmap` would be after this map message as the first. Raises WireError for one that is no good."""
        session = MapSession()
        session.apply(decode(MapResponse, message), self._clock.wall())
        if session.netmap is None:
            raise WireError("a keep-alive brings no map")
        return netmap_json(session.netmap)

    def health(self) -> JSON:
        """Every problem that shows, by code."""
        return {"Warnings": self._backend.health.warnings()}

    def stacks(self) -> str:
        """Where every task and thread stands."""
        return stack_dump()

    def posture(self, *, addresses: bool) -> JSON:
        """Serial numbers of this machine, and hardware addresses if wanted. Raises MeshdError."""
        code = "posture-checking-serial-collection-failed"
        try:
            found = posture.identity(addresses=addresses, serial=self._backend.authority.serial_number)
        except MeshdError as error:
            self._backend.health.set(code, error.message)
            raise
        self._backend.health.set(code, None)
        return found

    def wake(self, macs: list[bytes]) -> JSON:
        """Wake hosts of the local networks by their hardware addresses."""
        woken = wake(macs)
        return {"SentTo": woken.sent or None, "Errors": woken.errors or None}

    def _tell_engine(self) -> None:
        """Engine statistics every two seconds for as long as somebody watches them."""
        self._engine_timer = None
        if not self._backend.bus.wants(_WATCH_ENGINE):
            return
        live: JSON = {}
        received = sent = 0
        for key in self._engine.used_peers():
            peer = self._engine.peer_status(key)
            if peer is None:
                continue
            received += peer.rx_bytes
            sent += peer.tx_bytes
            if peer.last_handshake:
                live[key.text()] = {
                    "NodeKey": key.text(),
                    "TxBytes": peer.tx_bytes,
                    "RxBytes": peer.rx_bytes,
                    "LastHandshake": format_time(peer.last_handshake),
                }
        self._backend.bus.send(
            {
                "Engine": {
                    "RBytes": received,
                    "WBytes": sent,
                    "NumLive": len(live),
                    "LiveDERPs": self._magicsock.live_relays,
                    "LivePeers": live,
                }
            }
        )
        self._engine_timer = asyncio.get_running_loop().call_later(ENGINE_INTERVAL_S, self._tell_engine)

    # -- acting ---------------------------------------------------------------------------------------------

    async def edit_prefs(self, masked: Mapping[str, Any], reason: str = "") -> JSON:
        backend = self._backend
        stops = backend.prefs.want_running and not prefs_module.edit(backend.prefs, masked).want_running
        if stops and reason and backend.authority.asks_reason:
            backend.preferences.check_edit(masked, reason)  # what may not be is no news for the server
            meant = backend.profiles.current.id
            await backend.requests.report_disconnect(backend.profiles.current.name, reason)
            if backend.profiles.current.id != meant:
                raise MeshdError(
                    "nothing was changed: another profile is in use since the request was made",
                    code="conflict",
                    hint="See which one with: mesh switch --list",
                )
        return prefs_module.to_json(backend.edit_prefs(masked, reason))

    def config_locked(self) -> bool:
        config = self._backend.authority.config
        return config is not None and config.locked

    def operators_may_stop(self) -> bool:
        policy = self._backend.authority.policy
        return policy is not None and policy.flag("AllowTailscaledRestart")

    def policy(self) -> JSON:
        return self._backend.authority.policy_json()

    async def reload_config(self) -> bool:
        return self._backend.reload_config()

    async def reload_policy(self) -> None:
        self._backend.reload_policy()

    async def use_exit_node(self, enabled: bool) -> JSON:
        return prefs_module.to_json(self._backend.use_exit_node(enabled))

    async def ask_control(self, method: str, path: str, body: JSON) -> tuple[int, bytes]:
        return await self._backend.requests.ask(method, path, body)

    async def disconnect_control(self) -> None:
        self._backend.disconnect_control()

    def dial_target(self, name: str) -> tuple[str, bool]:
        netmap = self._backend.netmap
        found = dial_address(netmap, name) if netmap is not None else None
        try:
            ip = found or parse_ip(name)
        except ValueError:
            return name, False
        ours = self._leads_to_peer(ip)
        if not self._tun and (ours or (netmap is not None and ip in netmap.self_node.ips)):
            # The host's own network must not see what is meant for the mesh.
            raise MeshdError(
                "dial failure: no tunnel interface, and no TCP/IP stack without one yet", code="unavailable"
            )
        return str(ip), ours

    def _leads_to_peer(self, ip: IPAddress) -> bool:
        """Whether packets to it go through the mesh now. To our own address, and where this node accepts no routes,
        programs connect by themselves, as the users that they run as."""
        netmap, prefs = self._backend.netmap, self._backend.prefs
        return netmap is not None and prefs.want_running and bool(peer_for(netmap, ip, subnets=prefs.route_all))

    async def look_up(self, name: str, port: int) -> Found:
        return await self._lookups.look_up(name, port)

    async def start(self, options: Mapping[str, Any]) -> None:
        self._backend.start(options)

    async def login_interactive(self) -> None:
        self._backend.login_interactive()

    async def logout(self, reason: str = "") -> None:
        await self._backend.logout(reason)

    async def reset_auth(self) -> None:
        self._backend.reset_auth()

    async def new_profile(self, *, operator_stays: bool) -> None:
        self._backend.new_profile(operator_stays=operator_stays)

    async def switch_profile(self, profile_id: str) -> None:
        self._backend.switch_profile(profile_id)

    async def delete_profile(self, profile_id: str) -> None:
        self._backend.delete_profile(profile_id)

    async def ping(self, ip: IPAddress, kind: str, size: int) -> JSON:
        netmap, prefs = self._known_netmap(), self._backend.prefs
        for _ in range(PEER_PATIENCE):
            node = peer_for(netmap, ip, subnets=prefs.route_all, exit_node=prefs.exit_node_id)
            here = node is not None and (node.expired or self._magicsock.status(node.key) is not None)
            if ip in netmap.self_node.ips or here or not is_tailscale_ip(ip):
                break
            await asyncio.sleep(PEER_POLL_S)
            netmap = self._known_netmap()
        return await ping_json(netmap, prefs, self._engine, self._magicsock, ip, kind, size)

    def _known_netmap(self) -> Netmap:
        if self._backend.netmap is None:
            raise MeshdError("no netmap: this node is not logged in", code="unavailable")
        return self._backend.netmap

    async def netcheck(self, bound: tuple[IPAddress | None, int] | None = None) -> JSON:
        return netcheck_json(await self._magicsock.netcheck(bound), self._clock.wall())

    async def set_push_token(self, token: str) -> None:
        self._backend.set_push_token(token)

    async def set_expiry_sooner(self, expiry: float) -> None:
        await self._backend.requests.expire_key(expiry)

    async def debug(self, action: str, body: bytes) -> Any:
        answer = self._actions.run(action, body)
        return await answer if isawaitable(answer) else answer

    def capture(self) -> AsyncIterator[bytes]:
        return self._capture.output()

    def kept(self, name: str) -> JSON:
        return self._kept.read(name)

    def keep(self, name: str, value: JSON) -> None:
        self._kept.write(name, value)

    async def profile(self, kind: str, seconds: float) -> bytes:
        if kind == "heap":
            return await asyncio.to_thread(heap_profile)
        profile = CpuProfile()
        profile.start()
        try:
            await asyncio.sleep(seconds)
        finally:
            data = profile.finish()
        return data

    async def write_state(self, key: str, value: str) -> None:
        """PS-15."""
        self._backend.store.write(key, value.encode())

    def bug_report(self, note: str, *, diagnose: bool) -> str:
        marker = self._report.mark(note)
        if diagnose:
            self._report.diagnose()
        return marker

    async def log_component(self, component: str, seconds: int) -> None:
        self._components.enable(component, seconds)

    def logs_component(self, component: str) -> bool:
        return self._components.is_on(component)

    async def shutdown(self) -> None:
        asyncio.get_running_loop().call_later(0.05, self._stop)
