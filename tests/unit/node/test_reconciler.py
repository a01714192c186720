"""What a netmap change makes of tunnels, paths, filter and routes."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Any

import msgspec
import pytest

from meshd._fast.filter import ACCEPT, DROP_NOT_LOCAL, Filter, FlowTable
from meshd._fast.ipprefix import parse_address
from meshd.base.addr import AddrPort, IPPrefix
from meshd.base.errors import MeshdError
from meshd.base.keys import DiscoPrivate, NodePrivate, NodePublic
from meshd.core.mapchange import MapChange
from meshd.core.netmap import Netmap
from meshd.core.node import Node
from meshd.core.prefs import Prefs
from meshd.core.routeplan import RouteChange
from meshd.core.routes import RouterConfig
from meshd.node import reconciler
from meshd.node.reconciler import Reconciler
from meshd.wire.control import FilterRule, NetPortRange, PortRange
from tests.unit.fast.packets import ip, tcp

PRIVATE = NodePrivate.generate()
PREFS = Prefs(want_running=True)


class EngineDouble:
    def __init__(self) -> None:
        self.peers: dict[NodePublic, Any] = {}
        self.filters = 0
        self.private: NodePrivate | None = None
        self.met: list[NodePublic] = []
        self.greeted: list[tuple[NodePublic, NodePrivate | None]] = []
        self.via: list[tuple[list[str], list[str]]] = []

    def connected_peers(self) -> list[NodePublic]:
        return self.met

    def greet(self, key: NodePublic) -> None:
        self.greeted.append((key, self.private))

    def set_private_key(self, private: NodePrivate | None) -> None:
        self.private = private
        self.own_key = private.public() if private is not None else None

    def set_via(self, routes: Any, own: Any) -> None:
        self.via.append(([str(route) for route in routes], [str(address) for address in own]))

    def set_own_addresses(self, addresses: Any) -> None:
        self.addresses = tuple(addresses)

    def set_filter(self, rules: Any, local: Any, *, shields_up: bool = False) -> None:
        self.filters += 1
        self.shields_up = shields_up
        self.filter = Filter(rules, local)

    def update_peer(self, config: Any) -> None:
        if config.node_key == self.own_key:
            raise ValueError("a node cannot be its own peer")
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
    def __init__(
        self, attached: list[IPPrefix] | None = None, *, sliced: bool = False, own: tuple[str, ...] = ()
    ) -> None:
        self.later: list[Callable[[], None]] = []
        self.engine, self.paths, self.router = EngineDouble(), PathsDouble(), RouterDouble()
        self.problems: dict[str, str | None] = {}
        self.told: list[str] = []
        self.reconciler = Reconciler(
            self.engine,  # type: ignore[arg-type]
            self.paths,  # type: ignore[arg-type]
            self.router,
            lambda: attached or [],
            1280,
            self.problems.__setitem__,
            self.later.append if sliced else None,
            host_addresses=lambda: [ip_address(text) for text in own],
            dns=lambda *_: self.told.append("dns"),
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
    """NM-01, RT-01, RT-02."""
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


def test_reconciler_peer_that_restarted_loses_its_path_before_it_is_greeted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handshake on the path of its former life is sent once only, to a peer that may not know us yet."""
    world = World()
    old = node(2)
    world.put(old)
    world.apply()
    new = msgspec.structs.replace(old, disco_key=DiscoPrivate.generate().public())
    world.put(new)
    seen: list[Any] = []
    update = world.engine.update_peer

    def greet(config: Any) -> None:
        seen.append(world.paths.peers[new.key].disco_key)
        update(config)

    monkeypatch.setattr(world.engine, "update_peer", greet)
    world.apply(MapChange(patched=[(old, new)]))
    assert seen == [new.disco_key]


