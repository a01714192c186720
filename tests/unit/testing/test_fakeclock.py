from __future__ import annotations

import asyncio

import pytest

from meshd.testing.clock import FakeClock
from meshd.testing.loop import FakeTimeLoop


def test_advance_runs_timers_in_order_at_their_times():
    clock = FakeClock(monotonic=10.0)
    seen = []
    clock.call_later(2, lambda: seen.append(clock.monotonic()))
    clock.call_later(1, lambda: clock.call_later(0.5, lambda: seen.append(clock.monotonic())))
    cancelled = clock.call_later(1, seen.append, "cancelled")
    cancelled.cancel()
    clock.advance(5)
    assert seen == [11.5, 12.0]
    assert clock.monotonic() == 15.0
    assert clock.next_timer() is None


def test_wall_steps_without_time_passing():
    clock = FakeClock(monotonic=0.0, wall=1000.0)
    clock.step_wall(-100)
    clock.advance(1)
    assert (clock.monotonic(), clock.wall()) == (1.0, 901.0)


def test_loop_jumps_to_what_is_due_and_runs_clock_timers_on_the_way():
    clock = FakeClock(monotonic=0.0)
    loop = FakeTimeLoop(clock)
    future = loop.create_future()
    clock.call_later(3600, future.set_result, "done")
    assert loop.run(asyncio.wait_for(future, 7200)) == "done"
    assert clock.monotonic() == 3600
    loop.run_for(10)
    assert clock.monotonic() == pytest.approx(3610)
    with pytest.raises(RuntimeError, match="never happen"):
        loop.run(loop.create_future())
    loop.close()
