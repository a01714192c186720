"""Carries out what netmap and preferences ask for: tunnels, paths, filter, addresses, routes.

The wanted state is computed by pure functions of ``meshd.core``; this class knows what was applied last and
passes on the difference. A change of one peer costs the same whether there are ten peers or ten thousand.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from meshd.base.addr import IPAddress, IPPrefix
from meshd.base.errors import MeshdError
from meshd.base.keys import NodePrivate, NodePublic
from meshd.base.log import get_logger, kv
from meshd.base.ranges import is_via
from meshd.core.controlknobs import control_knobs
from meshd.core.dnsplan import normal
from meshd.core.filterprogram import FilterPlanner, FilterProgram
from meshd.core.mapchange import MapChange
from meshd.core.netmap import Netmap
from meshd.core.node import Node
from meshd.core.prefs import Prefs
from meshd.core.routeplan import RouteChange, RoutePlan
from meshd.core.routes import RouterConfig, RouteTable, accepted_prefixes
from meshd.core.unsignedpeers import holders_of, holds
from meshd.node.engine import Engine
from meshd.node.enginepeer import PeerConfig
from meshd.node.magicsock import MagicSock, PathPeer

log = get_logger(__name__)
T = TypeVar("T")

MAX_LOGGED_REFUSALS = 8
MAX_GREETED = 256  # peers that get a handshake at once when our key changes; the others when they have traffic
SLICE = 256  # peers of a large message that are applied in one go: a few milliseconds


class HostRouter(Protocol):
    """What the host's router must offer; absent in userspace mode."""

    def apply(self, config: RouterConfig) -> None: ...

    def change(self, change: RouteChange) -> None: ...


class HostFilter(Protocol):
    """What must hold the host's packet filter; absent in userspace mode."""

    def apply(self, self_node: Node, prefs: Prefs) -> None: ...

    def stop(self) -> None: ...

    def changed(self) -> None: ...


