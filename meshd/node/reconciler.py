"""Carries out what netmap and preferences ask for: tunnels, paths, filter, addresses, routes.

The wanted state is computed by pure functions of ``meshd.core``; this class knows what was applied last and
passes on the difference. A change of one peer costs the same whether there are ten peers or ten thousand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from meshd.base.addr import IPPrefix
from meshd.base.errors import MeshdError
from meshd.base.keys import NodePrivate, NodePublic
from meshd.base.log import get_logger, kv
from meshd.core.filterprogram import FilterProgram, plan_filter
from meshd.core.mapchange import MapChange
from meshd.core.netmap import Netmap
from meshd.core.node import Node
from meshd.core.prefs import Prefs
from meshd.core.routes import RouterConfig, RouteTable, accepted_prefixes, router_config
from meshd.node.engine import Engine
from meshd.node.enginepeer import PeerConfig
from meshd.node.magicsock import MagicSock, PathPeer

log = get_logger(__name__)

MAX_LOGGED_REFUSALS = 8


class HostRouter(Protocol):
    """What the host's router must offer; absent in userspace mode."""

    def apply(self, config: RouterConfig) -> None: ...


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
    ) -> None:
        self._engine = engine
        self._magicsock = magicsock
        self._router = router
        self._attached = attached
        self._mtu = mtu
        self._report = report
        self._routes = RouteTable()
        self._routed = -1
        self._present: dict[int, NodePublic] = {}
        self._basis: tuple[object, ...] = ()
        self._applied: RouterConfig | None = None
        self._filter_program: FilterProgram | None = None
        self.running = False

    def apply(self, netmap: Netmap, prefs: Prefs, private: NodePrivate, change: MapChange | None) -> None:
        """Apply a netmap. With ``change`` only what it names is looked at, unless something that concerns
        every peer is different from last time."""
        basis = _basis(prefs, private)
        everything = change is None or change.full or basis != self._basis or not self.running
        self._basis = basis
        if not self.running:
            self._engine.set_private_key(private)
            self._magicsock.set_private_key(private)
            self.running = True
        elif everything:
            self._engine.set_private_key(private)
            self._magicsock.set_private_key(private)
        if netmap.derp_map is not None and (everything or (change is not None and change.derp_changed)):
            self._magicsock.set_derp_map(netmap.derp_map)
        if everything or change is None:
            self._all_peers(netmap, prefs)
        else:
            for node in change.removed:
                self._drop(node.id)
            for node in change.added:
                self._put(node, prefs)
            for _, node in (*change.changed, *change.patched):
                self._put(node, prefs)
        if everything or change is None or change.filter_changed or change.self_changed or _may_alter_filter(change):
            self._filter(netmap, prefs)
        if everything or change is None or change.self_changed or self._routes.generation != self._routed:
            self.route(netmap, prefs)

    def stop(self) -> None:
        """No peers, no addresses, no routes, no relay connections."""
        for node_id in list(self._present):
            self._drop(node_id)
        self._routes.clear()
        self._filter_program = FilterProgram()
        self._engine.set_filter(self._filter_program.compile())
        self._engine.set_private_key(None)
        self._magicsock.set_private_key(None)
        self._basis = ()
        self.running = False
        self._set_router(RouterConfig(mtu=self._mtu))

    def _all_peers(self, netmap: Netmap, prefs: Prefs) -> None:
        for node_id in [i for i in self._present if i not in netmap.peers]:
            self._drop(node_id)
        for node in netmap.peers.values():
            self._put(node, prefs)

    def _put(self, node: Node, prefs: Prefs) -> None:
        known = self._present.get(node.id)
        reachable = node.disco_key is not None or node.home_derp or node.is_wireguard_only
        if node.expired or not reachable:
            self._drop(node.id)
            return
        if known is not None and known != node.key:
            self._drop(node.id)
        accepted = accepted_prefixes(
            node.addresses,
            node.allowed_ips,
            subnets=prefs.route_all,
            exit_node=bool(prefs.exit_node_id) and node.stable_id == prefs.exit_node_id,
        )
        self._present[node.id] = node.key
        self._routes.set_peer(node.key.raw, accepted)
        self._magicsock.update_peer(
            PathPeer(
                node_key=node.key,
                disco_key=node.disco_key,
                home_relay=node.home_derp,
                endpoints=node.endpoints,
            )
        )
        self._engine.update_peer(
            PeerConfig(node_key=node.key, allowed_ips=accepted, disco_key=node.disco_key, jailed=node.is_jailed)
        )

    def _drop(self, node_id: int) -> None:
        key = self._present.pop(node_id, None)
        if key is not None:
            self._routes.set_peer(key.raw, ())
            self._engine.remove_peer(key)
            self._magicsock.remove_peer(key)

    def _filter(self, netmap: Netmap, prefs: Prefs) -> None:
        program = plan_filter(
            netmap.filter_rules,
            [*netmap.self_node.addresses, *prefs.routes()],
            shields_up=prefs.shields_up,
            attached=self._attached(),
            cap_sources=lambda cap: _holders(netmap.peers.values(), cap),
        )
        if program != self._filter_program:
            self._filter_program = program
            for reason in program.refused[:MAX_LOGGED_REFUSALS]:
                log.warning("filter_rule_refused", extra=kv(reason=reason))
            self._engine.set_filter(program.compile(), shields_up=prefs.shields_up)

    def network_changed(self, netmap: Netmap, prefs: Prefs) -> None:
        """The host's own networks are others now: filter and routes depend on them."""
        if self.running:
            self._filter(netmap, prefs)
            self.route(netmap, prefs)

    def route(self, netmap: Netmap, prefs: Prefs) -> None:
        """Bring the host's addresses and routes up to date."""
        self._routed = self._routes.generation
        self._set_router(
            router_config(
                netmap.self_node.addresses,
                self._routes.routes(),
                self._attached(),
                exit_node=prefs.wants_exit_node,
                lan_access=prefs.exit_node_allow_lan_access,
                mtu=self._mtu,
            )
        )
        self._engine.set_own_addresses(netmap.self_node.ips)

    def _set_router(self, config: RouterConfig) -> None:
        if self._router is None or config == self._applied:
            return
        try:
            self._router.apply(config)
        except MeshdError as error:
            self._applied = None
            self._report("router", str(error))
            log.error("router_failed", extra=kv(reason=error.message))
        else:
            self._applied = config
            self._report("router", None)


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


def _may_alter_filter(change: MapChange) -> bool:
    """Rules with ``cap:`` sources depend on which nodes there are."""
    return bool(change.added or change.changed or change.removed)


def _holders(nodes: Iterable[Node], capability: str) -> list[IPPrefix]:
    return [prefix for node in nodes if node.has_cap(capability) for prefix in node.addresses]
