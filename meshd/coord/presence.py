"""Which nodes are online, and which ephemeral or expired ones have to be dealt with."""

from __future__ import annotations

import asyncio
import time

from meshd.base.errors import MeshdError
from meshd.base.log import get_logger, kv
from meshd.coord import network as change
from meshd.coord.records import NodeRecord
from meshd.coord.registry import Registry

log = get_logger(__name__)

OFFLINE_GRACE_S = 10.0
"""A node that reconnects within this is never shown offline."""
SWEEP_S = 5.0
COMPLAINT_INTERVAL_S = 300.0


class Presence:
    """Watches streams come and go."""

    def __init__(self, registry: Registry, ephemeral_timeout_s: float) -> None:
        self._registry = registry
        self._network = registry.network
        self._ephemeral_timeout_s = ephemeral_timeout_s
        self._loop = asyncio.get_running_loop()
        self._leaving: dict[int, asyncio.TimerHandle] = {}
        self._gone_since: dict[int, float] = {}
        self._told_expired: set[int] = set()
        self._task: asyncio.Task[None] | None = None
        self._complain_at = 0.0
        self._failures = 0  # since the last complaint

    def start(self) -> None:
        """Begin watching; ephemeral nodes that are not connected have their full time from now on."""
        now = self._loop.time()
        wall = time.time()
        for node in self._network.nodes.values():
            self._gone_since[node.id] = now
            if node.expired(wall):
                self._told_expired.add(node.id)
        self._task = self._loop.create_task(self._sweep_forever())

    async def close(self) -> None:
        """Watch no more, and store that nodes were here until now: some may not come back after the next start."""
        if self._task is not None:
            self._task.cancel()
        for timer in self._leaving.values():
            timer.cancel()
        here = [node for node in self._network.nodes.values() if node.online]
        for node in here:
            if node.id not in self._leaving:
                node.last_seen = time.time()
        try:
            await self._registry.save(*here)
        except MeshdError as error:
            log.error("not_stored", extra=kv(nodes=len(here), reason=error.message))

    def arrived(self, node: NodeRecord) -> None:
        """The node has a stream."""
        timer = self._leaving.pop(node.id, None)
        if timer is not None:
            timer.cancel()
        self._gone_since.pop(node.id, None)
        if not node.online:
            node.online = True
            self._network.on_change(node.id, change.ONLINE)
            self._network.refresh_routes(node)

    def left(self, node: NodeRecord) -> None:
        """The node's stream ended and no other took its place."""
        node.last_seen = time.time()
        self._gone_since[node.id] = self._loop.time()
        if node.id not in self._leaving:
            self._leaving[node.id] = self._loop.call_later(OFFLINE_GRACE_S, self._offline, node)

    def forget(self, node: NodeRecord) -> None:
        """The node was deleted."""
        timer = self._leaving.pop(node.id, None)
        if timer is not None:
            timer.cancel()
        self._gone_since.pop(node.id, None)
        self._told_expired.discard(node.id)

    def joined(self, node: NodeRecord) -> None:
        """The node is registered, maybe once more, and will open its stream soon."""
        # One that has a stream must not count as gone.
        if not node.online or node.id in self._gone_since:
            self._gone_since[node.id] = self._loop.time()

    def _offline(self, node: NodeRecord) -> None:
        self._leaving.pop(node.id, None)
        if node.online and self._network.nodes.get(node.id) is node:
            node.online = False
            self._network.on_change(node.id, change.ONLINE)
            self._network.refresh_routes(node)
            self._loop.create_task(self._save(node))

    async def _save(self, node: NodeRecord) -> None:
        try:
            await self._registry.save(node)
        except Exception as error:
            known = isinstance(error, MeshdError)
            log.error("not_stored", extra=kv(node=node.name, reason=str(error)), exc_info=None if known else error)

    async def _sweep_forever(self) -> None:
        """Whatever goes wrong with one sweep, there is a next one; the log hears of it once a while."""
        while True:
            await asyncio.sleep(SWEEP_S)
            now = self._loop.time()
            try:
                await self.sweep(now, time.time())
            except Exception as error:
                self._failures += 1
                if now >= self._complain_at:
                    self._complain_at = now + COMPLAINT_INTERVAL_S
                    reason = error.message if isinstance(error, MeshdError) else repr(error)
                    fault = None if isinstance(error, MeshdError) else error
                    log.error("sweep_failed", extra=kv(reason=reason, times=self._failures), exc_info=fault)
                    self._failures = 0

    async def sweep(self, now: float, wall: float) -> None:
        """Tell of keys that ended meanwhile; delete ephemeral nodes that were away for too long."""
        for node in list(self._network.nodes.values()):
            expired = node.expired(wall)
            if expired and node.id not in self._told_expired:
                self._told_expired.add(node.id)
                self._registry.expiry_passed(node)
            elif not expired:
                self._told_expired.discard(node.id)
            if self._away_too_long(node, now):
                await self._registry.settled(node)
                # It may have registered again until now.
                if self._away_too_long(node, now):
                    await self._registry.delete(node)

    def _away_too_long(self, node: NodeRecord, now: float) -> bool:
        gone = self._gone_since.get(node.id)
        return node.ephemeral and gone is not None and now - gone >= self._ephemeral_timeout_s