class Reconciler:
    """``apply`` brings everything to a netmap and preferences, ``stop`` to nothing at all."""

    def __init__(
        self,
        engine: Engine,
        magicsock: MagicSock,
        router: HostRouter | None,
        attached: Callable[[], list[IPPrefix]],
        mtu: int,
        report: Callable[[str, str | None], None],
        later: Callable[[Callable[[], None]], object] | None = None,
        host_filter: HostFilter | None = None,
        dns: Callable[[Netmap | None, Prefs | None], None] = lambda _netmap, _prefs: None,
        host_addresses: Callable[[], list[IPAddress]] = list,
    ) -> None:
        """``attached`` and ``host_addresses`` tell the host's own networks and addresses.

        ``later`` runs a callable in another turn of the event loop; a large map is then applied in slices. Without
        it everything is applied at once. ``dns`` is told whenever who answers DNS questions may be somebody else
        (`meshd.core.dnsplan.dns_plan`), with None when there is no network any more.
        """
        self._engine = engine
        self._magicsock = magicsock
        self._router = router
        self._attached = attached
        self._host_addresses = host_addresses
        self._mtu = mtu
        self._report = report
        self._later = later
        self._host_filter = host_filter
        self._dns = dns
        self._waiting: deque[int] = deque()  # peers of large messages whose turn has not come
        self._routes = RouteTable()
        self._plan = RoutePlan(self._routes)
        self._routes_stand = False  # the router has all of the plan
        self._present: dict[int, NodePublic] = {}
        self._holder: dict[NodePublic, int] = {}  # who had the key last: two peers may swap theirs
        self._basis: tuple[object, ...] = ()
        self._own_ips: tuple[IPAddress, ...] = ()
        self._self_node: Node | None = None
        self._private: NodePrivate | None = None
        self._own_key: NodePublic | None = None  # the map may call us otherwise, and give it to a peer
        self._filter_planner = FilterPlanner()
        self._filter_program: FilterProgram | None = None
        self._shields_up = False
        self._via: tuple[object, ...] = ()
        self.running = False

    def apply(self, netmap: Netmap, prefs: Prefs, private: NodePrivate, change: MapChange | None) -> None:
        """Apply a netmap. With ``change`` only what it names is looked at, unless something that concerns
        every peer is different from last time."""
        own_ips = self._own_ips if netmap.self_node is self._self_node else netmap.self_node.ips
        basis = (*_basis(prefs, private), own_ips)
        everything = change is None or change.full or basis != self._basis or not self.running
        self._own_ips, self._self_node = own_ips, netmap.self_node
        self._basis = ()  # should anything below fail, nobody knows what stands, and the next time brings everything
        if everything:
            self._set_key(private)
            self.running = True
        if netmap.derp_map is not None and (everything or (change is not None and change.derp_changed)):
            self._magicsock.set_derp_map(netmap.derp_map)
        if everything or change is None or change.self_changed:
            self._routes.prefer_one_route(control_knobs(netmap)["OneCGNAT"] is True)
            self._translate([route for route in prefs.routes() if is_via(route)], own_ips)
        if everything or change is None:
            self._all_peers(netmap, prefs)
        else:
            for node in change.removed:
                self._drop(node.id)
            news = [*change.added, *(node for _, node in change.changed)]
            if len(news) > SLICE and self._later is not None:
                self._waiting = deque([*self._waiting, *(node.id for node in news)])
                self._next_peers(self._waiting, netmap, prefs)
            else:
                for node in news:
                    self._put(node, prefs)
            for old, node in change.patched:
                self._patch(old, node, prefs)
        if (
            everything
            or change is None
            or change.filter_changed
            or change.self_changed
            or _holders_changed(change, self._filter_planner.capabilities)
        ):
            self._filter(netmap, prefs)
        if everything or change is None or change.self_changed:
            self.route(netmap, prefs)
            if self._host_filter is not None:
                self._host_filter.apply(netmap.self_node, prefs)
        elif self._routes.touched:
            self._reroute(netmap, prefs)
        if (
            everything
            or change is None
            or change.dns_changed
            or change.self_changed
            or _exit_node_in(change, prefs)
            or _names_beyond(change, netmap)
        ):
            self._dns(netmap, prefs)
        self._basis = basis

    def stop(self) -> None:
        """No peers, no addresses, no routes, no relay connections."""
        self._waiting = deque()
        for node_id in list(self._present):
            self._drop(node_id)
        self._routes.clear()
        self._filter_planner = FilterPlanner()
        self._filter_program, self._shields_up = FilterProgram(), False
        self._engine.set_filter((), ())
        self._translate([], ())
        self._engine.set_private_key(None)
        self._magicsock.set_private_key(None)
        self._basis, self._private, self._own_key = (), None, None
        self.running = False
        if self._router is not None:
            self._tell_router(self._router.apply, RouterConfig(mtu=self._mtu))
        if self._host_filter is not None:
            self._host_filter.stop()
        self._dns(None, None)

    def _translate(self, routes: list[IPPrefix], own_ips: tuple[IPAddress, ...]) -> None:
        """RT-08. Peers need IPv4 addresses in the data plane then, which `_put` gives them."""
        wanted = (*routes, *own_ips) if routes else ()
        if wanted != self._via:
            self._via = wanted
            self._engine.set_via(routes, own_ips)

    def _set_key(self, private: NodePrivate) -> None:
        """A peer that learned of our new key before we took it has had no answer: do not wait for its next try."""
        met = self._engine.connected_peers() if self.running and private != self._private else []
        self._private, self._own_key = private, private.public()
        self._engine.set_private_key(private)
        self._magicsock.set_private_key(private)
        for key in met[:MAX_GREETED]:
            self._engine.greet(key)

    def _all_peers(self, netmap: Netmap, prefs: Prefs) -> None:
        for node_id in [i for i in self._present if i not in netmap.peers]:
            self._drop(node_id)
        self._waiting = deque(netmap.peers)
        self._next_peers(self._waiting, netmap, prefs)

    def _next_peers(self, waiting: deque[int], netmap: Netmap, prefs: Prefs) -> None:
        """Apply some of the peers that wait, as they are by now, and come back for the others."""
        for _ in range(min(len(waiting), SLICE) if self._later is not None else len(waiting)):
            node = netmap.peers.get(waiting.popleft())
            if node is not None:
                self._put(node, prefs)
        if waiting and self._later is not None:
            self._later(lambda: self._go_on(waiting, netmap, prefs))

    def _go_on(self, waiting: deque[int], netmap: Netmap, prefs: Prefs) -> None:
        if waiting is not self._waiting:
            return  # stopped, or begun anew
        self._next_peers(waiting, netmap, prefs)
        if self._routes.touched:
            self._reroute(netmap, prefs)

    def _put(self, node: Node, prefs: Prefs) -> None:
        known = self._present.get(node.id)
        reachable = node.disco_key is not None or node.home_derp or node.is_wireguard_only
        if node.expired or not reachable or node.key == self._own_key:
            self._drop(node.id)
            return
        accepted = accepted_prefixes(
            node.addresses,
            node.allowed_ips,
            subnets=prefs.route_all,
            exit_node=bool(prefs.exit_node_id) and node.stable_id == prefs.exit_node_id,
        )
        self._present[node.id] = node.key
        self._holder[node.key] = node.id
        self._routes.set_peer(node.id, accepted)
        if known == node.key:
            # First, since the engine greets a peer that restarted: not on the path of its former life, where nobody
            # would send it again.
            self._magicsock.update_peer(_path_peer(node))
        self._engine.update_peer(
            PeerConfig(
                node_key=node.key,
                allowed_ips=accepted,
                disco_key=node.disco_key,
                jailed=node.is_jailed,
                masquerade=_masquerade(node, self._own_ips),
                ipv4=next((ip for ip in node.ips if ip.version == 4), None) if self._via else None,
            )
        )
        if known != node.key:
            self._magicsock.update_peer(_path_peer(node))
        if known is not None and known != node.key:
            self._drop_key(known, node.id)  # its routes have moved to the new key by now

    def _patch(self, old: Node, node: Node, prefs: Prefs) -> None:
        """Only the ways to reach a peer changed, or what is known of its life."""
        if (
            node.id not in self._present
            or old.disco_key != node.disco_key
            or bool(old.home_derp) != bool(node.home_derp)
        ):
            self._put(node, prefs)
        elif old.endpoints != node.endpoints or old.home_derp != node.home_derp:
            self._magicsock.update_peer(_path_peer(node))

    def _drop(self, node_id: int) -> None:
        key = self._present.pop(node_id, None)
        if key is not None:
            self._routes.set_peer(node_id, ())
            self._drop_key(key, node_id)

    def _drop_key(self, key: NodePublic, node_id: int) -> None:
        if self._holder.get(key) != node_id:
            return  # another peer has taken it over in the same message
        del self._holder[key]
        self._engine.remove_peer(key)
        self._magicsock.remove_peer(key)

    def _filter(self, netmap: Netmap, prefs: Prefs) -> None:
        program = self._filter_planner.plan(
            netmap.filter_rules,
            [*netmap.self_node.addresses, *prefs.routes()],
            shields_up=prefs.shields_up,
            attached=self._attached(),
            host_addresses=self._host_addresses() if prefs.offers_exit_node else (),
            cap_sources=lambda cap: holders_of(cap, netmap.peers.values()),
        )
        if program != self._filter_program or prefs.shields_up != self._shields_up:
            for reason in program.refused[:MAX_LOGGED_REFUSALS]:
                log.warning("filter_rule_refused", extra=kv(reason=reason))
            self._engine.set_filter(program.rules, program.local, shields_up=prefs.shields_up)
            self._filter_program, self._shields_up = program, prefs.shields_up

    def network_changed(self, netmap: Netmap, prefs: Prefs) -> None:
        """The host's own networks are others now: filter and routes depend on them."""
        if self.running:
            self._filter(netmap, prefs)
            self.route(netmap, prefs)
            if self._host_filter is not None:
                self._host_filter.changed()

    def route(self, netmap: Netmap, prefs: Prefs) -> None:
        """Bring the host's addresses and routes up to date."""
        self._engine.set_own_addresses(netmap.self_node.ips)
        if self._router is None:
            self._routes.take_touched()
            return
        config = self._plan.config(
            netmap.self_node.addresses,
            self._attached(),
            exit_node=prefs.wants_exit_node,
            lan_access=prefs.exit_node_allow_lan_access,
            mtu=self._mtu,
        )
        self._tell_router(self._router.apply, config)

    def _reroute(self, netmap: Netmap, prefs: Prefs) -> None:
        """Bring up to date only the routes that peers gained or lost."""
        changes = self._plan.changes() if self._routes_stand and self._router is not None else None
        if changes is None or self._router is None:
            self.route(netmap, prefs)
        else:
            self._tell_router(self._router.change, changes)

    def _tell_router(self, act: Callable[[T], None], what: T) -> None:
        try:
            act(what)
        except MeshdError as error:
            self._routes_stand = False
            self._report("router", str(error))
            log.error("router_failed", extra=kv(reason=error.message))
        else:
            self._routes_stand = True
            self._report("router", None)


