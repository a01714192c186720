"""Puts one node together: host, data plane, engine, paths, control client, backend, LocalAPI.

The only place that knows all of them. Parts are opened in an order in which each can be closed again when the
next one fails, and closed in the reverse order.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from meshd._fast.plane import Plane
from meshd.base.addr import AddrPort, IPAddress, parse_ip
from meshd.base.errors import MeshdError
from meshd.base.keys import MachinePrivate
from meshd.base.log import get_logger, kv
from meshd.base.ranges import SERVICE_V4, SERVICE_V6, is_tailscale_ip
from meshd.core.controlstatus import ControlStatus, Persist
from meshd.core.dialnames import dial_address
from meshd.core.endpoints import Endpoint
from meshd.core.mapstrip import strip_switches
from meshd.core.prefs import Prefs
from meshd.core.tunnelcontext import REJECT_AFTER_S
from meshd.daemon.flags import Flags, tunnel_mtu
from meshd.daemon.hostdns import HostNames
from meshd.daemon.hostfilter import HostFilter
from meshd.daemon.hostpart import open_host
from meshd.daemon.notify import ServiceNotifier
from meshd.daemon.offload import OffloadChoice, choose_offload
from meshd.daemon.queues import packet_queues
from meshd.feature.c2n.handler import answer_call
from meshd.feature.localapi.server import LocalApiServer
from meshd.host.linux.portlist import PortList
from meshd.io.clientlookup import ClientLookups
from meshd.io.interfaces import address_towards, addresses_out
from meshd.io.udp import UdpSockets, open_udp_sockets
from meshd.node.authority import Authority
from meshd.node.backend import Backend
from meshd.node.control import ControlClient
from meshd.node.controlport import Control
from meshd.node.dialplan import DialPlan
from meshd.node.discochannel import DiscoMemory
from meshd.node.dnsresolver import NodeResolver
from meshd.node.dnsservice import DnsService
from meshd.node.engine import Engine
from meshd.node.hostinfo import build_hostinfo, by_prefs
from meshd.node.magicsock import MagicSock
from meshd.node.netmapcache import NetmapCache, cache_wanted
from meshd.node.pathswitches import path_switches
from meshd.node.portwatch import PortWatch
from meshd.node.profiledata import ProfileData
from meshd.node.profiles import Profiles
from meshd.node.reconciler import MAX_GREETED, Reconciler
from meshd.node.service import NodeService
from meshd.node.sleepwatch import SleepWatch
from meshd.node.store import Store, open_store
from meshd.wire.control import CapMap, ClientVersion, Hostinfo, PingResponse, decode

if TYPE_CHECKING:
    from meshd.daemon.debugserver import Page

log = get_logger(__name__)


class SystemClock:
    """The clock of this machine."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()