def test_reconciler_names_of_other_networks_are_told_to_dns() -> None:
    """DN-11: a resolver that splits is told each of them by name. Our own are below one suffix."""
    world = World()
    world.apply()
    world.told.clear()
    for number, (name, before) in enumerate((("a.example.", "b.example."), ("a.other.net.", "b.other.net.")), 2):
        peer, named = node(number, name=name), node(number, name=before)
        for change in (MapChange(added=[peer]), MapChange(changed=[(named, peer)]), MapChange(removed=[peer])):
            world.netmap.peers = {} if change.removed else {number: peer}
            world.apply(change)
        assert world.told == ["dns"] * (3 if "other" in name else 0)
    other = node(3, name="a.other.net.")
    world.apply(MapChange(changed=[(other, other)]))
    assert len(world.told) == 3


def test_reconciler_peer_with_our_own_key_is_left_out_whatever_the_map_calls_us() -> None:
    """A server that is wrong about our key must not keep filter and routes from being applied."""
    world = World()
    world.netmap.self_node = node(1)
    world.put(node(2, key=PRIVATE))
    world.put(node(3))
    world.apply()
    assert [config.allowed_ips for config in world.engine.peers.values()] == [(ip_network("100.64.0.3/32"),)]
    assert world.engine.filters == 1
    changed = node(3, key=PRIVATE)
    world.apply(MapChange(changed=[(world.netmap.peers[3], changed)]))
    assert world.engine.peers == {}
    assert world.routes == {ip_network("100.100.100.100/32")}


