"""The clock of the machine."""

from __future__ import annotations

import time


class SystemClock:
    """Implements ``base.clock.Clock`` with CLOCK_MONOTONIC and the time of day."""

    __slots__ = ()

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()
