"""The backend and the network map of before: what a node does until its server answers."""

from __future__ import annotations

from typing import Any

import pytest

from meshd.base.errors import MeshdError
from meshd.base.keys import DiscoPrivate
from meshd.core.mapchange import MapChange
from meshd.core.state import State
from meshd.node.store import MemoryStore
from tests.unit.node.backendworld import KEY, CacheDouble, Fixture, log_in, netmap, run, take_down


def logged_in_store() -> MemoryStore:
    store = MemoryStore()

    async def join(made: Fixture) -> None:
        made.backend.begin()
        made.backend.start({"UpdatePrefs": {"WantRunning": True}})
        log_in(made)

    run(join, store)
    store.ephemeral = False
    return store


def test_backend_with_cached_netmap_runs_before_the_server_answers() -> None:
    """SM-02: the peers may well be there, whatever became of the server."""
    cache = CacheDouble()

    async def test(made: Fixture) -> None:
        made.backend.begin()
        assert made.backend.state is State.RUNNING
        assert made.control.calls.index("recall") < made.control.calls.index("login <LoginFlags.DEFAULT: 0>")
        assert "apply" in made.reconciler.calls
        assert "keep" not in cache.calls
        made.control.report(
            recalled=True, netmap=made.backend.netmap, error=MeshdError("no route", code="control-dial")
        )
        assert made.backend.state is State.RUNNING
        assert "no route" in made.backend.health.texts()
        fresh = netmap(KEY)
        made.control.report(logged_in=True, login_finished=True, recalled=True, netmap=made.backend.netmap)
        made.control.report(logged_in=True, in_map_poll=True, netmap=fresh, change=MapChange(full=True))
        assert made.backend.netmap is fresh
        assert cache.calls == ["load", "keep"]
        assert made.backend.health.texts() == []

    run(test, logged_in_store(), cache)
    assert cache.calls[-1] == "close"


def test_backend_that_is_down_says_who_it_is_and_asks_nobody() -> None:
    """SM-05: after a restart the addresses come from the cached netmap."""
    store = take_down(logged_in_store())

    async def test(made: Fixture) -> None:
        made.backend.begin()
        assert made.backend.state is State.STOPPED
        assert made.backend.netmap is not None
        assert "recall" in made.control.calls
        assert not any(call.startswith("login") for call in made.control.calls)
        assert made.control.paused
        assert "apply" not in made.reconciler.calls

    run(test, store, CacheDouble())


def test_backend_that_began_down_goes_on_by_the_key_that_peers_know_when_the_server_is_away() -> None:
    """SM-05: it stopped at once, which made a key that nobody hears of."""
    store = take_down(logged_in_store())

    async def test(made: Fixture) -> None:
        known = made.disco
        made.reconciler.on_stop = lambda: made.resume_disco(DiscoPrivate.generate())
        made.backend.begin()
        assert made.backend.state is State.STOPPED
        assert made.disco != known
        made.backend.edit_prefs({"WantRunning": True, "WantRunningSet": True})
        away = MeshdError("connection refused", code="control-unreachable")
        made.control.report(recalled=True, netmap=made.backend.netmap, error=away)
        assert made.disco == known

    run(test, store, CacheDouble())


def test_backend_that_stops_has_the_cache_hold_what_peers_know_before_it_ends() -> None:
    """PS-18."""
    cache = CacheDouble()

    async def test(made: Fixture) -> None:
        made.backend.begin()
        log_in(made)
        order: list[str] = []
        cache.on_hold = lambda: order.append("hold")
        made.reconciler.on_stop = lambda: order.append("stop")
        made.backend.edit_prefs({"WantRunning": False, "WantRunningSet": True})
        assert order == ["hold", "stop"]
        made.backend.new_profile()
        assert order[2:4] == ["hold", "stop"]

    run(test, cache=cache)


def test_backend_clears_the_cached_netmap_and_tells_a_new_disco_key() -> None:
    cache = CacheDouble()

    async def test(made: Fixture) -> None:
        made.backend.begin()
        made.backend.disco_key_changed()
        assert made.control.calls[-1] == "disco key"
        made.backend.clear_netmap_cache()
        assert cache.calls[-1] == "forget"

    run(test, logged_in_store(), cache)


@pytest.mark.parametrize(
    "answer", [{"auth_url": "https://c/a", "can_continue": False}, {"error": MeshdError("no", code="auth-refused")}]
)
def test_backend_server_that_does_not_know_us_ends_the_cached_netmap(answer: dict[str, Any]) -> None:
    cache = CacheDouble()

    async def test(made: Fixture) -> None:
        made.backend.begin()
        made.control.report(**answer)
        assert made.backend.netmap is None
        assert made.backend.state in (State.NEEDS_LOGIN, State.NO_STATE)
        assert made.reconciler.calls[-1] == "stop"
        assert cache.calls[-1] == "forget"

    run(test, logged_in_store(), cache)


def test_backend_expired_key_leaves_no_cached_netmap() -> None:
    """LK-09: a node that is to log in again must not look as if it were there already."""
    cache = CacheDouble()

    async def test(made: Fixture) -> None:
        made.backend.begin()
        log_in(made)
        assert cache.calls[-1] == "keep"
        made.control.report(
            in_map_poll=True, netmap=made.backend.netmap, change=MapChange(self_changed=True), key_expired=True
        )
        assert cache.calls[-1] == "forget"

    run(test, cache=cache)
