"""What a machine gets for its register request.

Order of the checks: logout, follow-up, known key, auth key, and at last an administrator's approval.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Coroutine
from typing import TypeVar
from weakref import WeakValueDictionary

import msgspec

from meshd.base.errors import MeshdError
from meshd.base.gotime import format_time, parse_time
from meshd.base.keys import MachinePublic
from meshd.base.log import get_logger, kv
from meshd.coord import authkeys
from meshd.coord.intake import usual_register
from meshd.coord.pending import PendingRegistration, PendingRegistrations
from meshd.coord.presence import Presence
from meshd.coord.records import AuthKeyRecord, NodeRecord, UserRecord
from meshd.coord.registry import Registry
from meshd.wire.control import (
    ZERO_NODE_KEY,
    Hostinfo,
    Login,
    RegisterRequest,
    RegisterResponse,
    User,
)

log = get_logger(__name__)

MAX_TAGS = 64
T = TypeVar("T")


class RegistrationRules(msgspec.Struct, frozen=True):
    """What the operator has set."""

    url: str
    """Base of the addresses shown to users, without a slash at the end."""
    node_key_lifetime_s: float
    """0 = keys do not expire."""


class Registrar:
    """Answers register requests."""

    def __init__(self, registry: Registry, presence: Presence, rules: RegistrationRules) -> None:
        self._registry = registry
        self._network = registry.network
        self._presence = presence
        self._rules = rules
        self._loop = asyncio.get_running_loop()
        self.pending = PendingRegistrations()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def register(self, request: RegisterRequest, machine: MachinePublic, source_ip: str) -> RegisterResponse:
        """The answer; refusals are an answer with `error`. MeshdError `busy` means "ask again later"."""
        machine_key = machine.text()
        request = usual_register(request)
        try:
            if request.followup:
                return await self._follow_up(request, machine_key, source_ip)
            return await self._alone(machine_key, self._register(request, machine_key, source_ip))
        except MeshdError as error:
            if error.code in ("busy", "storage"):
                raise
            log.info("register_refused", extra=kv(machine=machine, reason=error.message))
            return RegisterResponse(error=error.message)

    async def _alone(self, machine_key: str, work: Coroutine[None, None, T]) -> T:
        """Run `work` with no other registration of that machine beside it.

        It runs to its end even when the machine hangs up, so that memory and disk never differ.
        """

        async def locked() -> T:
            # Everybody who holds it or waits for it keeps it alive.
            lock = self._locks.setdefault(machine_key, asyncio.Lock())
            async with lock:
                return await work

        task = self._loop.create_task(locked())
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)

    async def _register(self, request: RegisterRequest, machine_key: str, source_ip: str) -> RegisterResponse:
        if request.node_key == ZERO_NODE_KEY:
            raise MeshdError("the request has no node key", code="denied")
        wall = time.time()
        expiry = parse_time(request.expiry)
        node = await self._settled(request.node_key)
        if node is not None and node.machine_key != machine_key:
            raise MeshdError("node exists with a different machine key", code="denied")
        if expiry is not None and expiry <= wall:
            return await self._log_out(node)
        if node is not None:
            return await self._known(node, request, expiry, wall)
        if request.auth is not None and request.auth.auth_key:
            return await self._with_auth_key(request, machine_key)
        return self._ask(request, machine_key, source_ip)

    async def _settled(self, node_key: str) -> NodeRecord | None:
        """The node of that key, not one that is just being deleted."""
        node = self._network.by_node_key.get(node_key)
        if node is not None:
            await self._registry.settled(node)
        return self._network.by_node_key.get(node_key)

    async def _log_out(self, node: NodeRecord | None) -> RegisterResponse:
        if node is not None:
            log.info("node_logged_out", extra=kv(node=node.name, id=node.id))
            if node.ephemeral:
                await self._registry.delete(node)
            else:
                await self._registry.set_expiry(node, time.time())
        return RegisterResponse(node_key_expired=True)

    async def _known(
        self, node: NodeRecord, request: RegisterRequest, expiry: float | None, wall: float
    ) -> RegisterResponse:
        """The machine is back, or wants its key to end sooner."""
        if node.expired(wall):
            return RegisterResponse(node_key_expired=True)
        if expiry is not None:
            if node.tags or (node.expiry is not None and expiry > node.expiry):
                raise MeshdError("extending key is not allowed", code="denied")
            await self._registry.set_expiry(node, expiry)
        return self._accepted(node)

    # --- with a key --------------------------------------------------------------------------------------

    async def _with_auth_key(self, request: RegisterRequest, machine_key: str) -> RegisterResponse:
        assert request.auth is not None
        text = request.auth.auth_key
        key = await self._registry.database.run(lambda connection: authkeys.check_key(connection, text))
        user = self._network.users[key.user_id]
        tags = key.tags or self._requested_tags(request, user)
        wall = time.time()

        def admit(connection: sqlite3.Connection) -> None:
            authkeys.consume_key(connection, key, wall)

        node = await self._registry.join(
            machine_key=machine_key,
            node_key=request.node_key,
            hostinfo=request.hostinfo or Hostinfo(),
            version=request.version,
            user_id=user.id,
            tags=tags,
            method="authkey",
            auth_key_id=key.id,
            ephemeral=key.ephemeral or request.ephemeral,
            expiry=self._key_end(tags, request, wall),
            existing=self._same_machine(machine_key, request, user.id, tags),
            admit=admit,
        )
        self.pending.joined(node.node_key, self._loop.time())
        return self._accepted(node)

    def _key_end(self, tags: tuple[str, ...], request: RegisterRequest, wall: float) -> float | None:
        if tags:
            return None
        lifetime = self._rules.node_key_lifetime_s
        latest = wall + lifetime if lifetime else None
        wished = parse_time(request.expiry)
        if wished is None:
            return latest
        return wished if latest is None else min(wished, latest)

    def _same_machine(
        self, machine_key: str, request: RegisterRequest, user_id: int, tags: tuple[str, ...]
    ) -> NodeRecord | None:
        """The node that this machine has been so far under the same owner; it keeps its name and addresses.

        One that goes over from its user to tags, or back, is the same when it gives up the key that it had.
        """
        own = self._network.by_machine_key.get(machine_key, ())
        same = [node for node in own if bool(node.tags) == bool(tags) and (tags or node.user_id == user_id)]
        for node in same:
            if node.node_key == request.old_node_key:
                return node
        wall = time.time()
        changed = [
            node
            for node in own
            if node.user_id == user_id and (node.node_key == request.old_node_key or node.expired(wall))
        ]
        return next(iter(same or changed), None)

    def _requested_tags(self, request: RegisterRequest, user: UserRecord) -> tuple[str, ...]:
        wanted = request.hostinfo.request_tags if request.hostinfo is not None else ()
        if not wanted:
            return ()
        if len(wanted) > MAX_TAGS or not self._registry.policy.may_claim(wanted, user.name):
            raise MeshdError(
                f"requested tags {', '.join(wanted[:MAX_TAGS])} are invalid or not permitted", code="denied"
            )
        return tuple(dict.fromkeys(wanted))

    # --- with approval -----------------------------------------------------------------------------------

    def _ask(self, request: RegisterRequest, machine_key: str, source_ip: str) -> RegisterResponse:
        entry = self.pending.open(request, machine_key, source_ip, self._loop.time(), time.time())
        log.info(
            "approval_wanted",
            extra=kv(id=entry.id, hostname=request.hostinfo.hostname[:64] if request.hostinfo else "", addr=source_ip),
        )
        return RegisterResponse(auth_url=f"{self._rules.url}/register/{entry.id}")

    async def _follow_up(self, request: RegisterRequest, machine_key: str, source_ip: str) -> RegisterResponse:
        registration_id = request.followup.rsplit("/", 1)[-1]
        entry = self.pending.get(registration_id, self._loop.time())
        if entry is not None and entry.machine_key == machine_key and entry.request.node_key == request.node_key:
            await entry.decided()
            if entry.refused:
                self.pending.asked_again(entry, self._loop.time())
                raise MeshdError(entry.refused, code="denied")
        node = await self._settled(request.node_key)
        if node is not None and node.machine_key == machine_key and not node.expired(time.time()):
            return self._accepted(node)
        if request.node_key == ZERO_NODE_KEY or node is not None:
            raise MeshdError("this registration is not known any more, log in again", code="denied")
        return self._ask(request, machine_key, source_ip)

    async def approve(self, registration_id: str, user: UserRecord, tags: tuple[str, ...]) -> NodeRecord:
        """Let a waiting machine in as a node of `user`."""
        machine_key = self._waiting(registration_id).machine_key
        return await self._alone(machine_key, self._approve(registration_id, user, tags))

    async def _approve(self, registration_id: str, user: UserRecord, tags: tuple[str, ...]) -> NodeRecord:
        entry = self._waiting(registration_id)
        request = entry.request
        granted = tags or self._requested_tags(request, user)
        node = await self._registry.join(
            machine_key=entry.machine_key,
            node_key=request.node_key,
            hostinfo=request.hostinfo or Hostinfo(),
            version=request.version,
            user_id=user.id,
            tags=granted,
            method="approval",
            auth_key_id=None,
            ephemeral=request.ephemeral,
            expiry=self._key_end(granted, request, time.time()),
            existing=self._same_machine(entry.machine_key, request, user.id, granted),
            admit=lambda connection: None,
        )
        self._presence.joined(node)
        self.pending.decide(entry, self._loop.time())
        return node

    async def refuse(self, registration_id: str) -> None:
        """Turn a waiting machine away; MeshdError when it was let in first."""
        machine_key = self._waiting(registration_id).machine_key
        await self._alone(machine_key, self._refuse(registration_id))

    async def _refuse(self, registration_id: str) -> None:
        entry = self._waiting(registration_id)
        self.pending.decide(entry, self._loop.time(), refused="an administrator refused this machine")

    def _waiting(self, registration_id: str) -> PendingRegistration:
        entry = self.pending.get(registration_id, self._loop.time())
        if entry is None or entry.done.is_set():
            raise MeshdError(
                f"no machine waits under {registration_id!r}",
                code="not-found",
                hint="See `mesh-coord nodes list --pending`; a request is forgotten 15 minutes after the machine "
                "stopped asking.",
            )
        return entry

    # --- answers -----------------------------------------------------------------------------------------

    def _accepted(self, node: NodeRecord) -> RegisterResponse:
        self._presence.joined(node)
        profile = self._network.profile(node.owner_id)
        owner = self._network.users.get(node.owner_id)
        return RegisterResponse(
            user=User(
                id=profile.id,
                display_name=profile.display_name,
                created=format_time(owner.created if owner is not None else None),
            ),
            login=Login(id=profile.id, login_name=profile.login_name, display_name=profile.display_name),
            machine_authorized=True,
        )


def describe_key(key: AuthKeyRecord, user: str, wall: float) -> dict[str, object]:
    """An auth key as administrators see it."""
    return {
        "id": key.id,
        "key": f"mesh-auth-{key.prefix}-…",
        "user": user,
        "reusable": key.reusable,
        "ephemeral": key.ephemeral,
        "tags": list(key.tags),
        "created": format_time(key.created),
        "expiry": None if key.expiry is None else format_time(key.expiry),
        "state": key.state(wall),
        "note": key.note,
    }