def _masquerade(node: Node, own_ips: Iterable[IPAddress]) -> tuple[tuple[IPAddress, IPAddress], ...]:
    """Our own addresses with those by which this peer knows us instead (RT-02)."""
    if node.masquerade_v4 is None and node.masquerade_v6 is None:
        return ()
    shown = tuple(ip for ip in (node.masquerade_v4, node.masquerade_v6) if ip is not None)
    own: dict[int, IPAddress] = {}
    for ip in own_ips:
        own.setdefault(ip.version, ip)
    return tuple((own[ip.version], ip) for ip in shown if ip.version in own)


def _basis(prefs: Prefs, private: NodePrivate) -> tuple[object, ...]:
    """What every peer's configuration depends on."""
    return (
        private,
        prefs.route_all,
        prefs.exit_node_id,
        prefs.exit_node_ip,
        prefs.exit_node_allow_lan_access,
        prefs.shields_up,
        prefs.advertise_routes,
    )


def _path_peer(node: Node) -> PathPeer:
    return PathPeer(
        node_key=node.key,
        disco_key=node.disco_key,
        home_relay=node.home_derp,
        endpoints=node.endpoints,
        wireguard_only=node.is_wireguard_only,
    )


def _exit_node_in(change: MapChange, prefs: Prefs) -> bool:
    """Whether something about the exit node changed that may concern where its resolver is."""
    wanted = prefs.exit_node_id
    if not wanted:
        return False
    nodes = (*change.added, *change.removed, *(node for _, node in (*change.changed, *change.patched)))
    return any(node.stable_id == wanted for node in nodes)


def _names_beyond(change: MapChange, netmap: Netmap) -> bool:
    """Whether nodes of other networks, whose names are not below our suffix, came, went or are called otherwise."""
    own = "." + normal(netmap.magic_dns_suffix)
    names = [node.name for node in (*change.added, *change.removed)]
    names += [node.name for pair in change.changed if pair[0].name != pair[1].name for node in pair]
    return any(name and not normal(name).endswith(own) for name in names)


def _holders_changed(change: MapChange, caps: frozenset[str]) -> bool:
    """Whether rules with these capabilities as sources stand for other addresses now."""
    if not caps:
        return False
    pairs = [(node, None) for node in change.added] + [(node, None) for node in change.removed]
    return any(
        (holds(one, cap) and one.addresses) != (other is not None and holds(other, cap) and other.addresses)
        for one, other in (*pairs, *change.changed)
        for cap in caps
    )
