from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop
from msgspec.structs import replace

from meshd.coord.options import PublicAddress, ServeOptions
from meshd.coord.service import CoordService
from meshd.testing.controlmachine import ControlMachine, fetch_key

STEP_TIMEOUT_S = 20.0


class RunningCoord:
    """A server in this process, and machines that talk to it."""

    def __init__(self, service: CoordService) -> None:
        self.service = service
        self.join_key = service.join_key
        self.machines: list[ControlMachine] = []
        admin = service._admin
        assert admin is not None
        self.operations = admin._operations

    @property
    def port(self) -> int:
        return self.service.port

    async def admin(self, op: str, **args: object) -> object:
        return await self.operations[op](dict(args))

    async def machine(self, hostname: str = "machine", like: ControlMachine | None = None) -> ControlMachine:
        machine = ControlMachine(hostname)
        if like is not None:
            machine.machine, machine.node, machine.disco = like.machine, like.node, like.disco
        await machine.connect("127.0.0.1", self.port, await fetch_key("127.0.0.1", self.port))
        self.machines.append(machine)
        return machine

    async def joined(self, hostname: str = "machine") -> ControlMachine:
        machine = await self.machine(hostname)
        answer = await machine.register(self.join_key)
        assert not answer.error
        return machine


@pytest.fixture
def options(tmp_path: Path) -> ServeOptions:
    return ServeOptions(
        state_dir=tmp_path / "state",
        listen_host="127.0.0.1",
        listen_port=0,
        address=PublicAddress.parse("http://127.0.0.1:8080"),
        stun_port=0,
    )


@asynccontextmanager
async def running_coord(options: ServeOptions) -> AsyncIterator[RunningCoord]:
    service = CoordService(options)
    await service.start()
    coord = RunningCoord(service)
    try:
        yield coord
    finally:
        for machine in coord.machines:
            await machine.close()
        await service.close()


@pytest.fixture
def running() -> object:
    """`async with running(options) as coord:` for tests that start a server more than once."""
    return running_coord


Scenario = Callable[[RunningCoord], Awaitable[None]]
RunCoord = Callable[..., None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run_coord(request: pytest.FixtureRequest, options: ServeOptions) -> RunCoord:
    """Run a scenario against a fresh server; keyword arguments change its options."""

    def run(scenario: Scenario, **changes: object) -> None:
        async def whole() -> None:
            async with running_coord(replace(options, **changes)) as coord, asyncio.timeout(STEP_TIMEOUT_S):
                await scenario(coord)

        factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(whole())

    return run
