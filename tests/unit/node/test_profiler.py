"""Profiles of this very process."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import types

import pytest

from meshd.base.errors import MeshdError
from meshd.node.profiler import CpuProfile, heap_profile
from meshd.node.stacks import stack_dump
from tests.unit.wire.test_pprof import read


def test_cpu_profile_names_who_works_and_not_who_waits() -> None:
    """api:pprof, DB: time is charged to the place that used it; a thread that sleeps costs nothing."""
    stop, profile = threading.Event(), CpuProfile()

    def busy_place() -> None:
        while not stop.is_set():
            sum(range(1000))

    def quiet_place() -> None:
        stop.wait()

    threads = [threading.Thread(target=target) for target in (busy_place, quiet_place)]
    for thread in threads:
        thread.start()
    profile.start()
    while sum(used for stack, used in list(profile._used.items()) if "busy_place" in str(stack)) < 100_000_000:
        stop.wait(0.01)
    stop.set()
    got = read(profile.finish())
    for thread in threads:
        thread.join()
    assert got["kinds"] == [("samples", "count"), ("cpu", "nanoseconds")]
    cost = {}
    for stack, (_, used) in got["samples"].items():
        for word in ("busy_place", "quiet_place"):
            if any(word in function for function, _, _ in stack):
                cost[word] = cost.get(word, 0) + used
    assert cost["busy_place"] >= 100_000_000
    assert cost.get("quiet_place", 0) < cost["busy_place"] / 10


def test_cpu_profile_leaves_the_interpreter_as_it_was() -> None:
    before = sys.getswitchinterval()
    profile = CpuProfile()
    profile.start()
    assert sys.getswitchinterval() < before
    profile.finish()
    assert sys.getswitchinterval() == before


def test_cpu_profile_is_refused_while_another_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two at once left the interpreter with short turns for ever."""
    before = sys.getswitchinterval()
    first, second = CpuProfile(), CpuProfile()
    first.start()
    with pytest.raises(MeshdError, match="already") as refused:
        second.start()
    assert refused.value.code == "conflict"
    first.finish()
    assert sys.getswitchinterval() == before
    without_thread = CpuProfile()

    def no_thread() -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(without_thread._thread, "start", no_thread)
    with pytest.raises(RuntimeError):
        without_thread.start()
    assert sys.getswitchinterval() == before
    second.start()
    second.finish()
    assert sys.getswitchinterval() == before


def test_heap_profile_leaves_freed_objects_alone() -> None:
    """asyncio keeps freed iterators of futures; before Python 3.12.6 a profile could have them freed twice."""

    async def wait_for_many() -> None:
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in range(50)]
        for future in futures:
            loop.call_soon(future.set_result, None)
        await asyncio.gather(*(asyncio.wait_for(future, 5) for future in futures))

    for _ in range(3):
        asyncio.run(wait_for_many())
        read(heap_profile())


def test_heap_profile_counts_objects_by_type() -> None:
    """api:pprof: types and sizes, never contents."""

    class Planted:
        def __init__(self) -> None:
            self.secret = "privkey:planted"

    kept = [Planted() for _ in range(1000)]
    got = read(heap_profile())
    found = {stack[0][0]: values for stack, values in got["samples"].items()}
    (name,) = (name for name in found if name.endswith("Planted"))
    assert found[name][0] == len(kept)
    assert found[name][1] >= 16 * len(kept)
    assert not any("privkey" in text for text in got["texts"])


def test_stack_dump_keeps_no_frame() -> None:
    async def main() -> None:
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            assert "test_stack_dump_keeps_no_frame" in stack_dump()
            gc.collect()
            assert not [found for found in gc.garbage if isinstance(found, types.FrameType)]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()

    asyncio.run(main())
