"""An asyncio loop whose time is a ``FakeClock``: it never waits, it jumps to what is due next."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

from meshd.testing.clock import FakeClock


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        now = self._clock.monotonic()
        timer = self._clock.next_timer()
        if timeout is None and timer is None:
            raise RuntimeError("the simulation waits for something that will never happen")
        target = now + timeout if timeout is not None else timer
        assert target is not None
        self._clock.advance_to(min(target, timer) if timer is not None else target)
        return super().select(0)


class FakeTimeLoop(asyncio.SelectorEventLoop):
    """Runs coroutines, readers and timers as asyncio does, in simulated time.

    Raises RuntimeError instead of blocking when nothing is scheduled any more.
    """

    def __init__(self, clock: FakeClock) -> None:
        self._fake_clock = clock
        super().__init__(_JumpingSelector(clock))

    def time(self) -> float:
        return self._fake_clock.monotonic()

    def run_for(self, seconds: float) -> None:
        """Run until simulated time has moved on by ``seconds``."""
        self.run_until_complete(asyncio.sleep(seconds))

    def run(self, awaitable: Any) -> Any:
        """``run_until_complete`` under a shorter name."""
        return self.run_until_complete(awaitable)
