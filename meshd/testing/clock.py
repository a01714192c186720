"""A clock that tests move by hand."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Any


class FakeTimer:
    """A call that has been asked for; ``cancel`` it or let it happen."""

    __slots__ = ("_args", "_callback", "cancelled", "when")

    def __init__(self, when: float, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.when = when
        self.cancelled = False
        self._callback = callback
        self._args = args

    def cancel(self) -> None:
        self.cancelled = True

    def run(self) -> None:
        if not self.cancelled:
            self.cancelled = True
            self._callback(*self._args)


class FakeClock:
    """Implements ``base.clock.Clock``. Time stands still except in ``advance``, which runs due timers."""

    def __init__(self, monotonic: float = 1000.0, wall: float = 1_750_000_000.0) -> None:
        self._monotonic = monotonic
        self._wall_offset = wall - monotonic
        self._timers: list[tuple[float, int, FakeTimer]] = []
        self._order = count()

    def monotonic(self) -> float:
        return self._monotonic

    def wall(self) -> float:
        return self._monotonic + self._wall_offset

    def step_wall(self, seconds: float) -> None:
        """Set the wall clock forward or back without time passing."""
        self._wall_offset += seconds

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> FakeTimer:
        """Call back when ``monotonic()`` reaches ``when``; equal times run in the order asked for."""
        timer = FakeTimer(when, callback, args)
        heappush(self._timers, (when, next(self._order), timer))
        return timer

    def call_later(self, delay_s: float, callback: Callable[..., object], *args: Any) -> FakeTimer:
        return self.call_at(self._monotonic + delay_s, callback, *args)

    def next_timer(self) -> float | None:
        """When the earliest timer is due."""
        while self._timers and self._timers[0][2].cancelled:
            heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def advance(self, seconds: float) -> None:
        """Let time pass, stopping at every timer on the way."""
        self.advance_to(self._monotonic + seconds)

    def advance_to(self, when: float) -> None:
        while (due := self.next_timer()) is not None and due <= when:
            timer = heappop(self._timers)[2]
            self._monotonic = max(self._monotonic, due)
            timer.run()
        self._monotonic = max(self._monotonic, when)
