"""What administrators can do with a running server; each operation takes and returns plain JSON values."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from functools import partial
from typing import Any

from meshd.base.addr import parse_prefix
from meshd.base.errors import MeshdError, WireError
from meshd.base.gotime import format_time
from meshd.coord import authkeys, store
from meshd.coord.admin import Arguments, Operation
from meshd.coord.distributor import Distributor
from meshd.coord.nodecalls import NodeCalls, serialized, split_answer
from meshd.coord.policysource import PolicySource, checked_policy
from meshd.coord.records import NodeRecord, UserRecord
from meshd.coord.registration import Registrar, describe_key
from meshd.coord.registry import Registry
from meshd.coord.tags import checked_tags


class Operations:
    """Bound to the parts of one server."""

    def __init__(
        self,
        registry: Registry,
        registrar: Registrar,
        distributor: Distributor,
        policy: PolicySource,
        calls: NodeCalls,
    ) -> None:
        self._registry = registry
        self._network = registry.network
        self._registrar = registrar
        self._distributor = distributor
        self._policy = policy
        self._calls = calls

    def table(self) -> dict[str, Operation]:
        """Operation name to function."""
        return {
            "users.list": self.users_list,
            "users.create": self.users_create,
            "users.delete": self.users_delete,
            "authkeys.create": self.authkeys_create,
            "authkeys.list": self.authkeys_list,
            "authkeys.revoke": self.authkeys_revoke,
            "nodes.list": self.nodes_list,
            "nodes.pending": self.nodes_pending,
            "nodes.approve": self.nodes_approve,
            "nodes.refuse": self.nodes_refuse,
            "nodes.expire": self.nodes_expire,
            "nodes.delete": self.nodes_delete,
            "nodes.rename": self.nodes_rename,
            "nodes.approve-routes": self.nodes_approve_routes,
            "nodes.tag": self.nodes_tag,
            "nodes.call": self.nodes_call,
            "policy.get": self.policy_get,
            "policy.set": self.policy_set,
        }

    # --- users -------------------------------------------------------------------------------------------

    async def users_list(self, args: Arguments) -> object:
        return [self._user(user) for user in self._network.users.values()]

    async def users_create(self, args: Arguments) -> object:
        return self._user(await self._registry.add_user(str(args["name"])))

    async def users_delete(self, args: Arguments) -> object:
        user = self._registry.user_named(str(args["name"]))
        await self._registry.delete_user(user)
        return self._user(user)

    def _user(self, user: UserRecord) -> dict[str, Any]:
        nodes = sum(node.user_id == user.id for node in self._network.nodes.values())
        return {"id": user.id, "name": user.name, "created": format_time(user.created), "nodes": nodes}

    # --- auth keys ---------------------------------------------------------------------------------------

    async def authkeys_create(self, args: Arguments) -> object:
        user = self._owner(args)
        wall = time.time()
        lifetime = args.get("expiry_s")
        prefix, text, digest = authkeys.new_key()
        tags = checked_tags(args.get("tags") or ())
        key = await self._registry.database.run(
            lambda connection: store.add_auth_key(
                connection,
                prefix=prefix,
                digest=digest,
                user_id=user.id,
                reusable=bool(args.get("reusable")),
                ephemeral=bool(args.get("ephemeral")),
                tags=tags,
                wall=wall,
                expiry=None if lifetime is None else wall + float(lifetime),
                note=str(args.get("note") or ""),
            )
        )
        return {**describe_key(key, user.name, wall), "key": text}

    async def authkeys_list(self, args: Arguments) -> object:
        wall = time.time()
        keys = await self._registry.database.run(store.auth_keys)
        return [describe_key(key, self._network.users[key.user_id].name, wall) for key in keys]

    async def authkeys_revoke(self, args: Arguments) -> object:
        wanted = str(args["id"])
        keys = await self._registry.database.run(store.auth_keys)
        for key in keys:
            if wanted == str(key.id) or wanted.startswith(f"mesh-auth-{key.prefix}"):
                owner = self._network.users[key.user_id].name
                if await self._registry.database.run(partial(store.revoke_auth_key, key_id=key.id)):
                    key.revoked = True
                    return describe_key(key, owner, time.time())
        raise MeshdError(
            f"there is no auth key {wanted.partition('-')[0]!r}",
            code="not-found",
            hint="Give the number that `mesh-coord authkeys list` shows.",
        )

    # --- nodes -------------------------------------------------------------------------------------------

    async def nodes_list(self, args: Arguments) -> object:
        return [self._node(node) for node in sorted(self._network.nodes.values(), key=lambda node: node.id)]

    async def nodes_pending(self, args: Arguments) -> object:
        return [
            {
                "id": entry.id,
                "hostname": entry.request.hostinfo.hostname if entry.request.hostinfo else "",
                "os": entry.request.hostinfo.os if entry.request.hostinfo else "",
                "source": entry.source_ip,
                "since": format_time(entry.since),
            }
            for entry in self._registrar.pending.all(asyncio.get_running_loop().time())
        ]

    async def nodes_approve(self, args: Arguments) -> object:
        registration_id = str(args["id"]).rsplit("/", 1)[-1]
        tags = checked_tags(args.get("tags") or ())
        return self._node(await self._registrar.approve(registration_id, self._owner(args), tags))

    async def nodes_refuse(self, args: Arguments) -> object:
        await self._registrar.refuse(str(args["id"]).rsplit("/", 1)[-1])
        return {}

    async def nodes_expire(self, args: Arguments) -> object:
        node = self._find(args)
        await self._registry.set_expiry(node, time.time())
        return self._node(node)

    async def nodes_delete(self, args: Arguments) -> object:
        node = self._find(args)
        await self._registry.delete(node)
        return self._node(node)

    async def nodes_rename(self, args: Arguments) -> object:
        node = self._find(args)
        await self._registry.rename(node, str(args["name"]))
        return self._node(node)

    async def nodes_tag(self, args: Arguments) -> object:
        node = self._find(args)
        await self._registry.set_tags(node, checked_tags(args.get("tags") or ()))
        return self._node(node)

    async def nodes_approve_routes(self, args: Arguments) -> object:
        node = self._find(args)
        routes = list(dict.fromkeys(_prefixes(args.get("routes") or ())))
        if args.get("all"):
            routes = list(node.hostinfo.routable_ips)
        await self._registry.approve_routes(node, routes)
        return self._node(node)

    async def nodes_call(self, args: Arguments) -> object:
        """An HTTP request to a node, for debugging; status and body of its answer."""
        node = self._find(args)
        request = serialized(str(args.get("method") or "GET"), str(args["path"]), str(args.get("body") or "").encode())
        try:
            status, body = split_answer(await self._calls.call(node, request))
        except WireError as error:
            raise MeshdError(str(error), code="node") from None
        return {"status": status, "body": body.decode("utf-8", "replace")}

    # --- policy ------------------------------------------------------------------------------------------

    async def policy_get(self, args: Arguments) -> object:
        return {"text": self._policy.text, "file": str(self._policy.file) if self._policy.file else None}

    async def policy_set(self, args: Arguments) -> object:
        if self._policy.file is not None:
            raise MeshdError(
                f"the server reads its policy from {self._policy.file}",
                code="conflict",
                hint="Change that file and send the server SIGHUP, or start it without --policy.",
            )
        text = str(args["text"])
        checked_policy(text, str(args.get("name") or "policy"), self._network)
        wall = time.time()
        await self._registry.database.run(lambda connection: store.add_policy(connection, text, wall))
        self._policy.set(text)
        self._distributor.policy_changed()
        await self._registry.approve_by_policy()
        return {"text": text, "unknown_users": self._policy.unknown_users(self._network.users.values())}

    def _find(self, args: Arguments) -> NodeRecord:
        wanted = str(args["node"])
        nodes = self._network.nodes.values()
        # A machine may call itself by the number of another one.
        for node in nodes:
            if wanted == str(node.id):
                return node
        named = {node.id: node for node in nodes if wanted in (node.name, node.v4, node.v6, node.node_key)}
        found = {node.id: node for node in nodes if wanted == node.stable_id} | named
        if len(found) > 1:
            (meant,) = named
            raise MeshdError(
                f"{wanted!r} is the name of node {meant} and the stable id of another one",
                code="conflict",
                hint="Give the number that `mesh-coord nodes list` shows as its id.",
            )
        for node in found.values():
            return node
        raise MeshdError(
            f"there is no node {wanted!r}", code="not-found", hint="See `mesh-coord nodes list` for ids and names."
        )

    def _owner(self, args: Arguments) -> UserRecord:
        """The user named, or the only one there is."""
        name = args.get("user")
        if name:
            return self._registry.user_named(str(name))
        users = list(self._network.users.values())
        if len(users) == 1:
            return users[0]
        raise MeshdError(
            "there is more than one user" if users else "there is no user yet",
            code="usage",
            hint="Say which one with --user." if users else "Make one with `mesh-coord users create NAME`.",
        )

    def _node(self, node: NodeRecord) -> dict[str, Any]:
        wall = time.time()
        user = self._network.users.get(node.user_id)
        return {
            "id": node.id,
            "name": node.name,
            "hostname": node.hostname,
            "user": user.name if user is not None else "",
            "tags": list(node.tags),
            "addresses": [node.v4, node.v6],
            "online": node.online,
            "last_seen": None if node.last_seen is None else format_time(node.last_seen),
            "created": format_time(node.created),
            "expiry": None if node.expiry is None else format_time(node.expiry),
            "expired": node.expired(wall),
            "ephemeral": node.ephemeral,
            "method": node.method,
            "node_key": node.node_key,
            "machine_key": node.machine_key,
            "endpoints": list(node.endpoints),
            "home_region": node.home_region,
            "version": node.version,
            "client": node.hostinfo.ipn_version,
            "os": node.hostinfo.os,
            "advertised_routes": list(node.hostinfo.routable_ips),
            "approved_routes": list(node.approved_routes),
            "carried_routes": list(self._network.routes.carried(node.id)),
        }


def _prefixes(texts: Iterable[str]) -> list[str]:
    try:
        return [str(parse_prefix(str(text))) for text in texts]
    except ValueError as error:
        raise MeshdError(f"not a route: {error}", code="usage", hint="Write it like 192.168.1.0/24.") from None
