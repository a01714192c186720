"""The host's resolver is set beside the event loop, kept, and given back."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from meshd.base.errors import MeshdError
from meshd.base.ranges import SERVICE_V4
from meshd.core.dnscompile import OSConfig, ResolverConfig
from meshd.core.dnsplan import DNSPlan
from meshd.core.dnsway import Facts, Way
from meshd.host.linux import dnskeeper
from meshd.host.linux.dnsdirect import DirectDNS, look
from meshd.host.linux.dnskeeper import DnsKeeper, Outcome
from meshd.host.linux.inotify import FileWatch
from meshd.host.linux.journal import Journal
from meshd.wire.control import Resolver
from tests.unit.threads import no_room_for_threads

MESH = DNSPlan(routes={"mesh.test": ()}, search=("mesh.test",), accepted=True)
OTHER = DNSPlan(routes={"mesh.test": (), "corp.test": (Resolver(addr="10.0.0.9"),)}, accepted=True)
RESOLVED_FILE = b"# by systemd-resolved\nnameserver 127.0.0.53\n"


class World:
    """A host with a resolv.conf, and what the keeper told."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "resolv.conf"
        self.path.write_bytes(b"nameserver 192.168.1.1\n")
        self.journal = Journal(folder / "journal.json")
        self.outcomes: list[Outcome] = []
        self.configs: list[ResolverConfig] = []
        self.opened: list[Way] = []
        self.facts: dict[str, Any] = {}
        self.problem = ""
        self.other: Any = None
        self.keeper = DnsKeeper(
            asyncio.get_running_loop(), self.open, self.configs.append, self.outcomes.append, self.look,
            lambda: self.problem,
        )  # fmt: skip

    def open(self, way: Way) -> Any:
        self.opened.append(way)
        return DirectDNS(self.journal, self.path) if way is Way.DIRECT else self.other

    def look(self) -> Facts:
        return Facts(resolv_conf=look(self.path).data, **self.facts)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    async def want(self, plan: DNSPlan) -> Outcome:
        self.outcomes.clear()
        self.keeper.want(plan, ())
        await self.until(lambda: self.outcomes)
        return self.outcomes[-1]


@contextlib.asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[World]:
    world = World(folder)
    try:
        yield world
    finally:
        world.keeper.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dnskeeper, "SETTLE_S", 0.01)


def run(test: Callable[[World], Any], folder: Path) -> None:
    async def whole() -> None:
        async with opened(folder) as world:
            await test(world)

    asyncio.run(whole())


def test_want_points_the_host_at_us_and_close_gives_it_back(tmp_path: Path) -> None:
    """DN-11: our resolver knows whom to ask before anybody asks it."""

    async def test(world: World) -> None:
        outcome = await world.want(MESH)
        assert outcome.way == "direct"
        assert outcome.base == OSConfig((ip_address("192.168.1.1"),))
        assert outcome.applied == OSConfig((SERVICE_V4,), ("mesh.test",))
        assert world.configs[-1].routes == {"": (Resolver(addr="192.168.1.1"),)}
        assert b"nameserver 100.100.100.100\n" in world.path.read_bytes()
        assert world.journal.dns is not None

    run(test, tmp_path)
    assert (tmp_path / "resolv.conf").read_bytes() == b"nameserver 192.168.1.1\n"
    assert Journal(tmp_path / "journal.json").dns is None


def test_empty_plan_touches_nothing(tmp_path: Path) -> None:
    """DN-02: without configuration nobody even looks at the host."""

    async def test(world: World) -> None:
        world.keeper.want(DNSPlan(), ())
        world.keeper.look()
        await asyncio.sleep(0)
        assert (world.opened, world.outcomes) == ([], [])
        await world.want(MESH)
        outcome = await world.want(DNSPlan())
        assert outcome == Outcome()
        assert world.configs[-1] == ResolverConfig()
        assert world.path.read_bytes() == b"nameserver 192.168.1.1\n"

    run(test, tmp_path)


