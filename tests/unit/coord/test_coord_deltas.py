"""Whatever happens, a node that applied every delta knows what a new stream would tell it."""

from __future__ import annotations

import asyncio
import unittest.mock

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from meshd.coord import distributor
from meshd.coord import network as change
from meshd.coord.distributor import Distributor
from meshd.coord.mapbuild import MapBuilder
from meshd.coord.mapstream import MapStream
from meshd.coord.network import Network
from meshd.coord.policysource import PolicySource
from meshd.coord.records import NodeRecord, UserRecord
from meshd.wire.control import DERPMap, Hostinfo, MapResponse, NetInfo, SSHPolicy, decode
from meshd.wire.mapframe import MapFrameReader

POLICY = """{
  "groups": {"group:a": ["alice"]},
  "tagOwners": {"tag:web": ["alice"]},
  "acls": [
    {"action": "accept", "src": ["group:a"], "dst": ["tag:web:80", "10.1.0.0/16:*", "autogroup:internet:*"]},
    {"action": "accept", "src": ["10.0.0.0/16"], "dst": ["bob:22"]},
    {"action": "accept", "src": ["bob"], "dst": ["100.64.0.2:*"]},
    {"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self:*"]},
    {"action": "accept", "proto": "tcp", "src": ["100.64.0.3"], "dst": ["bob:22"]},
  ],
  "ssh": [{"action": "accept", "src": ["bob"], "dst": ["autogroup:self", "tag:web"], "users": ["root"]}],
  "nodeAttrs": [
    {"target": ["bob"], "attr": ["suggest-exit-node"]},
    {"target": ["tag:web", "100.64.0.2"], "attr": ["magicdns-aaaa"]},
  ],
}"""
OTHER_POLICY = """{"acls": [{"action": "accept", "src": ["bob"], "dst": ["*:443"]}],
  "nodeAttrs": [{"target": ["bob"], "attr": ["magicdns-aaaa"]}, {"target": ["10.0.0.0/8"], "attr": ["x"]}]}"""


# What a node has told the server itself is not told back to it.
OWN_FIELDS = (
    *("id", "name", "user", "key", "key_expiry", "addresses", "allowed_ips", "primary_routes", "tags", "expired"),
    *("machine_authorized", "cap_map"),
)


class Outlet:
    def __init__(self):
        self.data = b""
        self.unsent = 0
        self.closed = False

    def write(self, data):
        self.data += data

    def end(self):
        self.closed = True

    def reset(self):
        self.closed = True


class World:
    """A network, its streams, and what every streaming node has understood so far."""

    def __init__(self):
        self.network = Network()
        self.network.load([UserRecord(1, "alice", 0.0), UserRecord(2, "bob", 0.0)], [], 0)
        self.policy = PolicySource()
        self.builder = MapBuilder(self.network, "mesh.internal", DERPMap(regions={}))
        self.changes = {}
        self.network.on_change = self.changed
        self.now = 1000.0
        self.streams = {}
        self.access_stale = False
        self.access = self.policy.access(self.network)

    def wall(self):
        return self.now

    def monotonic(self):
        return self.now

    def refresh(self, *, force=False):
        stale, self.access_stale = self.access_stale, False
        if force or (stale and not self.access.everyone):
            self.access = self.policy.access(self.network)
            for stream, _ in self.streams.values():
                stream.access_changed()

    def changed(self, node_id, flags):
        self.builder.forget(node_id)
        self.changes[node_id] = self.changes.get(node_id, 0) | flags
        self.access_stale |= bool(flags & change.ACCESS)

    def flush(self, *, force=False):
        self.refresh(force=force)
        changes, self.changes = self.changes, {}
        cache = {}
        for stream, client in list(self.streams.values()):
            stream.offer(changes, cache)
            client.read()

    def open(self, node):
        self.refresh()
        outlet = Outlet()
        stream = MapStream(self, node, outlet, zstd=False)
        stream.send_full()
        client = Client(outlet)
        client.read()
        self.streams[node.id] = (stream, client)

    def fresh(self, node):
        return Client.of(decode(MapResponse, MapStream(self, node, Outlet(), zstd=False).full()))