def test_reconciler_after_a_failure_the_next_change_brings_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without a free descriptor, for one: what came after the failure would be missing for ever."""
    world = World()
    world.apply()
    first, second = node(2), node(3)
    world.netmap.filter_rules = (FilterRule(src_ips=("*",), dst_ports=(NetPortRange(ip="*"),)),)
    world.put(first)

    def fails(*_: Any, **__: Any) -> None:
        raise OSError(24, "too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(world.engine, "set_filter", fails)
        with pytest.raises(OSError, match="too many"):
            world.apply(MapChange(added=[first], filter_changed=True))
    assert world.engine.filters == 1
    world.put(second)
    world.apply(MapChange(added=[second]))
    assert world.engine.peers.keys() == {first.key, second.key}
    assert world.engine.filters == 2
    assert {ip_network("100.64.0.2/32"), ip_network("100.64.0.3/32")} <= world.routes


def test_reconciler_shields_without_any_rule_are_told_too() -> None:
    """PF-06: flows from before end, and who is refused hears the reason."""
    world = World()
    world.apply()
    for up in (True, False):
        world.apply(prefs=msgspec.structs.replace(PREFS, shields_up=up))
        assert world.engine.shields_up is up


def test_reconciler_endpoint_patch_touches_neither_routes_nor_filter() -> None:
    """PF-01."""
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


def test_reconciler_paths_are_told_of_a_peer_that_is_wireguard_only() -> None:
    world = World()
    exit_node = node(2, disco_key=None, home_derp=0, is_wireguard_only=True, endpoints=(AddrPort.parse("192.0.2.1:5"),))
    other = node(3)
    world.put(exit_node)
    world.put(other)
    world.apply()
    assert world.paths.peers[exit_node.key].wireguard_only
    assert world.paths.peers[exit_node.key].endpoints == exit_node.endpoints
    assert not world.paths.peers[other.key].wireguard_only


def test_reconciler_peer_that_knows_us_by_another_address_is_shown_that() -> None:
    """RT-02: for families in which we have an address."""
    world = World()
    key = NodePrivate.generate()
    peer = node(2, key=key, masquerade_v4=ip_address("100.99.0.9"), masquerade_v6=ip_address("fd7a:115c:a1e0::99"))
    world.put(peer)
    world.apply()
    own = ip_address("100.64.0.1")
    assert world.engine.peers[peer.key].masquerade == ((own, ip_address("100.99.0.9")),)
    world.put(node(2, key=key))
    world.apply()
    assert world.engine.peers[peer.key].masquerade == ()


def test_reconciler_via_routes_are_translated_for_peers_with_their_ipv4_addresses() -> None:
    """RT-08: of the routes that the preferences name; else peers cost nothing more."""
    world = World()
    peer = node(2)
    world.put(peer)
    world.apply()
    assert world.engine.via == []
    assert world.engine.peers[peer.key].ipv4 is None
    route = "fd7a:115c:a1e0:b1a:0:7:a01:200/120"
    offering = msgspec.structs.replace(PREFS, advertise_routes=("10.0.0.0/8", route, "2001:db8::/32"))
    world.apply(MapChange(), offering)
    own = [str(ip) for ip in world.netmap.self_node.ips]
    assert world.engine.via == [([route], own)]
    assert world.engine.peers[peer.key].ipv4 == peer.ips[0]
    assert world.engine.filter.check_in(via_syn(peer), FlowTable()) != DROP_NOT_LOCAL
    world.apply(MapChange(self_changed=True), offering)
    assert len(world.engine.via) == 1
    world.apply(MapChange())
    assert world.engine.via[1:] == [([], own)]
    assert world.engine.peers[peer.key].ipv4 is None
    world.apply(MapChange(), offering)
    world.reconciler.stop()
    assert world.engine.via[3:] == [([], [])]


def via_syn(peer: Node) -> bytes:
    source = next((ip.packed for ip in peer.ips if ip.version == 6), bytes(15) + b"\1")
    return ip(6, tcp(1, 80), source, ip_address("fd7a:115c:a1e0:b1a:0:7:a01:203").packed)


def test_reconciler_rotated_key_replaces_the_peer() -> None:
    world = World()
    old, new = node(2), node(2)
    world.put(old)
    world.apply()
    world.put(new)
    world.apply(MapChange(changed=[(old, new)]))
    assert set(world.engine.peers) == set(world.paths.peers) == {new.key}


def test_reconciler_peers_that_swap_their_keys_both_stay() -> None:
    world = World()
    one, two = node(2), node(3)
    for peer in (one, two):
        world.put(peer)
    world.apply()
    swapped = msgspec.structs.replace(one, key=two.key), msgspec.structs.replace(two, key=one.key)
    for peer in swapped:
        world.put(peer)
    world.apply(MapChange(changed=[(one, swapped[0]), (two, swapped[1])]))
    assert {key: config.allowed_ips for key, config in world.engine.peers.items()} == {
        two.key: one.addresses,
        one.key: two.addresses,
    }
    assert set(world.paths.peers) == {one.key, two.key}
    world.apply(MapChange(removed=[swapped[0]]))
    assert set(world.engine.peers) == set(world.paths.peers) == {one.key}


def test_reconciler_own_new_key_is_shown_at_once_to_peers_we_talk_with() -> None:
    """LK-03, LK-10: a peer that heard of it first has tried in vain, and would wait seconds for its next try."""
    world = World()
    met, other = node(2), node(3)
    world.put(met)
    world.put(other)
    world.apply()
    world.engine.met = [met.key]
    world.apply(MapChange(full=True))
    assert world.engine.greeted == []
    renewed = NodePrivate.generate()
    world.reconciler.apply(world.netmap, PREFS, renewed, MapChange(self_changed=True))
    assert world.engine.greeted == [(met.key, renewed)]
    assert set(world.engine.peers) == {met.key, other.key}


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
    """SM-15, SM-04."""
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
    world.put(holder)
    world.apply(MapChange(changed=[(without, holder)]))
    unsigned = node(3, cap_map={"backup": None}, unsigned_peer_api_only=True)
    world.put(unsigned)
    world.apply(MapChange(changed=[(holder, unsigned)]))
    assert world.engine.filters == filters + 4
    assert world.engine.filter.shape()["source_classes"] == 0


def test_reconciler_exit_node_can_be_reached_by_its_public_address_but_not_its_neighbours() -> None:
    """PF-04: who goes out through a server may well use what the server itself offers to everybody."""
    world = World([ip_network("203.0.113.0/24"), ip_network("192.168.1.0/24")], own=("203.0.113.5", "192.168.1.5"))
    world.netmap.filter_rules = (
        FilterRule(src_ips=("*",), dst_ports=(NetPortRange(ip="*", ports=PortRange(first=0, last=65535)),)),
    )

    def takes(address: str) -> bool:
        packet = ip(6, tcp(1, 443), parse_address("100.64.0.2"), parse_address(address))
        return bool(world.engine.filter.check_in(packet, FlowTable()) == ACCEPT)

    world.apply()
    assert not takes("203.0.113.5")
    world.apply(prefs=Prefs(want_running=True, advertise_routes=("0.0.0.0/0", "::/0")))
    assert [takes(a) for a in ("203.0.113.5", "203.0.113.6", "192.168.1.5", "198.51.100.1")] == [
        True,
        False,
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("asked", "merged"), [((), False), (("one-cgnat?v=true",), True), (("one-cgnat?v=false",), False)]
)
def test_reconciler_one_route_for_the_range_is_controls_wish(asked: tuple[str, ...], merged: bool) -> None:
    """NM-01, RT-04."""
    world = World()
    world.put(node(2))
    world.put(node(3))
    world.apply()
    assert ip_network("100.64.0.3/32") in world.routes
    world.netmap.self_node = node(1, key=PRIVATE, cap_map=dict.fromkeys(asked, ()))
    world.apply(MapChange(self_changed=True))
    assert (ip_network("100.64.0.0/10") in world.routes) is merged
    assert (ip_network("100.64.0.3/32") in world.routes) is not merged


def test_reconciler_host_filter_follows_preferences_and_stop() -> None:
    """RT-01, RT-05."""
    told: list[Any] = []

    class HostFilterDouble:
        def apply(self, self_node: Node, prefs: Prefs) -> None:
            told.append(prefs.netfilter_mode)

        def stop(self) -> None:
            told.append("stop")

        def changed(self) -> None:
            told.append("changed")

    world = World()
    world.reconciler._host_filter = HostFilterDouble()
    world.apply()
    world.apply(MapChange(patched=[]), PREFS)
    world.apply(prefs=Prefs(want_running=True, netfilter_mode=0))
    world.reconciler.network_changed(world.netmap, PREFS)
    world.reconciler.stop()
    assert told == [2, 0, "changed", "stop"]


def test_reconciler_change_of_many_peers_is_applied_in_slices_as_a_full_map_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """RT-01: ten thousand renewed keys in one message held up everything else for half a second. Whoever is removed is
    gone at once."""
    monkeypatch.setattr(reconciler, "SLICE", 3)
    world = World(sliced=True)
    for number in (2, 3, 4):
        world.put(node(number))
    world.apply()
    assert not world.later
    gone, changed = world.netmap.peers.pop(2), [(world.netmap.peers[n], node(n)) for n in (3, 4)]
    added = [node(number) for number in range(5, 11)]
    for peer in (*added, *(new for _, new in changed)):
        world.put(peer)
    world.apply(MapChange(added=added, changed=changed, removed=[gone]))
    assert set(world.engine.peers) == {*(old.key for old, _ in changed), *(peer.key for peer in added[:3])}
    again = node(8)
    world.put(again)
    world.apply(MapChange(changed=[(added[3], again)]))
    assert again.key in world.engine.peers, "a small change does not wait for its turn"
    turns = 0
    while world.later:
        world.later.pop(0)()
        turns += 1
    assert turns == 2
    assert set(world.engine.peers) == set(world.paths.peers) == {peer.key for peer in world.netmap.peers.values()}
    assert world.routes >= {peer.addresses[0] for peer in world.netmap.peers.values()}
    assert gone.addresses[0] not in world.routes
