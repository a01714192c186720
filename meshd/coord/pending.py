"""Machines that wait for an administrator.

Anyone can ask to join, so the list is bounded in number, per source address and in time. It lives in memory: after
a restart a waiting machine asks again and gets another address to show.
"""

from __future__ import annotations

import asyncio
import os

import msgspec

from meshd.base.errors import MeshdError
from meshd.io.listener import source_of
from meshd.wire.control import RegisterRequest

MAX_PENDING = 1024
MAX_PER_SOURCE = 64
"""So that one sender of requests cannot fill the list for everybody."""
MAX_WAITERS = 4
"""Requests that wait for one approval; a machine has one, and some that broke unnoticed."""
LIFETIME_S = 15 * 60.0
"""From the last sign of the machine that waits."""
DECIDED_LIFETIME_S = 60.0
"""For a machine that asks a little late how its wait ended; one that was let in is known by its node key anyway."""


class PendingRegistration(msgspec.Struct):
    """One machine that waits, and how its wait ends."""

    id: str
    machine_key: str
    request: RegisterRequest
    source_ip: str
    since: float
    """Unix seconds."""
    deadline: float
    """Loop time."""
    done: asyncio.Event = msgspec.field(default_factory=asyncio.Event)
    """Set when the machine was let in or turned away."""
    refused: str = ""
    waiters: list[asyncio.Task[bool]] = msgspec.field(default_factory=list)
    """Requests that wait for the end of this, oldest first."""

    async def decided(self) -> None:
        """Wait for the end. MeshdError `busy` for the oldest of too many that wait."""
        wait = asyncio.get_running_loop().create_task(self.done.wait())
        self.waiters.append(wait)
        if len(self.waiters) > MAX_WAITERS:
            self.waiters.pop(0).cancel()
        try:
            await asyncio.wait([wait])
            if wait.cancelled():
                raise MeshdError("newer requests of this machine wait for the same approval", code="busy")
        finally:
            wait.cancel()
            if wait in self.waiters:
                self.waiters.remove(wait)


class PendingRegistrations:
    """All machines that wait."""

    def __init__(self) -> None:
        self._by_id: dict[str, PendingRegistration] = {}
        self._by_node_key: dict[str, PendingRegistration] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def all(self, now: float) -> list[PendingRegistration]:
        """Those that still wait, oldest first."""
        self._expire(now)
        return [entry for entry in self._by_id.values() if not entry.done.is_set()]

    def get(self, registration_id: str, now: float) -> PendingRegistration | None:
        self._expire(now)
        return self._by_id.get(registration_id)

    def open(
        self, request: RegisterRequest, machine_key: str, source_ip: str, now: float, wall: float
    ) -> PendingRegistration:
        """The entry of this machine and node key, a new one when there is none.

        MeshdError `busy` when the list is full.
        """
        self._expire(now)
        found = self._by_node_key.get(request.node_key)
        if found is not None and found.machine_key == machine_key and not found.done.is_set():
            found.deadline = now + LIFETIME_S
            found.request = request
            return found
        waiting = [entry for entry in self._by_id.values() if not entry.done.is_set()]
        if len(waiting) >= MAX_PENDING or _exhausted(source_ip, waiting):
            raise MeshdError("too many machines wait for approval, try again later", code="busy")
        entry = PendingRegistration(os.urandom(12).hex(), machine_key, request, source_ip, wall, now + LIFETIME_S)
        self._by_id[entry.id] = entry
        self._by_node_key[request.node_key] = entry
        return entry

    def decide(self, entry: PendingRegistration, now: float, *, refused: str = "") -> None:
        """End the wait of a machine: it was let in, or is turned away with a reason."""
        entry.refused = refused
        entry.deadline = min(entry.deadline, now + DECIDED_LIFETIME_S)
        entry.done.set()

    def asked_again(self, entry: PendingRegistration, now: float) -> None:
        """A machine that was turned away does not take that for an end. It is told again for as long as it asks: one
        that nobody knows any more would wait again."""
        entry.deadline = now + DECIDED_LIFETIME_S

    def joined(self, node_key: str, now: float) -> None:
        """A machine got in by other means; it asks nobody any more."""
        entry = self._by_node_key.get(node_key)
        if entry is not None and not entry.done.is_set():
            self.decide(entry, now)

    def _expire(self, now: float) -> None:
        for entry in [entry for entry in self._by_id.values() if entry.deadline <= now and not entry.waiters]:
            del self._by_id[entry.id]
            if self._by_node_key.get(entry.request.node_key) is entry:
                del self._by_node_key[entry.request.node_key]


def _exhausted(source_ip: str, waiting: list[PendingRegistration]) -> bool:
    """Whether one sender has its share of those that wait. A proxy on this machine brings everybody's requests."""
    source = _sender(source_ip)
    return bool(source) and sum(_sender(entry.source_ip) == source for entry in waiting) >= MAX_PER_SOURCE


def _sender(source_ip: str) -> bytes:
    try:
        return source_of(source_ip)
    except ValueError:
        return source_ip.encode() or b"?"
