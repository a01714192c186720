"""Puts one node together: host, data plane, engine, paths, control client, backend, LocalAPI.

The only place that knows all of them. Parts are opened in an order in which each can be closed again when the
next one fails, and closed in the reverse order.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable

import msgspec

from meshd._fast.plane import Plane
from meshd.base.addr import AddrPort, parse_ip
from meshd.base.errors import MeshdError
from meshd.base.keys import MachinePrivate
from meshd.base.log import get_logger, kv
from meshd.base.ranges import SERVICE_V4, SERVICE_V6
from meshd.core.controlstatus import ControlStatus, Persist
from meshd.core.endpoints import Endpoint
from meshd.core.prefs import Prefs
from meshd.daemon.flags import Flags
from meshd.daemon.hostpart import open_host
from meshd.daemon.notify import ServiceNotifier
from meshd.feature.localapi.server import LocalApiServer
from meshd.io.udp import UdpSockets, open_udp_sockets
from meshd.node.backend import Backend, Control
from meshd.node.control import ControlClient
from meshd.node.engine import Engine
from meshd.node.hostinfo import build_hostinfo
from meshd.node.magicsock import MagicSock
from meshd.node.profiles import Profiles
from meshd.node.reconciler import Reconciler
from meshd.node.service import NodeService
from meshd.node.store import open_store
from meshd.wire.control import Hostinfo, PingResponse, decode

log = get_logger(__name__)

MTU = 1280  # what every path carries; peers expect it


class SystemClock:
    """The clock of this machine."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()


class RunningNode:
    """A node that was put together; ``close`` takes it apart and leaves the host as it was."""

    def __init__(self, flags: Flags, api: LocalApiServer, notifier: ServiceNotifier, stop: Callable[[], None]) -> None:
        self._exits = contextlib.AsyncExitStack()
        self._loop = asyncio.get_running_loop()
        self._clock = SystemClock()
        self._flags = flags
        self._api = api
        self._notifier = notifier
        self._stop = stop
        self.failure: MeshdError | None = None
        """Why the node asked to be stopped; None when nothing is wrong."""

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

    def metrics(self) -> str:
        """All counters in Prometheus text form."""
        return self._service.metrics()

    async def dial(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect for a proxy: names of the network are known here, others are the system's business.

        Raises OSError like any connect.
        """
        netmap = self._backend.netmap
        node = netmap.node_by_name(host) if netmap is not None else None
        if node is not None and node.ips:
            host = str(node.ips[0])
        return await asyncio.open_connection(host, port)

    def _open(self) -> None:
        flags = self._flags
        host = open_host(flags, self)
        self._exits.callback(host.close)
        sockets = _open_sockets(flags.port)
        plane = Plane(
            tun_fds=host.tun_fds,
            udp4_fd=sockets.fd_v4,
            udp6_fd=sockets.fd_v6,
            mtu=MTU,
            vnet_header=host.vnet_header,
        )
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
            on_relays=lambda: self._backend.decide(),
            fixed_port=flags.port,
        )
        self._exits.callback(magicsock.close)
        hooks = engine.hooks
        hooks.datagram = magicsock.receive_datagram
        hooks.relay = magicsock.relay_wake
        hooks.send_error = magicsock.send_error
        hooks.answer = magicsock.send_to
        hooks.active = magicsock.peer_active
        hooks.session = lambda _: self._backend.decide()
        store = open_store(flags.state)
        profiles = Profiles(store, os.urandom, self._clock.wall)
        self._reconciler = Reconciler(
            engine,
            magicsock,
            host.router,
            host.attached,
            MTU,
            lambda code, text: self._report(code, text),
            self._loop.call_soon,
        )
        self._backend = backend = Backend(
            clock=self._clock,
            store=store,
            profiles=profiles,
            reconciler=self._reconciler,
            make_control=self._make_control,
            describe_host=self._describe_host,
            disco_key=lambda: magicsock.disco_public,
            is_live=self._is_live,
            service_status=self._notifier.status,
        )
        self._exits.push_async_callback(backend.close)
        plane.start()
        self._service = service = NodeService(
            backend,
            engine,
            magicsock,
            self._clock,
            tun=host.router is not None,
            counters=plane.counters,
            host=host,
            stop=self._stop,
        )
        for problem in host.problems:
            backend.health.set("host", problem)
        backend.begin()
        self._api.set_backend(service)

    # -- glue -----------------------------------------------------------------------------------------------

    def _report(self, code: str, text: str | None) -> None:
        self._backend.health.set(code, text)

    def _is_live(self) -> bool:
        return bool(self._magicsock.live_relays or self._engine.live_peers)

    def _endpoints_changed(self, endpoints: list[Endpoint]) -> None:
        found: list[tuple[AddrPort, int]] = [(e.addr, int(e.kind)) for e in endpoints]
        self._backend.set_endpoints(found)

    def network_changed(self) -> None:
        """Interfaces, addresses or routes of the host are others now."""
        log.info("network_changed")
        self._magicsock.link_changed()
        self._backend.network_changed()

    def interface_lost(self) -> None:
        """Nothing can pass any more; whoever started us can start us again."""
        self.failure = MeshdError(
            f"the tunnel interface of --tun={self._flags.tun} was deleted",
            code="host",
            hint="Start meshd again to have it back.",
        )
        self._stop()

    def rules_lost(self) -> None:
        """Somebody deleted our policy rules."""
        if self._host.router is not None:
            log.warning("policy_rules_deleted", extra=kv(action="restoring"))
            try:
                self._host.router.restore_rules()
            except MeshdError as error:
                self._report("router", str(error))

    def _make_control(
        self,
        *,
        server_url: str,
        machine_private: MachinePrivate,
        persist: Persist,
        auth_key: str,
        hostinfo: Hostinfo,
        on_status: Callable[[ControlStatus], None],
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
        """The server may end nodes that it knows to be broken."""
        log.warning("exit_asked_by_control", extra=kv(code=code))
        self._stop()

    def _describe_host(self, prefs: Prefs) -> Hostinfo:
        userspace = self._host.router is None
        described = build_hostinfo(prefs.hostname, userspace=userspace, userspace_router=userspace)
        return msgspec.structs.replace(
            described,
            routable_ips=tuple(prefs.advertise_routes or ()),
            request_tags=tuple(prefs.advertise_tags or ()),
            shields_up=prefs.shields_up,
        )


def _open_sockets(port: int) -> UdpSockets:
    try:
        return open_udp_sockets(port)
    except MeshdError:
        if not port:
            raise
        log.warning("udp_port_taken", extra=kv(port=port, action="using another one"))
        return open_udp_sockets(0)
