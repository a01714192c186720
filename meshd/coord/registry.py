"""Changes of the network that must be on disk before anybody hears of them."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import msgspec

from meshd.base.addr import is_address
from meshd.base.errors import MeshdError
from meshd.base.log import get_logger, kv
from meshd.coord import network as change
from meshd.coord import store
from meshd.coord.database import HINT, Database
from meshd.coord.intake import one_per_key, usable_endpoints, usable_hostinfo
from meshd.coord.names import checked_label, is_derived, unique_label
from meshd.coord.network import Network
from meshd.coord.policysource import PolicySource
from meshd.coord.records import NodeRecord, UserRecord
from meshd.wire.control import ZERO_DISCO_KEY, Hostinfo, MapRequest

log = get_logger(__name__)

ADDRESS_SETTING = "last_address"
_ADOPTED = (
    *("user_id", "tags", "method", "auth_key_id", "ephemeral", "expiry", "version", "hostinfo", "last_seen"),
    *("disco_key", "endpoints", "endpoint_types", "approved_routes"),
)
_STORE = 1 << 30
"""Something worth storing that peers need not hear of (latencies)."""


class Registry:
    """Every method that changes something returns after the change is durable and in memory."""

    def __init__(self, network: Network, database: Database, policy: PolicySource) -> None:
        self.network = network
        self.database = database
        self.policy = policy
        self.on_deleted: Callable[[NodeRecord], None] = lambda node: None
        self.on_rekeyed: Callable[[NodeRecord, str], None] = lambda node, old_key: None
        self._busy: dict[int, asyncio.Event] = {}

    async def load(self) -> None:
        """Read what is stored."""

        def read(connection: sqlite3.Connection) -> tuple[list[UserRecord], list[NodeRecord], int, int]:
            return (
                store.load_users(connection),
                _sound_nodes(connection),
                store.last_node_id(connection),
                int(store.setting(connection, ADDRESS_SETTING) or 0),
            )

        try:
            users, nodes, last_id, last_address = await self.database.run(read)
            self.network.addresses.last = last_address
            self.network.load(users, nodes, last_id)
        except (ValueError, TypeError, msgspec.MsgspecError) as error:
            raise MeshdError(
                f"the database holds what this program cannot read: {error}", code="config", hint=HINT
            ) from None

    # --- users -------------------------------------------------------------------------------------------

    def user_named(self, name: str) -> UserRecord:
        """MeshdError when there is no such user."""
        for user in self.network.users.values():
            if user.name == name:
                return user
        raise MeshdError(f"there is no user {name!r}", code="not-found", hint="See `mesh-coord users list`.")

    async def add_user(self, name: str) -> UserRecord:
        if not name or len(name) > 128 or any(not c.isprintable() or c.isspace() for c in name):
            raise MeshdError("a user name has 1 to 128 printable characters without spaces", code="usage")
        if name == "*" or ":" in name or "/" in name or is_address(name):
            raise MeshdError(
                f"in a policy {name!r} would mean something else than a user",
                code="usage",
                hint="Use a name without : and / that is no address, such as alice or alice@example.com.",
            )
        wall = time.time()
        user = await self.database.run(lambda connection: store.add_user(connection, name, wall))
        self.network.users[user.id] = user
        return user

    async def delete_user(self, user: UserRecord) -> None:
        owned = [node.name for node in self.network.nodes.values() if node.user_id == user.id]
        if owned:
            raise MeshdError(
                f"user {user.name!r} still owns {len(owned)} node(s): {', '.join(sorted(owned)[:5])}",
                code="conflict",
                hint="Delete the nodes first.",
            )
        await self.database.run(lambda connection: store.delete_user(connection, user))
        # Two administrators may delete it at once.
        self.network.users.pop(user.id, None)

    # --- nodes joining and leaving -----------------------------------------------------------------------

    async def join(
        self,
        *,
        machine_key: str,
        node_key: str,
        hostinfo: Hostinfo,
        version: int,
        user_id: int,
        tags: tuple[str, ...],
        method: str,
        auth_key_id: int | None,
        ephemeral: bool,
        expiry: float | None,
        existing: NodeRecord | None,
        admit: Callable[[sqlite3.Connection], None],
    ) -> NodeRecord:
        """Store a machine under a node key, new or as the next key of `existing`; announce it.

        `admit` runs in the same transaction first and stops everything by raising.
        """
        hostinfo = usable_hostinfo(hostinfo)
        async with self._alone(existing):
            if existing is None:
                draft = self._newcomer(machine_key, node_key, user_id, hostinfo.hostname)
            else:
                draft = msgspec.structs.replace(existing)
            old_key = draft.node_key
            try:
                draft.node_key = node_key
                draft.user_id = user_id
                draft.tags = tags
                draft.method = method
                draft.auth_key_id = auth_key_id
                draft.ephemeral = ephemeral
                draft.expiry = expiry
                draft.version = version
                draft.hostinfo = hostinfo
                draft.last_seen = time.time()
                if node_key != old_key:
                    draft.disco_key = ZERO_DISCO_KEY
                    draft.endpoints = draft.endpoint_types = ()
                draft.approved_routes = self._approved(draft)
                await self._store_joined(draft, admit, is_new=existing is None)
            except Exception:
                if existing is None:
                    self.network.names.discard(draft.name)
                    self.network.addresses.release(draft.v4)
                raise
            node, stored = existing or draft, store.node_row(draft)
            if existing is None:
                # A policy that was set meanwhile has not met this node.
                node.approved_routes = self._approved(node)
                self.network.add(node)
            else:
                self._adopt(existing, draft)
                if old_key != node_key:
                    self.on_rekeyed(existing, old_key)
            await self._store_told_meanwhile(node, stored)
        log.info("node_joined", extra=kv(node=node.name, id=node.id, addr=node.v4, method=method))
        return node

    @asynccontextmanager
    async def _alone(self, node: NodeRecord | None) -> AsyncIterator[None]:
        """While a node's next state or its end is on its way to the disk, nobody changes or stores the present one."""
        if node is None:
            yield
            return
        await self.settled(node)
        done = self._busy[node.id] = asyncio.Event()
        try:
            yield
        finally:
            del self._busy[node.id]
            done.set()

    async def settled(self, *nodes: NodeRecord) -> None:
        """Wait until none of these nodes is about to go on under another key, or to be deleted.

        What follows without an `await` sees them at rest. Nobody who keeps this waiting waits for anything but the
        disk.
        """
        while waits := [self._busy[node.id] for node in nodes if node.id in self._busy]:
            await waits[0].wait()

    def _check_is_there(self, node: NodeRecord) -> None:
        """MeshdError when the node is deleted."""
        if self.network.nodes.get(node.id) is not node:
            raise MeshdError(f"{node.name} was deleted a moment ago", code="not-found")

    def _newcomer(self, machine_key: str, node_key: str, user_id: int, hostname: str) -> NodeRecord:
        """A new node with a name and addresses that are reserved for it."""
        v4, v6 = self.network.addresses.allocate()
        name = unique_label(hostname, self.network.names)
        self.network.names.add(name)
        return NodeRecord(self.network.next_id(), machine_key, node_key, user_id, name, v4, v6, time.time(), hostname)

    async def _store_joined(
        self, draft: NodeRecord, admit: Callable[[sqlite3.Connection], None], *, is_new: bool
    ) -> None:
        row = store.node_row(draft)
        last_address = str(self.network.addresses.last)

        def save(connection: sqlite3.Connection) -> None:
            admit(connection)
            if is_new:
                store.add_node(connection, row)
            elif not store.update_node(connection, row):
                raise MeshdError("this machine was deleted a moment ago, log in again", code="denied")
            store.set_setting(connection, ADDRESS_SETTING, last_address)

        await self.database.run(save)

    def _adopt(self, node: NodeRecord, draft: NodeRecord) -> None:
        self.network.rekey(node, draft.node_key)
        for name in _ADOPTED:
            setattr(node, name, getattr(draft, name))
        self.network.on_change(node.id, change.WHOLE | change.SELF | change.ACCESS)
        self.network.refresh_routes(node)

    async def _store_told_meanwhile(self, node: NodeRecord, stored: store.NodeRow) -> None:
        """A machine may take another host name until its new key holds, and hang up before that is saved."""
        if store.node_row(node) != stored:
            await self._write(node)

    async def delete(self, node: NodeRecord) -> None:
        """Remove a node; its stream ends and its peers forget it."""
        async with self._alone(node):
            await self.database.run(lambda connection: store.delete_node(connection, node.id))
            if self.network.nodes.get(node.id) is not node:
                return
            self.network.remove(node)
            self.on_deleted(node)
        log.info("node_deleted", extra=kv(node=node.name, id=node.id))

    # --- changes of a node -------------------------------------------------------------------------------

    async def save(self, *nodes: NodeRecord) -> None:
        """Store these nodes as they are now."""
        await self.settled(*nodes)
        await self._write(*nodes)

    async def _write(self, *nodes: NodeRecord) -> None:
        rows = [store.node_row(node) for node in nodes if node.id in self.network.nodes]

        def write(connection: sqlite3.Connection) -> None:
            for row in rows:
                store.update_node(connection, row)

        await self.database.run(write)

    async def _change(self, node: NodeRecord, flags: int, **fields: object) -> None:
        """Store other values of a node, let them hold, and tell everybody. What could not be stored does not hold."""
        async with self._alone(node):
            self._check_is_there(node)
            before = node.approved_routes
            row = store.node_row(msgspec.structs.replace(node, **fields))
            await self.database.run(lambda connection: store.update_node(connection, row))
            # What the policy has approved for the node in the meantime must not be lost.
            more = [route for route in node.approved_routes if route not in before]
            for field, value in fields.items():
                if field == "name":
                    self.network.rename(node, str(value))
                else:
                    setattr(node, field, value)
            node.approved_routes = tuple(dict.fromkeys((*node.approved_routes, *more)))
            self.network.on_change(node.id, flags)
            self.network.refresh_routes(node)
            await self._store_told_meanwhile(node, row)

    async def set_expiry(self, node: NodeRecord, expiry: float | None) -> None:
        await self._change(node, change.WHOLE | change.SELF, expiry=expiry)

    def expiry_passed(self, node: NodeRecord) -> None:
        """Tell everybody that the state of the node's key is another one now."""
        self.network.on_change(node.id, change.WHOLE | change.SELF)
        self.network.refresh_routes(node)

    async def rename(self, node: NodeRecord, name: str) -> None:
        await self.settled(node)
        self._check_is_there(node)
        if checked_label(name) == node.name:
            return
        if name in self.network.names:
            raise MeshdError(f"there is already a machine named {name!r}", code="conflict")
        self.network.names.add(name)
        try:
            await self._change(node, change.WHOLE | change.SELF, name=name)
        finally:
            if node.name != name:
                self.network.names.discard(name)

    async def set_tags(self, node: NodeRecord, tags: Iterable[str]) -> None:
        new = tuple(tags)
        fields: dict[str, object] = {"tags": new, "expiry": None} if new else {"tags": new}
        await self._change(node, change.WHOLE | change.SELF | change.ACCESS, **fields)

    async def approve_routes(self, node: NodeRecord, routes: Iterable[str]) -> None:
        await self._change(node, change.WHOLE | change.SELF | change.ACCESS, approved_routes=tuple(routes))

    async def approve_by_policy(self) -> None:
        """Approve what a new policy approves by itself; nothing is taken back."""
        for node in list(self.network.nodes.values()):
            await self.settled(node)
            if self.network.nodes.get(node.id) is not node:
                continue  # deleted while another one was stored
            try:
                approved = self._approved(node)
            except Exception as error:
                # What one node tells must not keep the others from their routes.
                log.error("not_approved", extra=kv(node=node.name, reason=repr(error)), exc_info=error)
                continue
            if approved != node.approved_routes:
                await self.approve_routes(node, approved)

    def report(self, node: NodeRecord, request: MapRequest) -> bool:
        """Take over what a node tells of itself in a map request; True when something must be stored.

        Its peers hear of it at once: a crash before the commit loses nothing that the node will not tell again.
        """
        flags = 0
        if request.hostinfo is not None:
            flags |= self._take_hostinfo(node, request.hostinfo)
        if request.disco_key not in (ZERO_DISCO_KEY, node.disco_key):
            node.disco_key = request.disco_key
            flags |= change.DISCO
        if request.endpoints is not None:
            types = request.endpoint_types or ()
            endpoints = usable_endpoints(request.endpoints)
            if endpoints != node.endpoints:
                node.endpoints = endpoints
                flags |= change.ENDPOINTS
            node.endpoint_types = types if len(types) == len(endpoints) else ()
        if request.version != node.version:
            node.version = request.version
            flags |= change.WHOLE
        told = flags & ~_STORE
        if told:
            self.network.on_change(node.id, told)
        if told & change.ACCESS:
            self.network.refresh_routes(node)
        return bool(flags)

    def _take_hostinfo(self, node: NodeRecord, info: Hostinfo) -> int:
        old, info = node.hostinfo, usable_hostinfo(info)
        if info.net_info is None and old.net_info is not None:
            info = msgspec.structs.replace(info, net_info=old.net_info)
        if info == old and info.hostname == node.hostname:
            return 0
        region = node.home_region
        node.hostinfo = info
        flags = change.HOME_REGION if node.home_region != region else 0
        if msgspec.structs.replace(info, net_info=None) != msgspec.structs.replace(old, net_info=None):
            flags |= change.WHOLE
        if info.routable_ips != old.routable_ips:
            node.approved_routes = self._approved(node)
            flags |= change.ACCESS | change.SELF
        if info.hostname != node.hostname:
            self._take_hostname(node, info.hostname)
            flags |= change.WHOLE | change.SELF
        return flags | _STORE

    def _take_hostname(self, node: NodeRecord, hostname: str) -> None:
        """A node that still has the name derived from its host name gets a new one with it."""
        was_derived = is_derived(node.name, node.hostname)
        node.hostname = hostname
        if was_derived:
            self.network.names.discard(node.name)
            node.name = unique_label(hostname, self.network.names)
            self.network.names.add(node.name)

    def _approved(self, node: NodeRecord) -> tuple[str, ...]:
        """Approved routes, with those added that the policy approves by itself."""
        user = self.network.users[node.user_id].name if node.user_id in self.network.users else ""
        approved = list(node.approved_routes)
        for route in node.hostinfo.routable_ips:
            if route not in approved and self.policy.approves(route, node, user):
                approved.append(route)
        return tuple(approved)


def _sound_nodes(connection: sqlite3.Connection) -> list[NodeRecord]:
    """The stored nodes; one that took another's key is deleted."""
    nodes, doubles = one_per_key(store.load_nodes(connection))
    for node in doubles:
        log.warning("node_deleted", extra=kv(node=node.name, id=node.id, reason="its node key is another node's"))
        store.delete_node(connection, node.id)
    return nodes