def test_same_again_writes_nothing(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        await world.want(MESH)
        inode = world.path.stat().st_ino
        world.keeper.want(MESH, ())
        world.outcomes.clear()
        world.keeper.look()
        await world.until(lambda: world.outcomes)
        assert world.path.stat().st_ino == inode
        await world.want(OTHER)
        assert world.path.stat().st_ino != inode

    run(test, tmp_path)


def test_overwritten_is_told_taken_back_and_its_resolvers_used(tmp_path: Path) -> None:
    """DN-11: trampling; section 9: resolv-conf-overwritten."""

    async def test(world: World) -> None:
        await world.want(MESH)
        world.outcomes.clear()
        world.path.write_bytes(b"nameserver 172.16.0.1\n")  # as a DHCP client after a change of networks
        await world.until(lambda: world.outcomes and world.outcomes[-1].overwritten)
        assert b"nameserver 100.100.100.100\n" in world.path.read_bytes()
        assert world.configs[-1].routes == {"": (Resolver(addr="172.16.0.1"),)}
        assert world.outcomes[-1].base == OSConfig((ip_address("172.16.0.1"),))

    run(test, tmp_path)
    assert (tmp_path / "resolv.conf").read_bytes() == b"nameserver 172.16.0.1\n"


def test_overwritten_is_noticed_where_the_kernel_has_no_watch_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``fs.inotify.max_user_watches`` is shared by all of root's programs: then we look from time to time."""
    genuine = FileWatch._call

    def call(self: FileWatch, function: Any, *arguments: Any) -> int:
        if len(arguments) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return genuine(self, function, *arguments)

    monkeypatch.setattr(FileWatch, "_call", call)
    monkeypatch.setattr(dnskeeper, "POLL_S", 0.01)

    async def test(world: World) -> None:
        await world.want(MESH)
        world.path.unlink()
        world.path.write_bytes(b"nameserver 172.16.0.1\n")
        await world.until(lambda: b"100.100.100.100" in world.path.read_bytes())

    run(test, tmp_path)


def test_two_that_overwrite_each_other_do_so_ever_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No fight: each time the pause doubles, up to a minute, until there was peace."""
    pauses: list[float] = []

    async def test(world: World) -> None:
        loop = asyncio.get_running_loop()
        genuine = loop.call_later

        def call_later(delay: float, callback: Any, *arguments: Any) -> asyncio.TimerHandle:
            if callback == world.keeper._work:
                pauses.append(delay)
                delay = 0
            return genuine(delay, callback, *arguments)

        monkeypatch.setattr(loop, "call_later", call_later)
        await world.want(MESH)
        for number in range(4):
            world.outcomes.clear()
            world.path.unlink()
            world.path.write_bytes(f"nameserver 172.16.0.{number}\n".encode())
            address = ip_address(f"172.16.0.{number}")
            await world.until(
                lambda a=address: (
                    world.outcomes
                    and world.outcomes[-1].base == OSConfig((a,))
                    and world.keeper._timer is None
                    and world.keeper._thread is None
                    and b"100.100.100.100" in world.path.read_bytes()
                )
            )
        assert max(pauses) >= 0.08
        world.keeper._calmed()
        assert not world.outcomes[-1].overwritten
        assert world.keeper._settle == dnskeeper.SETTLE_S

    run(test, tmp_path)


def test_another_program_in_charge_is_noticed(tmp_path: Path) -> None:
    """systemd-resolved started after us: its file is not fought over, it is asked."""

    class Other:
        can_split = True
        watched = ()
        applied: list[OSConfig] = []

        def base(self) -> OSConfig:
            return OSConfig()

        def apply(self, config: OSConfig) -> None:
            self.applied.append(config)

        def lost(self) -> bool:
            return False

        def close(self) -> None:
            self.applied.append(OSConfig())

    async def test(world: World) -> None:
        world.other = Other()
        await world.want(MESH)
        world.facts["resolved_up"] = True
        world.outcomes.clear()
        world.path.write_bytes(RESOLVED_FILE)
        await world.until(lambda: world.outcomes and world.outcomes[-1].way == "systemd-resolved")
        assert world.other.applied == [OSConfig((SERVICE_V4,), ("mesh.test",), ("mesh.test",))]
        assert world.path.read_bytes() == RESOLVED_FILE
        assert not world.outcomes[-1].overwritten

    run(test, tmp_path)
    assert Other.applied[-1] == OSConfig()


def test_forbidden_namespace_changes_nothing_and_says_so(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        world.problem = "not ours"
        outcome = await world.want(MESH)
        assert outcome.set_problem == "not ours"
        assert world.opened == []

    run(test, tmp_path)


def test_forbidden_namespace_without_a_file_still_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> OSConfig:
        raise MeshdError("cannot read /etc/resolv.conf")

    monkeypatch.setattr(dnskeeper, "host_resolvers", none)

    async def test(world: World) -> None:
        world.problem = "not ours"
        outcome = await world.want(MESH)
        assert outcome.set_problem == "not ours"
        assert world.configs[-1].local_domains == ("mesh.test",)

    run(test, tmp_path)


def test_unreadable_host_is_told_and_changes_nothing(tmp_path: Path) -> None:
    """DN-11: (6), without base configuration the operating system is left alone."""

    async def test(world: World) -> None:
        world.path.unlink()
        world.path.mkdir()
        outcome = await world.want(MESH)
        assert "is no file" in outcome.set_problem
        world.path.rmdir()
        world.path.write_bytes(b"nameserver 10.0.0.1\n")
        outcome = await world.want(OTHER)
        assert (outcome.set_problem, outcome.read_problem) == ("", "")

    run(test, tmp_path)


def test_base_unreadable_is_a_read_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Section 9: dns-read-os-config-failed."""

    def unreadable(_: DirectDNS) -> OSConfig:
        raise MeshdError("cannot read it")

    async def test(world: World) -> None:
        monkeypatch.setattr(DirectDNS, "base", unreadable)
        outcome = await world.want(MESH)
        assert outcome.read_problem == "cannot read it"
        assert world.path.read_bytes() == b"nameserver 192.168.1.1\n"

    run(test, tmp_path)


def test_write_refused_is_told_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Section 9: dns-set-os-config-failed. A read-only /etc leaves everything but names working."""
    genuine = DirectDNS.apply

    def refused(_: DirectDNS, config: OSConfig) -> None:
        raise MeshdError("cannot write /etc/resolv.conf: Read-only file system", hint="Do something.")

    async def test(world: World) -> None:
        monkeypatch.setattr(DirectDNS, "apply", refused)
        outcome = await world.want(MESH)
        assert outcome.set_problem == "cannot write /etc/resolv.conf: Read-only file system\nDo something."
        monkeypatch.setattr(DirectDNS, "apply", genuine)
        world.outcomes.clear()
        world.keeper.look()
        await world.until(lambda: world.outcomes)
        assert world.outcomes[-1].set_problem == ""
        assert b"100.100.100.100" in world.path.read_bytes()

    run(test, tmp_path)


def test_bug_in_a_way_does_not_end_the_care(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(world: World) -> None:
        monkeypatch.setattr(world, "open", lambda _: 1 / 0)
        world.keeper._open_way = world.open
        outcome = await world.want(MESH)
        assert "internal error" in outcome.set_problem
        world.keeper._open_way = lambda _: DirectDNS(world.journal, world.path)
        assert (await world.want(OTHER)).set_problem == ""

    run(test, tmp_path)


def test_giving_back_that_fails_is_told_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that still points at a node that is down must not be forgotten."""
    genuine = DirectDNS.close

    def refused(_: DirectDNS) -> None:
        raise MeshdError("cannot write /etc/resolv.conf: Read-only file system")

    async def test(world: World) -> None:
        await world.want(MESH)
        monkeypatch.setattr(DirectDNS, "close", refused)
        outcome = await world.want(DNSPlan())
        assert "Read-only" in outcome.set_problem
        monkeypatch.setattr(DirectDNS, "close", genuine)
        world.outcomes.clear()
        world.keeper.look()
        await world.until(lambda: world.outcomes)
        assert world.outcomes[-1] == Outcome()
        assert world.path.read_bytes() == b"nameserver 192.168.1.1\n"

    run(test, tmp_path)


def test_silent_program_in_charge_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While systemd-resolved is started anew nobody else takes its file over."""
    monkeypatch.setattr(dnskeeper, "POLL_S", 0.01)

    class Restarting:
        can_split = True
        watched = ()
        silent = False
        tries = 0

        def base(self) -> OSConfig:
            return OSConfig()

        def apply(self, config: OSConfig) -> None:
            self.tries += 1
            if self.silent:
                raise MeshdError("it is not there")

        def lost(self) -> bool:
            return self.silent

        def close(self) -> None:
            pass

    async def test(world: World) -> None:
        world.other = other = Restarting()
        world.path.write_bytes(RESOLVED_FILE)
        world.facts["resolved_up"] = True
        await world.want(MESH)
        world.facts["resolved_up"] = False
        other.silent = True
        world.keeper.look()
        await world.until(lambda: world.outcomes[-1].set_problem and other.tries > 3)
        assert world.opened == [Way.RESOLVED]
        other.silent = False
        await world.until(lambda: not world.outcomes[-1].set_problem)
        assert world.path.read_bytes() == RESOLVED_FILE

    run(test, tmp_path)


def test_thread_that_is_refused_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A container limits how many there are."""
    monkeypatch.setattr(dnskeeper, "POLL_S", 0.01)

    async def test(world: World) -> None:
        await world.want(MESH)
        world.outcomes.clear()
        with no_room_for_threads(monkeypatch):
            world.keeper.want(OTHER, ())
            await world.until(lambda: len(caplog.records) > 1)
        await world.until(lambda: world.outcomes)
        assert world.outcomes[-1].applied == OSConfig((SERVICE_V4,))
        assert {record.message for record in caplog.records} == {"thread_refused"}

    with caplog.at_level("WARNING", "meshd"):
        run(test, tmp_path)


def test_close_gives_back_where_a_thread_was_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(world: World) -> None:
        await world.want(MESH)
        with no_room_for_threads(monkeypatch):
            world.keeper.want(OTHER, ())
            world.keeper.close()
        assert world.path.read_bytes() == b"nameserver 192.168.1.1\n"

    run(test, tmp_path)
