"""A small network for tests of policies."""

from __future__ import annotations

from meshd.coord.network import Network
from meshd.coord.records import NodeRecord, UserRecord
from meshd.wire.control import Hostinfo


def policy_network() -> Network:
    """Two users, two machines of alice, one with a tag, one of bob and a router of his."""
    network = Network()
    network.load([UserRecord(1, "alice", 0.0), UserRecord(2, "bob", 0.0)], [], 0)
    wanted = [(1, "laptop", ()), (1, "web", ("tag:web",)), (2, "bobs", ()), (2, "router", ()), (1, "phone", ())]
    for user_id, name, tags in wanted:
        v4, v6 = network.addresses.allocate()
        node = NodeRecord(network.next_id(), f"mkey:{name}", f"nodekey:{name}", user_id, name, v4, v6, 0.0, tags=tags)
        if name == "router":
            node.hostinfo = Hostinfo(routable_ips=("10.1.0.0/16", "0.0.0.0/0"))
            node.approved_routes = ("10.1.0.0/16", "0.0.0.0/0")
        network.add(node)
    return network
