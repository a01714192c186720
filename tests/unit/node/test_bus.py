"""The notify bus."""

from __future__ import annotations

import asyncio

from meshd.node.bus import MAX_WATCHERS, QUEUE_LIMIT, NotifyBus


async def collect(watcher: object, count: int) -> list[dict[str, int]]:
    return [await watcher.__anext__() for _ in range(count)]  # type: ignore[attr-defined]


def test_bus_watcher_gets_everything_in_order() -> None:
    async def run() -> None:
        bus = NotifyBus()
        watcher = bus.watch(0)
        for number in range(5):
            bus.send({"State": number})
        assert await collect(watcher, 5) == [{"State": n} for n in range(5)]

    asyncio.run(run())


def test_bus_slow_reader_is_ended_and_forgotten() -> None:
    async def run() -> None:
        bus = NotifyBus()
        slow, quick = bus.watch(0), bus.watch(0)
        for number in range(QUEUE_LIMIT + 1):
            bus.send({"State": number})
            await quick.__anext__()
        assert [n async for n in slow] == []
        assert len(bus) == 1

    asyncio.run(run())


def test_bus_too_many_watchers_do_not_grow_without_bound() -> None:
    async def run() -> None:
        bus = NotifyBus()
        for _ in range(MAX_WATCHERS + 10):
            bus.watch(1)
        assert len(bus) == MAX_WATCHERS
        assert bus.wants(1)
        assert not bus.wants(2)

    asyncio.run(run())


def test_bus_close_ends_waiting_readers() -> None:
    async def run() -> None:
        bus = NotifyBus()
        watcher = bus.watch(0)
        waiting = asyncio.ensure_future(collect(watcher, 1))
        await asyncio.sleep(0)
        bus.close()
        done, _ = await asyncio.wait([waiting], timeout=1)
        assert isinstance(waiting.exception(), (StopAsyncIteration, RuntimeError))
        assert done

    asyncio.run(run())
