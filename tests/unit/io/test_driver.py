"""The driver runs effects in order and keeps one timer."""

from __future__ import annotations

import asyncio

from meshd.io.driver import Driver
from meshd.io.systemclock import SystemClock


class Machine:
    def __init__(self) -> None:
        self.outbox: list[str] = []
        self.deadline: float | None = None
        self.fired = 0

    def drain(self) -> list[str]:
        effects, self.outbox = self.outbox, []
        return effects

    def next_timer(self) -> float | None:
        return self.deadline

    def handle_timer(self, now: float) -> None:
        self.fired += 1
        self.deadline = None
        self.outbox.append("timer")


def test_driver_effects_of_effects_come_after() -> None:
    """INV-1."""

    async def main() -> None:
        machine = Machine()
        seen: list[str] = []

        def execute(effect: str) -> None:
            seen.append(effect)
            if effect == "a":
                machine.outbox.append("c")
                driver.turn()

        driver = Driver(asyncio.get_running_loop(), SystemClock(), machine, execute)
        machine.outbox = ["a", "b"]
        driver.turn()
        assert seen == ["a", "b", "c"]
        driver.close()

    asyncio.run(main())


def test_driver_fires_the_timer_once_and_not_after_close() -> None:
    async def main() -> None:
        machine, fired = Machine(), asyncio.Event()
        driver = Driver(asyncio.get_running_loop(), SystemClock(), machine, lambda _: fired.set())
        machine.deadline = SystemClock().monotonic()
        driver.turn()
        await fired.wait()
        assert machine.fired == 1
        machine.deadline = SystemClock().monotonic()
        driver.turn()
        driver.close()
        machine.outbox = ["late"]
        driver.turn()
        await asyncio.sleep(0)
        assert machine.outbox == ["late"]
        assert machine.fired == 1

    asyncio.run(main())
