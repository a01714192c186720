"""The notify bus."""

from __future__ import annotations

import asyncio

from meshd.node.bus import FELL_BEHIND, MAX_WATCHERS, QUEUE_LIMIT, NotifyBus


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
    """INV-1, NB-01: 128 notifications wait for a reader; one that lags further loses them and is told so."""

    async def run() -> None:
        bus = NotifyBus()
        slow, quick = bus.watch(0), bus.watch(0)
        for number in range(QUEUE_LIMIT + 1):
            bus.send({"State": number})
            await quick.__anext__()
        assert [n async for n in slow] == [{"ErrMessage": FELL_BEHIND}]
        assert len(bus) == 1

    asyncio.run(run())


def test_bus_login_url_is_told_once_a_session() -> None:
    """NB-03: what is shared between watchers is not changed on the way."""

    async def run() -> None:
        bus = NotifyBus()
        first = bus.watch(0)
        both = {"BrowseToURL": "https://a", "State": 2}
        bus.send(both)
        second = bus.watch(0)
        bus.send({"BrowseToURL": "https://a"})
        bus.send(both)
        bus.send({"BrowseToURL": "https://b"})
        bus.send({"BrowseToURL": "https://a"})
        last = [{"BrowseToURL": "https://b"}, {"BrowseToURL": "https://a"}]
        assert await collect(first, 4) == [{"BrowseToURL": "https://a", "State": 2}, {"State": 2}, *last]
        assert await collect(second, 4) == [{"BrowseToURL": "https://a"}, {"State": 2}, *last]

    asyncio.run(run())


def test_bus_health_actions_are_text_to_those_who_do_not_know_them() -> None:
    """watch:HealthActions, notify:Health: with the bit an action is an object, without it label and URL follow the
    text; what is shared between readers is not changed."""

    async def run() -> None:
        bus = NotifyBus()
        knows, other = bus.watch(1 << 9), bus.watch(0)
        action = {"URL": "https://x", "Label": "Fix it"}
        warnings = {"a": {"Text": "broken.", "PrimaryAction": action}, "b": {"Text": "odd."}}
        notify = {"Health": {"Warnings": warnings}}
        bus.send(notify)
        assert await collect(knows, 1) == [notify]
        (told,) = await collect(other, 1)
        assert told == {"Health": {"Warnings": {"a": {"Text": "broken. Fix it: https://x"}, "b": {"Text": "odd."}}}}
        assert warnings["a"]["PrimaryAction"] is action
        bus.send({"Health": {"Warnings": {}}})
        assert await collect(other, 1) == [{"Health": {"Warnings": {}}}]

    asyncio.run(run())


def test_bus_ended_watcher_takes_nothing_more() -> None:
    """NB-01: closing the reader's side forgets it at once."""

    async def run() -> None:
        bus = NotifyBus()
        watcher = bus.watch(0)
        bus.send({"State": 1})
        await watcher.aclose()
        watcher.put({"State": 2})
        assert len(bus) == 0
        assert [n async for n in watcher] == []

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