class RunningNode:
    """A node that was put together; ``close`` takes it apart and leaves the host as it was."""

    def __init__(
        self,
        flags: Flags,
        authority: Authority,
        api: LocalApiServer,
        notifier: ServiceNotifier,
        stop: Callable[[], None],
        *,
        environment_problem: str = "",
    ) -> None:
        self._environment_problem = environment_problem
        self._exits = contextlib.AsyncExitStack()
        self._loop = asyncio.get_running_loop()
        self._lookups = ClientLookups()
        self._clock = SystemClock()
        self._flags = flags
        self._authority = authority
        self._api = api
        self._notifier = notifier
        self._stop = stop
        self.failure: MeshdError | None = None
        """Why the node asked to be stopped; None when nothing is wrong."""
        self.exit_status = 0
        """That of the process, unless there is a failure."""

    async def open(self) -> None:
        """Open everything and start with the stored profile. Raises MeshdError with nothing left open."""
        try:
            self._open()
        except BaseException:
            await self._exits.aclose()
            raise

    async def close(self) -> None:
        await self._exits.aclose()

    @property
    def userspace(self) -> bool:
        """There is no tunnel interface."""
        return self._host.router is None

    def debug_pages(self) -> dict[str, Page]:
        """What the server of ``--debug`` shows."""
        from meshd.daemon.debugpages import debug_pages

        return debug_pages(self._service, self._magicsock)

    def reload(self) -> None:
        """Read the configuration file and the system policy again; what is wrong with them goes to the log."""
        try:
            self._backend.reload_policy()
            reloaded = self._backend.reload_config()
        except MeshdError as error:
            log.error("reload_failed", extra=kv(reason=error.message, action="going on as before"))
        else:
            log.info("reloaded", extra=kv(config=self._flags.config if reloaded else "none"))

    async def dial(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect for a proxy: names of the network are known here, others are the system's business.

        Raises OSError like any connect. Without a tunnel interface the mesh cannot be reached from here.
        """
        netmap = self._backend.netmap
        found = dial_address(netmap, host) if netmap is not None else None
        if found is not None:
            host = str(found)
        if self.userspace and (found is not None or _of_mesh(host)):
            raise OSError(errno.EHOSTUNREACH, "no tunnel interface, and no TCP/IP stack without one yet")
        return await self._lookups.connect(host, port)

    def _open(self) -> None:
        flags, mtu = self._flags, tunnel_mtu()
        queues = packet_queues()
        self._strip = strip_switches(os.environ)
        offload = choose_offload(os.environ, _kernel())
        host = open_host(flags, self, queues)
        self._exits.callback(host.close)
        host.watch_network(self)
        sockets = _open_sockets(flags.port, queues)
        with _packet_threads():
            plane = Plane(
                tun_fds=host.tun_fds,
                udp4_fd=sockets.fds_v4,
                udp6_fd=sockets.fds_v6,
                mtu=mtu,
                vnet_header=host.vnet_header,
            )
        plane.set_offload(**offload.offload.arguments())
        self._plane, self._offload = plane, offload
        plane.set_service_addresses([SERVICE_V4.packed, SERVICE_V6.packed])
        self._exits.callback(plane.stop)
        self._host = host
        self._engine = engine = Engine(
            plane, self._loop, self._clock, lambda key, data: self._magicsock.send(key, data)
        )
        self._exits.callback(engine.close)
        self._magicsock = magicsock = MagicSock(
            plane,
            self._loop,
            self._clock,
            sockets,
            peer_index=engine.peer_index,
            on_endpoints=self._endpoints_changed,
            on_netinfo=lambda info: self._backend.set_net_info(info),
            on_handshake=engine.receive,
            on_relays=lambda: self._backend.relays_changed(),
            fixed_port=flags.port,
            way_out=addresses_out,
            address_towards=address_towards,
            switches=path_switches(os.environ),
        )
        self._exits.callback(magicsock.close)
        hooks = engine.hooks
        hooks.datagram = magicsock.receive_datagram
        hooks.relay = magicsock.relay_wake
        hooks.send_error = magicsock.send_error
        hooks.answer = magicsock.send_to
        hooks.active = magicsock.peer_active
        hooks.authenticated = magicsock.peer_authenticated
        self._resolver = resolver = NodeResolver(
            lambda: self._backend.netmap,
            lambda silent: self._report("dns-forward-failing", silent),
            beside=lambda name: self._names.beside(name, self._backend.netmap, self._backend.prefs),
        )
        self._exits.callback(resolver.close)
        dns_service = DnsService(resolver, plane.deliver, self._own_addresses)
        self._exits.callback(dns_service.close)
        hooks.service = dns_service.packet
        hooks.session = lambda _: self._session_made()
        store = open_store(flags.state, flags.encrypt_state)
        profiles = Profiles(store, os.urandom, self._clock.wall)
        data = ProfileData(Path(flags.statedir) if flags.statedir and not store.ephemeral else None)
        self._cache = cache = self._netmap_cache(data, store, profiles)
        self._host_filter = HostFilter(host, lambda code, text: self._report(code, text), magicsock.set_firewall_mode)
        self._host_filter.keeper = host.keep_firewall(magicsock.ports, self._host_filter.done)
        self._names = HostNames(lambda code, text: self._report(code, text), resolver.configure)
        self._reconciler = Reconciler(
            engine,
            magicsock,
            host.router,
            host.attached,
            mtu,
            lambda code, text: self._report(code, text),
            self._loop.call_soon,
            self._host_filter,
            self._names.apply,
            host.own_addresses,
        )
        self._ports = PortWatch(self._loop, PortList().read, lambda: self._backend.host_changed())
        self._exits.callback(self._ports.close)
        self._backend = backend = Backend(
            clock=self._clock,
            store=store,
            profiles=profiles,
            reconciler=self._reconciler,
            make_control=self._make_control,
            describe_host=self._describe_host,
            disco_key=lambda: magicsock.disco_public,
            disco_memory=DiscoMemory(
                lambda: magicsock.disco_private,
                magicsock.rotate_disco,
                lambda: engine.connected_peers()[:MAX_GREETED],
                engine.greet,
            ),
            is_live=self._is_live,
            service_status=self._notifier.status,
            cache=cache,
            greet=engine.greet,
            relay_view=magicsock.relay_view,
            collect_services=self._ports.set_wanted,
            authority=self._authority,
            on_config=self._tell_static_endpoints,
            on_attributes=self._attributes_changed,
        )
        self._exits.push_async_callback(backend.close)
        keeper = host.keep_dns(resolver.configure, self._names.done)
        if keeper is not None:
            self._names.keeper = keeper
            self._exits.callback(keeper.close)  # first of all: as long as we answer, names must lead to us
        with _packet_threads():
            plane.start()
        self._service = service = NodeService(
            backend,
            engine,
            magicsock,
            self._clock,
            tun=host.router is not None,
            counters=lambda: {**plane.counters(), **plane.thread_reads(), **resolver.counters},
            host=host,
            resolver=resolver,
            base_dns=self._names.base,
            stop=self._stop,
            state_directory=flags.statedir,
            open_tap=host.tap,
            data=data,
            lookups=self._lookups,
        )
        backend.health.set("apply-disk-config", self._environment_problem)
        for problem in host.problems:
            backend.health.set("host", problem)
        self._tell_static_endpoints()
        backend.host_addresses = frozenset(host.reachable_addresses())
        backend.begin()
        self._exits.callback(SleepWatch(self._loop, self._clock, self.woke).close)
        self._api.set_backend(service)
        _tell_offload(offload)
        log.info("packet_threads", extra=kv(tun_queues=len(host.tun_fds), udp_sockets=sockets.per_port))

    def _netmap_cache(self, data: ProfileData, store: Store, profiles: Profiles) -> NetmapCache:
        cache = NetmapCache(
            data,
            self._clock,
            self._magicsock,
            self._engine.connected_peers,
            self._loop,
            enabled=cache_wanted(os.environ),
        )

        def profile_gone(profile_id: str) -> None:
            cache.forget(profile_id)
            data.remove(profile_id)

        profiles.on_deleted = profile_gone
        if store.problem is None:
            data.keep_only(profile.id for profile in profiles.list())
        return cache

    def _tell_static_endpoints(self) -> None:
        config = self._authority.config
        self._magicsock.set_static_endpoints(config.static_endpoints if config is not None else ())

    def _attributes_changed(self, attributes: CapMap) -> None:
        """What the network wants of this node is different, or may be."""
        offload = choose_offload(os.environ, _kernel(), attributes)
        if offload != self._offload:
            self._offload = offload
            self._plane.set_offload(**offload.offload.arguments())
            _tell_offload(offload)
        self._magicsock.set_background_stun("debug-always-stun" in attributes)
        self._magicsock.set_only_tcp("only-tcp-443" in attributes)
        if self._magicsock.set_random_port("randomize-client-port" in attributes):
            self._host_filter.changed()  # it lets our port in

    # -- glue -----------------------------------------------------------------------------------------------

    def _report(self, code: str, text: str | None) -> None:
        self._backend.health.set(code, text)

    def _own_addresses(self) -> tuple[IPAddress, ...]:
        netmap = self._backend.netmap
        return netmap.self_node.ips if netmap is not None else ()

    def _is_live(self) -> bool:
        """Peers are reached, or can be without waiting any longer: a relay that does not answer may never do so, and
        those on the same network need none."""
        magicsock = self._magicsock
        return bool(magicsock.live_relays or magicsock.home_relay_fails or self._engine.live_peers)

    def _session_made(self) -> None:
        self._cache.touch()
        self._backend.decide()

    def _endpoints_changed(self, endpoints: list[Endpoint]) -> None:
        found: list[tuple[AddrPort, int]] = [(e.addr, int(e.kind)) for e in endpoints]
        self._backend.set_endpoints(found)

    def network_changed(self) -> None:
        """Interfaces, addresses or routes of the host are others now."""
        log.info("network_changed")
        self._magicsock.link_changed()
        self._backend.network_changed(frozenset(self._host.reachable_addresses()))
        self._names.changed()

    def woke(self, slept_s: float) -> None:
        """The host or this process stood still for a while."""
        log.info("woke", extra=kv(slept_s=round(slept_s)))
        self._magicsock.find_again()
        if slept_s >= REJECT_AFTER_S:
            for key in self._engine.connected_peers()[:MAX_GREETED]:
                self._engine.greet(key)  # our sessions are young by a clock that stood still, and theirs are over
        self._backend.network_changed(frozenset(self._host.reachable_addresses()), woke=True)
        self._names.changed()

    def interface_lost(self) -> None:
        """Nothing can pass any more; whoever started us can start us again."""
        self.failure = MeshdError(
            f"the tunnel interface of --tun={self._flags.tun} was deleted",
            code="host",
            hint="Start meshd again to have it back.",
        )
        self._stop()

    def interface_renamed(self) -> None:
        """The packet filter's rules are to name it as it is called now."""
        self._host_filter.changed()

    def settings_changed(self) -> None:
        """Somebody switched forwarding or the reverse path check."""
        self._host_filter.changed()

    def routing_lost(self) -> None:
        """Somebody deleted policy rules, addresses or routes of ours."""
        if self._host.router is None:
            return
        try:
            count = self._host.router.restore()
        except MeshdError as error:
            self._report("router", str(error))
            return
        self._report("router", None)
        if count:
            log.warning("routing_restored", extra=kv(count=count, reason="another program had removed it"))

    def _make_control(
        self,
        *,
        server_url: str,
        machine_private: Callable[[], MachinePrivate],
        persist: Persist,
        auth_key: str,
        hostinfo: Hostinfo,
        on_status: Callable[[ControlStatus], None],
        on_client_version: Callable[[ClientVersion], None],
        dial_plan: DialPlan,
        tailnet: str,
    ) -> Control:
        return ControlClient(
            server_url=server_url,
            machine_private=machine_private,
            persist=persist,
            hostinfo=hostinfo,
            disco_public=self._magicsock.disco_public,
            clock=self._clock,
            on_status=lambda status: self._control_reported(status, on_status),
            auth_key=auth_key,
            on_ping=self._ping_for_control,
            on_browse=lambda url: self._backend.browse(url),
            on_exit=self._exit_asked,
            on_client_version=on_client_version,
            dial_plan=dial_plan,
            tailnet=tailnet,
            c2n=lambda payload: answer_call(self._service, payload),
            debug_flags=debug_flags(os.environ),
            strip=self._strip,
        )

    def _control_reported(self, status: ControlStatus, on_status: Callable[[ControlStatus], None]) -> None:
        # While control is away nobody would learn of another home relay, so the present one is kept.
        self._magicsock.control_connected = status.in_map_poll
        on_status(status)

    async def _ping_for_control(self, kind: str, address: str) -> PingResponse:
        """A ping that the coordination server asks for (control's PingRequest)."""
        try:
            target = parse_ip(address)
        except ValueError:
            raise MeshdError(f"{address!r} is not an address", code="invalid") from None
        found = await self._service.ping(target, kind, 0)
        return decode(PingResponse, msgspec.json.encode({"Type": kind, **found}))

    def _exit_asked(self, code: int) -> None:
        """The server may end nodes that it knows to be broken; by the code service managers start us again or not."""
        log.warning("exit_asked_by_control", extra=kv(code=code))
        self.exit_status = code & 0xFF
        self._stop()

    def _describe_host(self, prefs: Prefs) -> Hostinfo:
        userspace = self._host.router is None
        described = build_hostinfo(
            prefs.hostname,
            userspace=userspace,
            userspace_router=userspace,
            state_encrypted=self._backend.store.encrypted,
        )
        return msgspec.structs.replace(by_prefs(described, prefs), services=self._ports.services)


def _kernel() -> str:
    return os.uname().release if sys.platform.startswith("linux") else ""


def _tell_offload(choice: OffloadChoice) -> None:
    if choice.reasons:
        log.info("offload_off", extra=kv(what="; ".join(choice.reasons)))


def debug_flags(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Words that map requests tell the server for investigations."""
    return tuple(filter(None, environment.get("TS_DEBUG_CONTROL_FLAGS", "").split(",")))


@contextlib.contextmanager
def _packet_threads() -> Iterator[None]:
    """A system at its limits is no fault of meshd, and the user can do something about it."""
    try:
        yield
    except (RuntimeError, OSError, MemoryError) as error:
        raise MeshdError(
            f"the threads that carry packets cannot start: {error}",
            hint="the system allows meshd too few processes or open files; see TasksMax= and LimitNOFILE= of its unit, "
            "or ulimit -u and ulimit -n",
        ) from error


def _open_sockets(port: int, queues: int) -> UdpSockets:
    try:
        return open_udp_sockets(port, per_port=queues)
    except MeshdError:
        if not port:
            raise
        log.warning("udp_port_taken", extra=kv(port=port, action="using another one"))
        return open_udp_sockets(0, per_port=queues)


def _of_mesh(host: str) -> bool:
    """Whether a host is named by an address that only the mesh has."""
    try:
        return is_tailscale_ip(parse_ip(host))
    except ValueError:
        return False
