"""All map streams, and the changes on their way to them.

Changes are collected for a moment and then offered to every stream at once. The moment is short when the network is
small and grows with the time that telling everyone takes, so that a busy server spends a bounded part of its time on
maps and never falls behind. A round over all streams gives everything else its turn now and then: with a policy, a node
more or less costs a look at every pair of nodes.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from functools import partial

from meshd.base.log import get_logger, kv
from meshd.coord import network as change
from meshd.coord.access import Access
from meshd.coord.mapbuild import MapBuilder
from meshd.coord.mapstream import Changes, MapStream, keepalive_delay
from meshd.coord.network import Network
from meshd.coord.policysource import PolicySource

log = get_logger(__name__)

MIN_WINDOW_S = 0.005
MAX_WINDOW_S = 0.2
WINDOW_PER_COST = 4.0
"""The window is this many times the duration of the last round."""
SLICE_S = 0.01
"""How long streams are told something at a time."""


class Distributor:
    """Tells the nodes of a network what changed. It is the `Surroundings` of every stream."""

    def __init__(self, network: Network, builder: MapBuilder, policy: PolicySource) -> None:
        self.network = network
        self.builder = builder
        self._policy = policy
        self.access: Access = policy.access(network)
        self._loop = asyncio.get_running_loop()
        self._streams: dict[int, MapStream] = {}
        self._keepalives: dict[int, asyncio.TimerHandle] = {}
        self._changes: Changes = {}
        self._access_stale = False
        self._scheduled: asyncio.TimerHandle | None = None
        self._round: deque[MapStream] | None = None  # those that are still to be told what `_offered` has
        self._offered: tuple[Changes, dict[object, bytes]] = ({}, {})
        self._cost_s = 0.0  # of the round
        self._again = False  # something changed during the round
        self._window_s = MIN_WINDOW_S
        self._flushed_at = 0.0
        network.on_change = self.changed

    def wall(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return self._loop.time()

    @property
    def streams(self) -> int:
        """Nodes connected now."""
        return len(self._streams)

    def stream_of(self, node_id: int) -> MapStream | None:
        return self._streams.get(node_id)

    def changed(self, node_id: int, flags: int) -> None:
        """Something of a node changed; everybody concerned hears of it within the window."""
        self.builder.forget(node_id)
        self._changes[node_id] = self._changes.get(node_id, 0) | flags
        if flags & change.ACCESS:
            self._access_stale = True
        self._schedule()

    def _schedule(self) -> None:
        """The first change after a quiet moment goes out almost at once, the following ones together."""
        if self._round is not None:
            self._again = True
        elif self._scheduled is None:
            wait = self._flushed_at + self._window_s - self._loop.time()
            self._scheduled = self._loop.call_later(max(MIN_WINDOW_S, wait), self.flush)

    def policy_changed(self) -> None:
        """Another policy holds from now on."""
        self._access_stale = True
        self._refresh_access(force=True)
        self._schedule()

    def flush(self) -> None:
        """Offer the collected changes to every stream; a round that is under way goes first."""
        if self._scheduled is not None:
            self._scheduled.cancel()
            self._scheduled = None
        if self._round is not None:
            self._again = True
            return
        began = time.perf_counter()
        self._refresh_access(force=False)
        self._offered, self._changes = (self._changes, {}), {}
        self._round = deque(self._streams.values())
        self._cost_s = time.perf_counter() - began
        self._go_on()

    def _go_on(self) -> None:
        """Whatever changes meanwhile is told in the next round, too, to those who have been told of it already."""
        waiting = self._round
        if waiting is None:
            return  # closed
        began = spent = time.perf_counter()
        while waiting and spent - began <= SLICE_S:
            stream = waiting.popleft()
            if self._streams.get(stream.node.id) is stream:
                self._carry_on(stream, partial(stream.offer, *self._offered))
            spent = time.perf_counter()
        self._cost_s += spent - began
        if waiting:
            self._loop.call_soon(self._go_on)
            return
        self._round, self._offered = None, ({}, {})
        self._flushed_at = self._loop.time()
        self._window_s = min(MAX_WINDOW_S, max(MIN_WINDOW_S, self._cost_s * WINDOW_PER_COST))
        if self._again:
            self._again = False
            self._schedule()

    def catch_up(self, stream: MapStream) -> None:
        """The client of a stream has taken everything so far."""
        self._carry_on(stream, stream.catch_up)

    def _carry_on(self, stream: MapStream, work: Callable[[], None]) -> None:
        """A fault with what one node is told must not keep the others from what they have to know."""
        try:
            work()
        except Exception as error:
            log.error("map_not_made", extra=kv(node=stream.node.name, reason=repr(error)), exc_info=error)
            stream.outlet.reset()

    def attach(self, stream: MapStream) -> None:
        """A node's new stream takes the place of its old one; its first message is sent, or it has no stream then."""
        node_id = stream.node.id
        old = self._streams.get(node_id)
        if old is not None:
            self.detach(old)
            old.end()
        self._refresh_access(force=False)
        self._streams[node_id] = stream
        self._arm(stream, keepalive_delay())
        try:
            stream.send_full()
        except BaseException:
            self.detach(stream)
            raise

    def detach(self, stream: MapStream) -> bool:
        """Forget a stream; False when another one has already taken its place."""
        node_id = stream.node.id
        if self._streams.get(node_id) is not stream:
            return False
        del self._streams[node_id]
        self._keepalives.pop(node_id).cancel()
        return True

    def close(self) -> None:
        """End every stream."""
        if self._scheduled is not None:
            self._scheduled.cancel()
        self._round = None
        for stream in list(self._streams.values()):
            self.detach(stream)
            stream.end()

    def _refresh_access(self, *, force: bool) -> None:
        if not self._access_stale:
            return
        self._access_stale = False
        if self.access.everyone and not force:
            return
        self.access = self._policy.access(self.network)
        self.builder.access_changed()
        for stream in self._streams.values():
            stream.access_changed()
        log.debug("access_refreshed", extra=kv(nodes=len(self.network.nodes)))

    def _arm(self, stream: MapStream, delay_s: float) -> None:
        self._keepalives[stream.node.id] = self._loop.call_later(delay_s, self._keep_alive, stream)

    def _keep_alive(self, stream: MapStream) -> None:
        due = stream.last_sent + keepalive_delay()
        now = self._loop.time()
        if due <= now + 1.0:
            stream.keep_alive()
            self._arm(stream, keepalive_delay())
        else:
            self._arm(stream, due - now)
