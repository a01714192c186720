"""Notices that this host slept, or that its hypervisor or an administrator held it or this process for a while.

What was open may have died meanwhile, and no event tells: NATs forget, servers and peers give up, leases end. Not
every clock stands still then, but the time of day goes on in every case, or is set right soon afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from meshd.base.clock import Clock

INTERVAL_S = 15.0
LATE_S = 0.5 * INTERVAL_S  # busy hosts are not that late


class SleepWatch:
    """Calls ``woke(seconds)`` after time passed that nobody here has seen. A clock set forward looks the same."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock, woke: Callable[[float], None]) -> None:
        self._loop = loop
        self._clock = clock
        self._woke = woke
        self._wait()

    def _wait(self) -> None:
        self._wall = self._clock.wall()
        self._timer = self._loop.call_later(INTERVAL_S, self._look)

    def _look(self) -> None:
        lost_s = self._clock.wall() - self._wall - INTERVAL_S
        self._wait()
        if lost_s >= LATE_S:
            self._woke(lost_s)

    def close(self) -> None:
        self._timer.cancel()
