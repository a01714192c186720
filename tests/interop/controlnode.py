"""A control client on a real loop with everything it reported, for tests against running servers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import uvloop

from meshd.base.keys import DiscoPrivate, MachinePrivate
from meshd.core.controlstatus import ControlStatus, Persist
from meshd.io.systemclock import SystemClock
from meshd.node.control import ControlClient
from meshd.node.hostinfo import build_hostinfo


@dataclass
class ControlNode:
    """A control client and everything it reported."""

    url: str
    hostname: str
    auth_key: str = ""
    machine: MachinePrivate = field(default_factory=MachinePrivate.generate)
    persist: Persist = field(default_factory=Persist)
    reports: list[ControlStatus] = field(default_factory=list)

    def open(self) -> ControlClient:
        self.changed = asyncio.Event()
        self.client = ControlClient(
            server_url=self.url,
            machine_private=lambda: self.machine,
            persist=self.persist,
            hostinfo=build_hostinfo(self.hostname),
            disco_public=DiscoPrivate.generate().public(),
            clock=SystemClock(),
            on_status=self.note,
            auth_key=self.auth_key,
        )
        return self.client

    def note(self, status: ControlStatus) -> None:
        self.reports.append(status)
        if status.persist is not None:
            self.persist = status.persist
        self.changed.set()

    async def until(self, done: Callable[[ControlStatus], object], seconds: float = 15) -> ControlStatus:
        async with asyncio.timeout(seconds):
            seen = 0
            while True:
                for status in self.reports[seen:]:
                    seen += 1
                    if done(status):
                        return status
                self.changed.clear()
                await self.changed.wait()


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run on uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
