from __future__ import annotations

import random

import pytest

from meshd.node.timerheap import TimerHeap
from meshd.testing.clock import FakeClock
from meshd.testing.loop import FakeTimeLoop


@pytest.fixture
def loop():
    loop = FakeTimeLoop(FakeClock(monotonic=0.0))
    yield loop
    loop.close()


@pytest.fixture
def fired(loop):
    return []


@pytest.fixture
def heap(loop, fired):
    return TimerHeap(loop, loop.time, lambda item: fired.append((round(loop.time(), 6), item)))


def test_items_fire_in_order_of_their_deadlines(loop, heap, fired):
    for item, deadline in (("c", 3.0), ("a", 1.0), ("b", 2.0)):
        heap.arm(item, deadline)
    loop.run_for(5)
    assert fired == [(1.0, "a"), (2.0, "b"), (3.0, "c")]
    assert len(heap) == 0


def test_arm_later_than_armed_changes_nothing_earlier_moves_it(loop, heap, fired):
    heap.arm("a", 2.0)
    heap.arm("a", 3.0)
    heap.arm("a", 1.0)
    loop.run_for(5)
    assert fired == [(1.0, "a")]


def test_disarmed_item_does_not_fire_and_can_be_armed_again(loop, heap, fired):
    heap.arm("a", 1.0)
    heap.disarm("a")
    heap.disarm("never armed")
    heap.arm("a", 2.0)
    loop.run_for(5)
    assert fired == [(2.0, "a")]


def test_item_may_arm_itself_while_firing(loop):
    times = []

    def fire(item):
        times.append(round(loop.time(), 6))
        if len(times) < 4:
            heap.arm(item, loop.time() + 0.5)

    heap = TimerHeap(loop, loop.time, fire)
    heap.arm("a", 1.0)
    loop.run_for(10)
    assert times == [1.0, 1.5, 2.0, 2.5]


def test_close_stops_everything(loop, heap, fired):
    heap.arm("a", 1.0)
    heap.close()
    loop.run_for(5)
    assert fired == []


def test_every_item_fires_at_its_earliest_deadline_for_any_sequence(loop, heap, fired):
    rng = random.Random(4)
    wanted = {}
    for _ in range(500):
        item, deadline = rng.randrange(40), rng.random() * 100
        heap.arm(item, deadline)
        wanted[item] = min(deadline, wanted.get(item, deadline))
    loop.run_for(101)
    assert {item: when for when, item in fired} == pytest.approx(wanted, abs=1e-6)
    assert len(fired) == len(wanted)


def test_fault_of_one_item_does_not_stop_the_others(loop):
    fired, faults = [], []

    def fire(item):
        if item == "bad":
            raise RuntimeError(item)
        fired.append(item)

    loop.set_exception_handler(lambda _, context: faults.append(context["exception"]))
    heap = TimerHeap(loop, loop.time, fire)
    for item, deadline in (("bad", 1.0), ("same time", 1.0), ("later", 2.0)):
        heap.arm(item, deadline)
    loop.run_for(5)
    assert fired == ["same time", "later"]
    assert len(faults) == 1
