"""The network in memory: nodes and users by everything they are looked up by, and who must hear of a change.

The event loop owns it; there are no locks. Storing is the caller's business (`Registry`), telling the nodes is the
listener's (`Distributor`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from meshd.coord.addresses import AddressPool
from meshd.coord.records import TAGGED_USER_ID, TAGGED_USER_NAME, NodeRecord, UserRecord
from meshd.coord.routes import RouteTable
from meshd.wire.control import UserProfile

ENDPOINTS = 1
HOME_REGION = 2
ONLINE = 4
DISCO = 8
EXPIRY = 16
WHOLE = 32
"""Something that peers only accept as a whole node."""
REMOVED = 64
SELF = 128
"""Something that the node itself must be told."""
ACCESS = 256
"""Something that decides who may reach whom: owner, tags, routes, existence."""

Listener = Callable[[int, int], None]
"""Called with (node id, flags) for every change."""


def _ignore(node_id: int, flags: int) -> None:
    return None


class Network:
    """All users and nodes."""

    def __init__(self) -> None:
        self.users: dict[int, UserRecord] = {}
        self.nodes: dict[int, NodeRecord] = {}
        self.by_node_key: dict[str, NodeRecord] = {}
        self.by_machine_key: dict[str, list[NodeRecord]] = {}
        self.names: set[str] = set()
        """Labels in use, reserved ones included."""
        self.addresses = AddressPool()
        self.routes = RouteTable()
        self.last_id = 0
        self.on_change: Listener = _ignore

    def load(self, users: Iterable[UserRecord], nodes: Iterable[NodeRecord], last_id: int) -> None:
        """Take over what was stored."""
        for user in users:
            self.users[user.id] = user
        for node in nodes:
            self.names.add(node.name)
            self.addresses.claim(node.v4)
            self._index(node)
            last_id = max(last_id, node.id)
        self.last_id = last_id

    def next_id(self) -> int:
        self.last_id += 1
        return self.last_id

    def add(self, node: NodeRecord) -> None:
        """A node that was just stored joins; its name and address are already reserved."""
        self._index(node)
        self.on_change(node.id, WHOLE | ACCESS)

    def remove(self, node: NodeRecord) -> None:
        """A node that was deleted leaves."""
        del self.nodes[node.id]
        del self.by_node_key[node.node_key]
        siblings = self.by_machine_key[node.machine_key]
        siblings.remove(node)
        if not siblings:
            del self.by_machine_key[node.machine_key]
        self.names.discard(node.name)
        self.addresses.release(node.v4)
        node.online = False
        moved = self.routes.update(node.id, (), online=False)
        self.on_change(node.id, REMOVED | ACCESS)
        self._routes_moved(moved, node.id)

    def rekey(self, node: NodeRecord, node_key: str) -> None:
        """The node goes on under another node key; the caller reports the change."""
        if node.node_key != node_key:
            del self.by_node_key[node.node_key]
            node.node_key = node_key
            self.by_node_key[node_key] = node

    def rename(self, node: NodeRecord, name: str) -> None:
        """Change the label; the caller has checked that it is free."""
        self.names.discard(node.name)
        self.names.add(name)
        node.name = name
        self.on_change(node.id, WHOLE | SELF)

    def refresh_routes(self, node: NodeRecord) -> None:
        """Elect again after the node's routes, presence or expiry changed, and report who won or lost some."""
        if self.nodes.get(node.id) is not node:
            return  # what was under way for a deleted node must not make it a router again
        self._routes_moved(self._offer_routes(node), 0)

    def _offer_routes(self, node: NodeRecord) -> set[int]:
        # Peers send nothing to a node whose key has ended, even while it is connected.
        usable = node.online and not node.expired(time.time())
        return self.routes.update(node.id, node.usable_routes, online=usable)

    def _routes_moved(self, node_ids: set[int], except_id: int) -> None:
        for node_id in node_ids:
            if node_id != except_id and node_id in self.nodes:
                self.on_change(node_id, WHOLE | SELF | ACCESS)

    def profile(self, user_id: int) -> UserProfile:
        """What is shown of an owner."""
        if user_id == TAGGED_USER_ID:
            return UserProfile(id=user_id, login_name=TAGGED_USER_NAME, display_name="Tagged Devices")
        user = self.users[user_id]
        return UserProfile(id=user.id, login_name=user.name, display_name=user.name)

    def _index(self, node: NodeRecord) -> None:
        self.nodes[node.id] = node
        self.by_node_key[node.node_key] = node
        self.by_machine_key.setdefault(node.machine_key, []).append(node)
        self._offer_routes(node)
