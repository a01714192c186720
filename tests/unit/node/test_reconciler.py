"""What a netmap change makes of tunnels, paths, filter and routes."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

from meshd.base.addr import AddrPort, IPPrefix
from meshd.base.errors import MeshdError
from meshd.base.keys import DiscoPrivate, NodePrivate, NodePublic
from meshd.core.mapchange import MapChange
from meshd.core.netmap import Netmap
from meshd.core.node import Node
from meshd.core.prefs import Prefs
from meshd.core.routeplan import RouteChange
from meshd.core.routes import RouterConfig
from meshd.node.reconciler import Reconciler
from meshd.wire.control import FilterRule, NetPortRange, PortRange

PRIVATE = NodePrivate.generate()
PREFS = Prefs(want_running=True)


class EngineDouble:
    def __init__(self) -> None:
        self.peers: dict[NodePublic, Any] = {}
        self.filters = 0
        self.private: NodePrivate | None = None

    def set_private_key(self, private: NodePrivate | None) -> None:
        self.private = private

    def set_own_addresses(self, addresses: Any) -> None:
        self.addresses = tuple(addresses)

    def set_filter(self, program: Any, *, shields_up: bool = False) -> None:
        self.filters += 1

    def update_peer(self, config: Any) -> None:
        self.peers[config.node_key] = config

    def remove_peer(self, key: NodePublic) -> None:
        self.peers.pop(key, None)


class PathsDouble(EngineDouble):
    def set_derp_map(self, derp_map: Any) -> None:
        self.derp_map = derp_map

    def update_peer(self, peer: Any) -> None:
        self.peers[peer.node_key] = peer


class RouterDouble:
    def __init__(self) -> None:
        self.configs: list[RouterConfig] = []
        self.changes: list[RouteChange] = []
        self.routes: set[IPPrefix] = set()
        self.throws: set[IPPrefix] = set()
        self.error: MeshdError | None = None

    def apply(self, config: RouterConfig) -> None:
        if self.error is not None:
            raise self.error
        self.configs.append(config)
        self.routes, self.throws = set(config.routes), set(config.throws)

    def change(self, change: RouteChange) -> None:
        if self.error is not None:
            raise self.error
        self.changes.append(change)
        self.routes = self.routes.difference(change.gone, change.throws) | set(change.routes)
        self.throws = self.throws.difference(change.gone, change.routes) | set(change.throws)


class World:
    def __init__(self, attached: list[IPPrefix] | None = None, *, sliced: bool = False) -> None:
        self.later: list[Callable[[], None]] = []
        self.engine, self.paths, self.router = EngineDouble(), PathsDouble(), RouterDouble()
        self.problems: dict[str, str | None] = {}
        self.reconciler = Reconciler(
            self.engine,  # type: ignore[arg-type]
            self.paths,  # type: ignore[arg-type]
            self.router,
            lambda: attached or [],
            1280,
            self.problems.__setitem__,
            self.later.append if sliced else None,
        )
        self.netmap = Netmap(node(1, key=PRIVATE))

    def apply(self, change: MapChange | None = None, prefs: Prefs = PREFS) -> None:
        self.reconciler.apply(self.netmap, prefs, PRIVATE, change)

    def put(self, peer: Node) -> None:
        self.netmap.peers[peer.id] = peer

    @property
    def routes(self) -> set[IPPrefix]:
        return self.router.routes


def node(number: int, *, key: NodePrivate | None = None, **changes: Any) -> Node:
    address = ip_network(f"100.64.0.{number}/32")
    fields: dict[str, Any] = {
        "id": number,
        "stable_id": str(number),
        "name": f"n{number}.example.",
        "user": 1,
        "key": (key or NodePrivate.generate()).public(),
        "addresses": (address,),
        "allowed_ips": (address,),
        "disco_key": DiscoPrivate.generate().public(),
        "home_derp": 1,
    } | changes
    return Node(**fields)


def test_reconciler_full_map_sets_peers_filter_and_routes() -> None:
    """RT-01, RT-02."""
    world = World()
    world.put(node(2))
    world.apply()
    assert len(world.engine.peers) == len(world.paths.peers) == 1
    assert ip_network("100.64.0.2/32") in world.routes
    assert world.router.configs[-1].addresses == (ip_network("100.64.0.1/32"),)
    assert world.engine.filters == 1
    assert world.engine.private == PRIVATE


def test_reconciler_peer_that_becomes_reachable_by_a_patch_gets_its_route() -> None:
    """A peer is often announced before its disco key and relay are; the route must come with those."""
    world = World()
    world.apply()
    bare = node(2, disco_key=None, home_derp=0)
    world.put(bare)
    world.apply(MapChange(added=[bare]))
    assert world.engine.peers == {}
    assert ip_network("100.64.0.2/32") not in world.routes
    ready = node(2, disco_key=DiscoPrivate.generate().public(), home_derp=1)
    world.put(ready)
    world.apply(MapChange(patched=[(bare, ready)]))
    assert ready.key in world.engine.peers
    assert ip_network("100.64.0.2/32") in world.routes


def test_reconciler_endpoint_patch_touches_neither_routes_nor_filter() -> None:
    world = World()
    peer = node(2)
    world.put(peer)
    world.apply()
    configs, filters = len(world.router.configs) + len(world.router.changes), world.engine.filters
    moved = node(2, endpoints=(AddrPort.parse("192.0.2.1:5"),))
    moved = type(peer)(**{f: getattr(peer, f) for f in peer.__struct_fields__} | {"endpoints": moved.endpoints})
    world.put(moved)
    world.apply(MapChange(patched=[(peer, moved)]))
    assert (len(world.router.configs) + len(world.router.changes), world.engine.filters) == (configs, filters)
    assert world.paths.peers[peer.key].endpoints == moved.endpoints


def test_reconciler_rotated_key_replaces_the_peer() -> None:
    world = World()
    old, new = node(2), node(2)
    world.put(old)
    world.apply()
    world.put(new)
    world.apply(MapChange(changed=[(old, new)]))
    assert set(world.engine.peers) == set(world.paths.peers) == {new.key}


def test_reconciler_expired_peer_is_left_out() -> None:
    """LK-12, RT-02."""
    world = World()
    world.put(node(2, expired=True))
    world.apply()
    assert world.engine.peers == {}


def test_reconciler_removed_peer_leaves_nothing() -> None:
    world = World()
    peer = node(2)
    world.put(peer)
    world.apply()
    del world.netmap.peers[2]
    world.apply(MapChange(removed=[peer]))
    assert world.engine.peers == world.paths.peers == {}
    assert ip_network("100.64.0.2/32") not in world.routes


def test_reconciler_accept_routes_off_leaves_subnets_out() -> None:
    """RT-02."""
    world = World()
    subnet = ip_network("10.0.0.0/8")
    peer = node(2)
    peer = type(peer)(
        **{f: getattr(peer, f) for f in peer.__struct_fields__} | {"allowed_ips": (*peer.addresses, subnet)}
    )
    world.put(peer)
    world.apply(prefs=Prefs(want_running=True, route_all=False))
    assert world.engine.peers[peer.key].allowed_ips == peer.addresses
    world.apply(MapChange(), prefs=Prefs(want_running=True, route_all=True))
    assert subnet in world.engine.peers[peer.key].allowed_ips
    assert subnet in world.routes


def test_reconciler_stop_leaves_nothing() -> None:
    """SM-04."""
    world = World()
    world.put(node(2))
    world.apply()
    world.reconciler.stop()
    assert world.engine.peers == world.paths.peers == {}
    assert world.engine.private is None
    assert world.router.configs[-1] == RouterConfig(mtu=1280)


def test_reconciler_router_failure_is_told_and_tried_again() -> None:
    world = World()
    world.router.error = MeshdError("no permission")
    world.apply()
    assert world.problems["router"] == "no permission"
    world.router.error = None
    world.apply(MapChange(self_changed=True))
    assert world.problems["router"] is None
    assert world.router.configs


def test_reconciler_failed_route_change_leads_to_a_full_one() -> None:
    world = World()
    world.apply()
    first, second = node(2), node(3)
    world.put(first)
    world.router.error = MeshdError("no permission")
    world.apply(MapChange(added=[first]))
    assert world.problems["router"] == "no permission"
    world.router.error = None
    world.put(second)
    world.apply(MapChange(added=[second]))
    assert world.problems["router"] is None
    assert {*first.addresses, *second.addresses} <= world.routes


def test_reconciler_rules_with_capabilities_follow_their_holders() -> None:
    """PF-10; nodes that hold none of the capabilities in use do not touch the filter."""
    world = World()
    world.netmap.filter_rules = (
        FilterRule(src_ips=("cap:backup",), dst_ports=(NetPortRange(ip="*", ports=PortRange(first=1, last=9)),)),
    )
    world.apply()
    filters = world.engine.filters
    plain = node(2)
    world.put(plain)
    world.apply(MapChange(added=[plain]))
    assert world.engine.filters == filters
    holder = node(3, cap_map={"backup": None})
    world.put(holder)
    world.apply(MapChange(added=[holder]))
    assert world.engine.filters == filters + 1
    without = node(3)
    world.put(without)
    world.apply(MapChange(changed=[(holder, without)]))
    assert world.engine.filters == filters + 2
