"""Rules are set beside the loop, one change at a time, the latest wins."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from meshd.core.firewall import NO_DIVERT, ON, FirewallConfig
from meshd.host.linux import firewallkeeper
from meshd.host.linux.firewallkeeper import FirewallKeeper
from meshd.host.linux.netfilter import Outcome
from tests.unit.threads import no_room_for_threads


class Netfilter:
    backend = "nft"

    def __init__(self) -> None:
        self.applied: list[tuple[FirewallConfig, Sequence[int]]] = []
        self.go = threading.Event()
        self.go.set()
        self.closed = False
        self.restored = False
        self.problems: list[str] = []

    def apply(self, config: FirewallConfig, ports: Sequence[int], attached: Any) -> Outcome:
        assert threading.current_thread() is not threading.main_thread()
        self.go.wait(5)
        self.applied.append((config, ports))
        problem = self.problems.pop() if self.problems else ""
        return Outcome(problem, mode="nft", restored=self.restored)

    def close(self) -> None:
        self.closed = True


class Monitor:
    def __init__(self, loop: asyncio.AbstractEventLoop, changed: Any) -> None:
        self.changed = changed
        self.listening = False

    def forget(self) -> None:
        pass

    def listen(self) -> None:
        self.listening = True

    def rest(self) -> None:
        self.listening = False

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def monitor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firewallkeeper, "RulesetMonitor", Monitor)
    monkeypatch.setattr(firewallkeeper, "SETTLE_S", 0.0)


def run(scenario: Any) -> Netfilter:
    netfilter = Netfilter()

    async def main() -> None:
        outcomes: asyncio.Queue[Outcome] = asyncio.Queue()
        keeper = FirewallKeeper(
            asyncio.get_running_loop(),
            netfilter,  # type: ignore[arg-type]
            lambda: [41641],
            list,
            outcomes.put_nowait,
        )
        try:
            await asyncio.wait_for(scenario(keeper, outcomes, netfilter), 10)
        finally:
            netfilter.go.set()
            keeper.close()

    asyncio.run(main())
    assert netfilter.closed
    return netfilter


def test_keeper_latest_wish_wins() -> None:
    async def scenario(keeper: Any, outcomes: Any, netfilter: Netfilter) -> None:
        netfilter.go.clear()
        for mode in (ON, NO_DIVERT, ON, NO_DIVERT):
            keeper.want(FirewallConfig(mode=mode))
        netfilter.go.set()
        await outcomes.get()

    assert [config.mode for config, _ in run(scenario).applied] == [ON, NO_DIVERT]


def test_keeper_same_wish_does_nothing() -> None:
    async def scenario(keeper: Any, outcomes: Any, netfilter: Netfilter) -> None:
        keeper.want(FirewallConfig())
        keeper.look()
        keeper.want(FirewallConfig(mode=ON))
        await outcomes.get()
        keeper.want(FirewallConfig(mode=ON))

    assert run(scenario).applied == [(FirewallConfig(mode=ON), [41641])]


def test_keeper_looks_after_a_change_by_others(caplog: pytest.LogCaptureFixture) -> None:
    """RT-12: said once for each time."""

    async def scenario(keeper: Any, outcomes: Any, netfilter: Netfilter) -> None:
        keeper.want(FirewallConfig(mode=ON))
        await outcomes.get()
        assert keeper._monitor.listening
        netfilter.restored = True
        keeper._monitor.changed()
        await outcomes.get()

    with caplog.at_level("WARNING", "meshd"):
        assert len(run(scenario).applied) == 2
    assert [record.message for record in caplog.records] == ["firewall_rules_restored"]


def test_keeper_polls_where_the_kernel_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(firewallkeeper, "RulesetMonitor", absent)
    monkeypatch.setattr(firewallkeeper, "POLL_S", 0.0)

    async def scenario(keeper: Any, outcomes: Any, netfilter: Netfilter) -> None:
        keeper.want(FirewallConfig(mode=ON))
        for _ in range(3):
            await outcomes.get()

    assert len(run(scenario).applied) >= 3


def test_keeper_tries_again_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """RT-12: another program may hold the lock of iptables for longer than we wait."""
    monkeypatch.setattr(firewallkeeper, "POLL_S", 0.0)

    async def scenario(keeper: Any, outcomes: Any, netfilter: Netfilter) -> None:
        netfilter.problems = ["packet filter rules could not be set"]
        keeper.want(FirewallConfig(mode=ON))
        assert (await outcomes.get()).problem
        assert not (await outcomes.get()).problem
        assert keeper._timer is None

    run(scenario)


def test_keeper_tries_again_where_a_thread_was_refused(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A container limits how many there are."""
    monkeypatch.setattr(firewallkeeper, "POLL_S", 0.0)

    async def scenario(keeper: Any, outcomes: Any, netfilter: Netfilter) -> None:
        with no_room_for_threads(monkeypatch):
            keeper.want(FirewallConfig(mode=ON))
            await asyncio.sleep(0.01)
        await outcomes.get()

    with caplog.at_level("WARNING", "meshd"):
        assert run(scenario).applied == [(FirewallConfig(mode=ON), [41641])]
    assert {record.message for record in caplog.records} == {"thread_refused"}


def test_keeper_takes_everything_back_where_a_thread_was_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(keeper: Any, outcomes: Any, netfilter: Netfilter) -> None:
        with no_room_for_threads(monkeypatch):
            keeper.want(FirewallConfig(mode=ON))
            keeper.close()
        assert netfilter.closed

    assert run(scenario).applied == []