class Client:
    """Applies messages as the protocol says."""

    def __init__(self, outlet):
        self.outlet = outlet
        self.frames = MapFrameReader(False)
        self.node = None
        self.peers = {}
        self.filters = {}

    @classmethod
    def of(cls, message):
        client = cls(Outlet())
        client.apply(message)
        return client

    def read(self):
        data, self.outlet.data = self.outlet.data, b""
        for message in self.frames.feed(data):
            self.apply(decode(MapResponse, message))

    def apply(self, message):
        if message.node is not None:
            self.node = message.node
        if message.peers:
            self.peers = {peer.id: peer for peer in message.peers}
        for node_id in message.peers_removed:
            self.peers.pop(node_id, None)
        for peer in message.peers_changed:
            self.peers[peer.id] = peer
        for patch in message.peers_changed_patch:
            peer = self.peers.get(patch.node_id)
            if peer is None:
                continue
            fields = {}
            if patch.derp_region:
                fields |= {"home_derp": patch.derp_region, "derp": f"127.3.3.40:{patch.derp_region}"}
            for name in ("endpoints", "disco_key", "online", "last_seen", "key_expiry"):
                if getattr(patch, name) is not None:
                    fields[name] = getattr(patch, name)
            if patch.online:
                fields["last_seen"] = None
            self.peers[patch.node_id] = msgspec.structs.replace(peer, **fields)
        if message.ssh_policy is not None:
            self.filters["ssh"] = message.ssh_policy
        for name, rules in message.packet_filters.items():
            self.filters[name] = rules

    def state(self):
        return self.peers, self.filters


OPERATIONS = (
    *("add", "add", "add", "open", "open", "endpoints", "region", "online", "disco", "rename", "tag", "expire"),
    *("unexpire", "routes", "remove", "policy", "other_policy", "no_policy", "stall", "resume", "flush", "flush"),
)
STEP = st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 5), st.integers(1, 9))


def _step(world, operation, which, value):
    network = world.network
    if operation == "add":
        node_id = network.next_id()
        name = f"n{node_id}"
        network.names.add(name)
        v4, v6 = network.addresses.allocate()
        network.add(
            NodeRecord(
                node_id,
                f"mkey:{node_id:064x}",
                f"nodekey:{node_id:064x}",
                1 + value % 2,
                name,
                v4,
                v6,
                1.0,
                version=113,
            )
        )
        return
    if operation == "flush":
        world.flush()
        return
    if operation in ("policy", "other_policy", "no_policy"):
        world.policy.set({"policy": POLICY, "other_policy": OTHER_POLICY, "no_policy": None}[operation])
        world.flush(force=True)
        return
    if not network.nodes:
        return
    node = list(network.nodes.values())[which % len(network.nodes)]
    match operation:
        case "open":
            world.open(node)
        case "stall" if node.id in world.streams:
            world.streams[node.id][0].outlet.unsent = 1
        case "resume" if node.id in world.streams:
            stream, client = world.streams[node.id]
            stream.outlet.unsent = 0
            world.refresh()
            stream.catch_up()
            client.read()
        case "endpoints":
            node.endpoints = tuple(f"192.0.2.{i}:{value}" for i in range(value % 3))
            world.changed(node.id, change.ENDPOINTS)
        case "region":
            node.hostinfo = msgspec.structs.replace(node.hostinfo, net_info=NetInfo(preferred_derp=value % 3))
            world.changed(node.id, change.HOME_REGION)
        case "online":
            node.online = not node.online
            node.last_seen = world.now
            world.changed(node.id, change.ONLINE)
            network.refresh_routes(node)
        case "disco":
            node.disco_key = f"discokey:{value:064x}"
            world.changed(node.id, change.DISCO)
        case "rename":
            network.rename(node, f"r{node.id}-{value}")
        case "tag":
            node.tags = ("tag:web",) if value % 2 else ()
            world.changed(node.id, change.WHOLE | change.SELF | change.ACCESS)
        case "expire" | "unexpire":
            node.expiry = world.now - 1 if operation == "expire" else None
            world.changed(node.id, change.WHOLE | change.SELF)
        case "routes":
            routes = tuple(f"10.{i}.0.0/16" for i in range(value % 3)) + ("0.0.0.0/0",) * (value % 2)
            node.hostinfo = Hostinfo(routable_ips=routes, net_info=node.hostinfo.net_info)
            node.approved_routes = routes
            world.changed(node.id, change.WHOLE | change.SELF | change.ACCESS)
            network.refresh_routes(node)
        case "remove":
            world.streams.pop(node.id, None)
            network.remove(node)


@settings(max_examples=60)
@given(st.lists(STEP, max_size=40))
@example([("add", 0, 1), ("add", 0, 1), ("open", 0, 1), ("other_policy", 0, 1)])
@example(
    [
        ("add", 0, 1),
        ("add", 0, 2),
        ("open", 0, 1),
        ("flush", 0, 1),
        ("expire", 0, 1),
        ("flush", 0, 1),
        ("unexpire", 0, 1),
    ]
)
def test_deltas_applied_in_order_equal_the_full_map(steps):
    world = World()
    for operation, which, value in steps:
        world.now += 1
        _step(world, operation, which, value)
    for stream, _ in world.streams.values():
        stream.outlet.unsent = 0
    world.flush()
    world.flush()
    for node_id, (_, client) in world.streams.items():
        fresh = world.fresh(world.network.nodes[node_id])
        assert client.peers == fresh.peers
        assert client.filters == fresh.filters
        for name in OWN_FIELDS:
            assert getattr(client.node, name) == getattr(fresh.node, name), name


