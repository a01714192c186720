"""Keeping the NAT's mapping of our UDP port alive, and known, while there is traffic."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

MIN_S, SPREAD_S = 20.0, 6.0


class Restun:
    """Runs a network check again and again: ``arm`` after each one and with the first traffic, ``cancel`` when idle."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, random: Callable[[int], bytes], check: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._random = random
        self._check = check
        self._timer: asyncio.TimerHandle | None = None

    @property
    def armed(self) -> bool:
        return self._timer is not None

    def arm(self) -> None:
        """Check in 20 to 26 s, spread so that nodes behind one NAT do not ask together."""
        if self._timer is None:
            spread = int.from_bytes(self._random(2), "big") / 65536 * SPREAD_S
            self._timer = self._loop.call_later(MIN_S + spread, self._due)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _due(self) -> None:
        self._timer = None
        self._check()
