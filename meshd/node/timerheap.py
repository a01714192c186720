"""Many deadlines behind one timer of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from heapq import heappop, heappush
from itertools import count
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT", bound=Hashable)


class TimerHeap(Generic[ItemT]):
    """Calls ``fire(item)`` at or after each item's earliest armed deadline, then forgets that deadline.

    Deadlines only move forward in time by firing early and being armed again: an item has one live entry,
    so that memory is bounded by the number of items however often they are armed.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, monotonic: Callable[[], float], fire: Callable[[ItemT], None]
    ) -> None:
        self._loop = loop
        self._monotonic = monotonic
        self._fire = fire
        self._heap: list[tuple[float, int, ItemT]] = []
        self._armed: dict[ItemT, float] = {}
        self._order = count()
        self._handle: asyncio.TimerHandle | None = None
        self._handle_when = float("inf")

    def arm(self, item: ItemT, deadline: float) -> None:
        """Make sure that ``item`` fires no later than ``deadline`` (monotonic seconds)."""
        armed = self._armed.get(item)
        if armed is not None and armed <= deadline:
            return
        self._armed[item] = deadline
        heappush(self._heap, (deadline, next(self._order), item))
        self._schedule()

    def disarm(self, item: ItemT) -> None:
        """``item`` does not fire any more."""
        self._armed.pop(item, None)

    def close(self) -> None:
        """Nothing fires any more."""
        self._armed.clear()
        self._heap.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def __len__(self) -> int:
        return len(self._armed)

    def _schedule(self) -> None:
        while self._heap and self._armed.get(self._heap[0][2]) != self._heap[0][0]:
            heappop(self._heap)
        if not self._heap:
            return
        when = self._heap[0][0]
        if self._handle is not None:
            if self._handle_when <= when:
                return
            self._handle.cancel()
        self._handle_when = when
        self._handle = self._loop.call_later(max(0.0, when - self._monotonic()), self._run)

    def _run(self) -> None:
        self._handle = None
        now = self._monotonic()
        try:
            while self._heap and self._heap[0][0] <= now:
                deadline, _, item = heappop(self._heap)
                if self._armed.get(item) == deadline:
                    del self._armed[item]
                    self._fire(item)
        finally:
            self._schedule()  # also after a fault: the timers of all others must not stop for it
