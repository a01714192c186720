"""Services of the host are looked at only while somebody wants to know."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from meshd.node.portwatch import PortWatch
from meshd.testing.clock import FakeClock
from meshd.testing.loop import FakeTimeLoop
from meshd.wire.control import Service


class Host:
    def __init__(self) -> None:
        self.ports: list[tuple[int, str]] = [(22, "sshd")]
        self.looks = self.told = 0
        self.broken = False

    def read(self) -> list[tuple[int, str]]:
        self.looks += 1
        if self.broken:
            raise PermissionError("no")
        return self.ports

    def changed(self) -> None:
        self.told += 1


def simulate(test: Callable[[Host, PortWatch], Awaitable[None]]) -> None:
    loop = FakeTimeLoop(FakeClock())
    host = Host()
    try:
        loop.run(test(host, PortWatch(loop, host.read, host.changed)))
    finally:
        loop.close()


def test_portwatch_looks_every_second_while_wanted_and_tells_of_changes() -> None:
    """MI-01, PP-11."""

    async def test(host: Host, watch: PortWatch) -> None:
        await asyncio.sleep(10)
        assert host.looks == 0, "nobody asked"
        watch.set_wanted(True)
        watch.set_wanted(True)
        await asyncio.sleep(3.5)
        assert (host.looks, host.told) == (4, 1)
        assert watch.services == (Service(proto="tcp", port=22, description="sshd"),)
        host.ports = [(22, "sshd"), (80, "")]
        await asyncio.sleep(1)
        assert host.told == 2
        watch.set_wanted(False)
        assert (watch.services, host.told) == ((), 3)
        looks = host.looks
        await asyncio.sleep(10)
        assert host.looks == looks

    simulate(test)


def test_portwatch_gives_up_when_the_system_does_not_tell() -> None:
    """MI-01: stops on error."""

    async def test(host: Host, watch: PortWatch) -> None:
        host.broken = True
        for _ in range(3):
            watch.set_wanted(True)
            await asyncio.sleep(5)
        assert (host.looks, watch.services) == (1, ())

    simulate(test)


@pytest.mark.parametrize(("name", "value"), [("TS_DEBUG_DISABLE_PORTLIST", "true"), ("TS_PORTLIST", "0")])
def test_portwatch_environment_switches_it_off(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """MI-01: TS_DEBUG_DISABLE_PORTLIST."""
    monkeypatch.setenv(name, value)

    async def test(host: Host, watch: PortWatch) -> None:
        watch.set_wanted(True)
        await asyncio.sleep(5)
        assert host.looks == 0

    simulate(test)
