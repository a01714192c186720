"""The health of the running node: clocks, timers, and when a look is taken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from meshd.core.healthcheck import HealthView, RelayView
from meshd.node.health import NodeHealth
from meshd.testing.clock import FakeClock
from meshd.testing.loop import FakeTimeLoop


def simulate(test: Callable[[FakeClock, NodeHealth, HealthView, list[float]], object]) -> list[float]:
    """Runs ``test`` in simulated time; returns when watchers were told."""
    clock = FakeClock()
    loop = FakeTimeLoop(clock)
    told: list[float] = []

    async def body() -> None:
        view = HealthView()
        health = NodeHealth(clock, lambda: told.append(clock.monotonic()), lambda: view)
        result = test(clock, health, view, told)
        if asyncio.iscoroutine(result):
            await result
        health.close()

    try:
        loop.run(body())
    finally:
        loop.close()
    return told


def test_node_health_delayed_problem_is_told_when_due() -> None:
    """HE-02: each change is told once, at the time when it shows."""

    async def test(clock: FakeClock, health: NodeHealth, view: HealthView, told: list[float]) -> None:
        start = clock.monotonic()
        view.want_running, view.relays = True, RelayView(network_up=False)
        health.look()
        assert told == [start], "warming up"
        await asyncio.sleep(20)
        assert told == [start, start + 5.0, start + 5.0], "the network shows as down, and warming up is over"
        assert list(health.warnings()) == ["network-status"]
        view.relays = RelayView(network_up=True)
        health.look()
        assert health.warnings() == {}

    simulate(test)


def test_node_health_map_stream_that_ends_shows_after_eight_minutes_by_itself() -> None:
    """HE-01: nothing has to happen for it."""

    async def test(clock: FakeClock, health: NodeHealth, view: HealthView, told: list[float]) -> None:
        view.want_running = view.running = view.polls = view.in_map_poll = True
        view.relays = RelayView(home=1, connected=True, heard_at=1e9)
        health.look()
        view.in_map_poll = False
        health.look()
        await asyncio.sleep(480)
        assert health.texts() == []
        await asyncio.sleep(12)
        assert len(health.texts()) == 1
        assert health.is_broken("not-in-map-poll")
        view.in_map_poll, view.map_heard_at = True, clock.monotonic()
        health.look()
        assert health.texts() == []

    simulate(test)


def test_node_health_stopped_node_sets_no_timer() -> None:
    """A node that is off costs nothing: the simulation would fail if it waited for a timer that never comes."""

    async def test(clock: FakeClock, health: NodeHealth, view: HealthView, told: list[float]) -> None:
        health.look()
        assert health.texts() == ["Tailscale is stopped."]
        assert not [t for t in asyncio.get_running_loop()._scheduled if not t.cancelled()]  # type: ignore[attr-defined]

    simulate(test)


def test_node_health_text_goes_where_the_problem_has_its_words() -> None:
    """The router's problems have another argument than the others."""

    def test(clock: FakeClock, health: NodeHealth, view: HealthView, told: list[float]) -> None:
        health.set("router", "no route")
        health.set("firewall", "no rule")
        assert health.texts() == ["no route", "no rule"]
        assert [w["Args"] for w in health.warnings().values()] == [{"LegacyError": "no route"}, {"error": "no rule"}]
        health.set("router", None)
        health.set("firewall", "")
        assert health.texts() == []

    assert len(simulate(test)) == 4


def test_node_health_fake_error_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """HE-01: TS_DEBUG_FAKE_HEALTH_ERROR."""
    monkeypatch.setenv("TS_DEBUG_FAKE_HEALTH_ERROR", "ouch")

    def test(clock: FakeClock, health: NodeHealth, view: HealthView, told: list[float]) -> None:
        view.want_running = view.running = view.in_map_poll = True
        view.relays = RelayView(home=1, connected=True, heard_at=clock.monotonic())
        health.look()
        assert health.texts() == ["ouch"]

    simulate(test)
