"""Detailed logging of one part of the daemon for a while."""

from __future__ import annotations

import asyncio
import logging

from meshd.base.clock import Clock
from meshd.base.errors import MeshdError
from meshd.base.log import get_logger, kv
from meshd.node.store import Store

log = get_logger(__name__)

COMPONENTS = {
    "magicsock": ("meshd.node.magicsock", "meshd.node.peerpaths", "meshd.node.derp", "meshd.node.netprobe"),
    "sockstats": ("meshd.io",),
}
"""The loggers behind each name that clients know."""


class ComponentLog:
    """Raises loggers to debug level and lowers them when their time is over, across restarts too."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def restore(self) -> None:
        """Go on with what an earlier process was asked for."""
        if self._store.problem is not None:
            return
        for component in COMPONENTS:
            raw = self._store.read(_key(component)) or b""
            if raw.isdigit() and len(raw) < 13:
                self._arm(component, int(raw) - self._clock.wall())

    def enable(self, component: str, seconds: int) -> None:
        """Log that component in detail for so long; 0 or less ends it. MeshdError for a name it does not know."""
        if component not in COMPONENTS:
            raise MeshdError(f'unknown component "{component}"', code="invalid")
        until = int(self._clock.wall()) + seconds
        self._store.write(_key(component), str(until).encode() if seconds > 0 else None)
        self._arm(component, seconds)

    def is_on(self, component: str) -> bool:
        return component in self._timers

    def close(self) -> None:
        for component in list(self._timers):
            self._set(component, False)

    def _arm(self, component: str, seconds: float) -> None:
        self._set(component, seconds > 0)
        if seconds > 0:
            loop = asyncio.get_running_loop()
            self._timers[component] = loop.call_later(min(seconds, 30 * 86400.0), self._set, component, False)

    def _set(self, component: str, on: bool) -> None:
        timer = self._timers.pop(component, None)
        if timer is not None:
            timer.cancel()
        elif not on:
            return
        for name in COMPONENTS[component]:
            logging.getLogger(name).setLevel(logging.DEBUG if on else logging.NOTSET)
        log.info("component_logging", extra=kv(component=component, on=on))


def _key(component: str) -> str:
    return f"_debug_{component}_until"