class SlicedWorld(World):
    """Told by a real distributor, which is in the middle of a round when the next thing happens."""

    def __init__(self):
        super().__init__()
        self.distributor = Distributor(self.network, self.builder, self.policy)

    @property
    def access(self):
        return self.distributor.access

    @access.setter
    def access(self, _):
        """That of the distributor counts."""

    def refresh(self, *, force=False):
        if force:
            self.distributor.policy_changed()

    def changed(self, node_id, flags):
        self.distributor.changed(node_id, flags)

    def flush(self, *, force=False):
        self.refresh(force=force)
        self.distributor.flush()

    def open(self, node):
        outlet = Outlet()
        stream = MapStream(self.distributor, node, outlet, zstd=False)
        self.streams[node.id] = (stream, Client(outlet))
        self.distributor.attach(stream)

    async def rest(self):
        """Until everything is told."""
        while self.distributor._round is not None or self.distributor._scheduled is not None:
            if self.distributor._round is None:
                self.distributor.flush()
            await asyncio.sleep(0)


@settings(max_examples=60)
@given(st.lists(st.tuples(STEP, st.integers(0, 3)), max_size=40))
def test_deltas_told_in_slices_end_where_the_full_map_is(steps):
    async def run():
        world = SlicedWorld()
        for (operation, which, value), turns in steps:
            if operation == "remove" and world.network.nodes:
                node_id = list(world.network.nodes)[which % len(world.network.nodes)]
                if node_id in world.streams:
                    world.distributor.detach(world.streams[node_id][0])
            _step(world, operation, which, value)
            for _ in range(turns):
                await asyncio.sleep(0)
        for stream, _ in world.streams.values():
            stream.outlet.unsent = 0
        await world.rest()
        world.distributor.flush()
        await world.rest()
        for node_id, (_, client) in world.streams.items():
            client.read()
            fresh = Client.of(
                decode(
                    MapResponse, MapStream(world.distributor, world.network.nodes[node_id], Outlet(), zstd=False).full()
                )
            )
            assert client.peers == fresh.peers
            assert client.filters == fresh.filters
        world.distributor.close()

    with unittest.mock.patch.multiple(distributor, SLICE_S=0.0, MIN_WINDOW_S=0.0, MAX_WINDOW_S=0.0):
        asyncio.run(run())


def test_distributor_round_of_many_streams_leaves_the_others_their_turn(monkeypatch):
    """With a policy and 1500 nodes, one more or less kept the server busy for half a second at a time."""
    monkeypatch.setattr(distributor, "SLICE_S", 0.0)

    async def run():
        world = SlicedWorld()
        for _ in range(20):
            _step(world, "add", 0, 1)
        for which in range(20):
            _step(world, "open", which, 1)
        await world.rest()
        _step(world, "endpoints", 0, 2)
        told, turns = [], 0
        offer = MapStream.offer
        monkeypatch.setattr(MapStream, "offer", lambda self, *given: told.append(self.node.id) or offer(self, *given))
        world.distributor.flush()
        while world.distributor._round is not None:
            turns += 1
            assert len(told) == turns
            if turns == 3:
                _step(world, "endpoints", 1, 2)
                assert world.distributor._scheduled is None, "one round after the other"
            await asyncio.sleep(0)
        assert told == list(range(1, 21))
        assert world.distributor._scheduled is not None
        world.distributor.close()

    asyncio.run(run())


def test_peers_are_looked_up_again_only_when_they_can_be_others(monkeypatch):
    """With a policy and a thousand nodes, a new endpoint of one kept the server busy for a tenth of a second."""
    world = World()
    world.policy.set(POLICY)
    world.refresh(force=True)
    for value in (2, 2, 2):
        _step(world, "add", 0, value)
    for which in range(3):
        _step(world, "open", which, 1)
    world.flush()
    asked = []
    visible = type(world.access).visible
    monkeypatch.setattr(
        type(world.access), "visible", lambda self, node_id: asked.append(node_id) or visible(self, node_id)
    )
    _step(world, "endpoints", 0, 2)
    world.flush()
    assert not asked
    assert world.streams[2][1].peers[1].endpoints
    _step(world, "tag", 0, 1)
    world.flush()
    assert asked == [1, 2, 3]


def test_map_builder_encodes_who_may_log_in_once_for_all_nodes_alike():
    builder, policy = World().builder, SSHPolicy(rules=())
    encoded = builder.ssh(policy)
    assert builder.ssh(policy) is encoded
    builder.access_changed()
    assert builder.ssh(policy) is not encoded, "nothing is kept of a policy of before"
    assert builder.ssh(policy) == builder.ssh(None) == encoded
