"""Keeps the list of services that this host offers up to date, for as long as the network wants to know."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence

from meshd.base.log import get_logger, kv
from meshd.wire.control import Service

log = get_logger(__name__)

INTERVAL_S = 1.0
SHARE = 200.0
"""The pause is at least this many times as long as the look before took: half a percent of one CPU at most."""


class PortWatch:
    """``read`` lists (port, program); ``changed`` is called when ``services`` is different. Nothing runs until wanted.

    A look that fails ends it: what the system does not tell now it will not tell later.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        read: Callable[[], Sequence[tuple[int, str]]],
        changed: Callable[[], None],
    ) -> None:
        self.services: tuple[Service, ...] = ()
        self._loop = loop
        self._read = read
        self._changed = changed
        self._timer: asyncio.TimerHandle | None = None
        self._refused = _is_set("TS_DEBUG_DISABLE_PORTLIST", "1", "true", "t") or _is_set(
            "TS_PORTLIST", "0", "false", "f"
        )

    def set_wanted(self, wanted: bool) -> None:
        """Begin to look, or stop and forget."""
        if not wanted:
            self.close()
            if self.services:
                self.services = ()
                self._changed()
        elif self._timer is None and not self._refused:
            self._timer = self._loop.call_later(0.0, self._look)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        began = time.perf_counter()
        try:
            found = self._read()
        except OSError as error:
            log.warning("services_not_listed", extra=kv(reason=error))
            self._refused, self._timer = True, None
            return
        pause = max(INTERVAL_S, SHARE * (time.perf_counter() - began))
        self._timer = self._loop.call_later(pause, self._look)
        services = tuple(Service(proto="tcp", port=port, description=program) for port, program in found)
        if services != self.services:
            self.services = services
            self._changed()


def _is_set(variable: str, *values: str) -> bool:
    return os.environ.get(variable, "").lower() in values
