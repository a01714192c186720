"""The notify bus: what happens in the node, told to local programs that watch.

Every watcher has a bounded queue. One that falls behind is ended rather than served a stream with holes: what was
queued is dropped, a last notification says why, and it starts over with the initial state.

What takes long to make in a network of thousands is a `Later` in the notification, made when a reader takes it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Generator
from typing import Any

JSON = dict[str, Any]
SLICE = 256  # peers that are described in one go: a few milliseconds
WATCH_ENGINE = 1
RATE_LIMIT = 1 << 8
HEALTH_ACTIONS = 1 << 9
PEER_CHANGES = 1 << 12
PEER_PATCHES = 1 << 15
POLICY = 1 << 17

RATE_INTERVAL_S = 3.0
_SPAMMY = frozenset({"Engine", "NetMap"})  # what a watcher with RATE_LIMIT gets no more often than that

FELL_BEHIND = "IPN bus consumer fell behind; closing watch"  # clients know this text
QUEUE_LIMIT = 128  # notifications a reader may lag behind
MAX_WATCHERS = 1024  # as many as the LocalAPI has connections, so that no user's watchers push out another's


class Later:
    """A value that is made when somebody wants it, in slices between which everything else has its turn.

    ``work`` yields after each slice and returns the value. All who wait share it, so it must be
    a function of what stood when it was begun.
    """

    def __init__(self, work: Generator[None, None, Any]) -> None:
        self._work: Generator[None, None, Any] | None = work
        self._value: Any = None
        self._turn = asyncio.Lock()  # many who wait must not have a slice each before the others' turn

    @classmethod
    def of(cls, work: Generator[None, None, Any]) -> Any:
        """The value itself where the first slice is all of it."""
        try:
            next(work)
        except StopIteration as end:
            return end.value
        return cls(work)

    async def made(self) -> Any:
        async with self._turn:
            while self._work is not None:
                try:
                    next(self._work)
                except StopIteration as end:
                    self._work, self._value = None, end.value
                else:
                    await asyncio.sleep(0)
            return self._value


class Watcher(AsyncIterator[JSON]):
    """One reader's view of the bus. Ends on ``aclose``, when it lags too far, or with the bus."""

    def __init__(self, bus: NotifyBus, mask: int) -> None:
        self.mask = mask
        self._bus = bus
        self._queue: deque[JSON] = deque()
        self._wake = asyncio.Event()
        self._ended = False
        self._url = ""
        self._held: JSON | None = None
        self._timer: asyncio.TimerHandle | None = None

    def put(self, notify: JSON) -> None:
        """Queue a notification. A login URL that this reader was the last to be told is not told again."""
        if "Health" in notify and not self.mask & HEALTH_ACTIONS:
            notify = _with_actions_as_text(notify)
        url = notify.get("BrowseToURL")
        if url and url == self._url:
            notify = {name: value for name, value in notify.items() if name != "BrowseToURL"}
            if not notify:
                return
        elif url:
            self._url = str(url)
        if self.mask & RATE_LIMIT and notify.keys() <= _SPAMMY:
            if self._timer is not None:
                self._held = (self._held or {}) | notify
                return
            self._timer = asyncio.get_running_loop().call_later(RATE_INTERVAL_S, self._release)
        self._queue_up(notify)

    def _release(self) -> None:
        self._timer = None
        held, self._held = self._held, None
        if held is not None:
            self.put(held)

    def _queue_up(self, notify: JSON) -> None:
        if len(self._queue) >= QUEUE_LIMIT:
            self.end()
            self._queue.append({"ErrMessage": FELL_BEHIND})
        elif not self._ended:
            self._queue.append(notify)
            self._wake.set()

    def end(self) -> None:
        """No further notifications; what is queued is dropped."""
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        self._queue.clear()
        self._wake.set()
        self._bus.forget(self)

    def __aiter__(self) -> Watcher:
        return self

    async def __anext__(self) -> JSON:
        while not self._queue:
            if self._ended:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        notify = self._queue.popleft()
        if not any(isinstance(value, Later) for value in notify.values()):
            return notify
        return {k: await v.made() if isinstance(v, Later) else v for k, v in notify.items()}

    async def aclose(self) -> None:
        self.end()


def _with_actions_as_text(notify: JSON) -> JSON:
    """The notification for a reader who knows no actions of health messages: label and URL follow the text."""
    warnings: JSON = (notify["Health"] or {}).get("Warnings") or {}
    if not any("PrimaryAction" in warning for warning in warnings.values()):
        return notify
    plain: JSON = {}
    for code, warning in warnings.items():
        rest = dict(warning)
        action = rest.pop("PrimaryAction", None)
        if action:
            rest["Text"] = f"{rest.get('Text', '')} {action.get('Label')}: {action.get('URL')}"
        plain[code] = rest
    return notify | {"Health": notify["Health"] | {"Warnings": plain}}


class NotifyBus:
    """Hands each notification to every watcher, in order."""

    def __init__(self) -> None:
        self._watchers: set[Watcher] = set()

    def __len__(self) -> int:
        return len(self._watchers)

    def watch(self, mask: int) -> Watcher:
        """A new watcher; the oldest makes room beyond ``MAX_WATCHERS``."""
        watcher = Watcher(self, mask)
        if len(self._watchers) >= MAX_WATCHERS:
            next(iter(self._watchers)).end()
        self._watchers.add(watcher)
        return watcher

    def forget(self, watcher: Watcher) -> None:
        self._watchers.discard(watcher)

    def send(self, notify: JSON, bits: int = 0, *, without: int = 0) -> None:
        """To all watchers, or to those with one of ``bits`` (and none of ``without``) in their mask."""
        for watcher in tuple(self._watchers):
            if (not bits or watcher.mask & bits) and not watcher.mask & without:
                watcher.put(notify)

    def wants(self, bits: int, *, without: int = 0) -> bool:
        """Whether somebody asked for a kind of notification that costs something to make."""
        return any(watcher.mask & bits and not watcher.mask & without for watcher in self._watchers)

    def close(self) -> None:
        for watcher in tuple(self._watchers):
            watcher.end()
