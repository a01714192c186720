"""The one shape in which sans-IO machines run on the event loop.

read -> input method of the machine -> execute what ``drain()`` hands out -> re-arm one timer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from meshd.base.clock import Clock

EffectT = TypeVar("EffectT")


class Machine(Protocol[EffectT]):
    """What every machine in ``meshd.core`` offers besides its inputs."""

    def drain(self) -> list[EffectT]: ...

    def next_timer(self) -> float | None: ...

    def handle_timer(self, now: float) -> None: ...


class Driver(Generic[EffectT]):
    """Runs one machine. Call an input method of the machine, then `turn`.

    ``execute`` gets every effect in order. It may call `turn` again (directly or through another input);
    effects that appear while effects are executed run after them, never in between.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        machine: Machine[EffectT],
        execute: Callable[[EffectT], None],
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._machine = machine
        self._execute = execute
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: float | None = None
        self._armed_for = 0.0
        self._turning = False
        self._closed = False

    def turn(self) -> None:
        """Execute what the machine has to say and re-arm its timer."""
        if self._turning or self._closed:
            return
        self._turning = True
        try:
            while effects := self._machine.drain():
                for effect in effects:
                    self._execute(effect)
        finally:
            self._turning = False
        self._arm()

    def close(self) -> None:
        """No effect is executed and no timer fires after this."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        deadline = None if self._closed else self._machine.next_timer()
        if self._timer is not None:
            if deadline is not None and self._armed_for <= deadline:  # most deadlines only move away
                self._deadline = deadline
                return
            self._timer.cancel()
            self._timer = None
        self._deadline = deadline
        if deadline is not None:
            delay = max(0.0, deadline - self._clock.monotonic())
            self._armed_for = deadline
            self._timer = self._loop.call_at(self._loop.time() + delay, self._fire)

    def _fire(self) -> None:
        self._timer = None
        if self._deadline is not None and self._armed_for < self._deadline:
            self._arm()
            return
        self._machine.handle_timer(self._clock.monotonic())
        self.turn()
