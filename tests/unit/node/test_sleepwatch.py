"""Time that passed unseen."""

from __future__ import annotations

from meshd.node.sleepwatch import INTERVAL_S, SleepWatch
from meshd.testing.clock import FakeClock
from meshd.testing.loop import FakeTimeLoop


def test_sleepwatch_tells_what_is_missing_of_the_time_of_day() -> None:
    clock = FakeClock()
    loop = FakeTimeLoop(clock)
    woke: list[float] = []
    watch = SleepWatch(loop, clock, woke.append)
    for step_s in (0.0, 3.0, -3600.0):  # nothing, a busy host, a clock that is set back
        clock.step_wall(step_s)
        loop.run_for(10 * INTERVAL_S)
    assert not woke
    clock.step_wall(100.0)
    loop.run_for(10 * INTERVAL_S)
    assert [round(seconds) for seconds in woke] == [100]
    watch.close()
    clock.step_wall(100.0)
    loop.run_for(10 * INTERVAL_S)
    assert len(woke) == 1
    loop.close()
