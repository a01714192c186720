"""Problems, in words and with the ids that clients know."""

from __future__ import annotations

from typing import Any

import pytest

from meshd.node import health as health_module
from meshd.node.health import WARNABLES, Health


class Loop:
    """Timers that fire when told to."""

    def __init__(self) -> None:
        self.timers: list[tuple[float, Any, Any]] = []

    def call_later(self, delay: float, function: Any, *args: Any) -> Any:
        entry = (delay, function, args)
        self.timers.append(entry)
        loop = self

        class Handle:
            def cancel(self) -> None:
                loop.timers.remove(entry)

        return Handle()

    def fire(self) -> None:
        timers, self.timers = self.timers, []
        for _, function, args in timers:
            function(*args)


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    made = Loop()
    monkeypatch.setattr(health_module.asyncio, "get_running_loop", lambda: made)
    return made


def test_health_warning_has_what_clients_show() -> None:
    """HE-02: code, severity, title, text, since when."""
    changes: list[int] = []
    health = Health(lambda: changes.append(1), lambda: 1_790_000_000.0)
    health.set("wantrunning-false", "The mesh is stopped.")
    assert health.warnings() == {
        "wantrunning-false": {
            "WarnableCode": "wantrunning-false",
            "Severity": "low",
            "Title": "Mesh off",
            "Text": "The mesh is stopped.",
            "BrokenSince": "2026-09-21T14:13:20Z",
        }
    }
    health.set("wantrunning-false", "The mesh is stopped.")
    assert len(changes) == 1, "the same again changes nothing"
    health.set("wantrunning-false", None)
    assert health.warnings() == {}
    assert len(changes) == 2


def test_health_delayed_problem_shows_only_when_it_lasts(loop: Loop) -> None:
    """HE: time to visible."""
    changes: list[int] = []
    health = Health(lambda: changes.append(1), lambda: 0.0)
    health.set("not-in-map-poll", "out of sync")
    assert health.texts() == []
    health.set("not-in-map-poll", None)
    assert loop.timers == []
    assert not changes
    health.set("not-in-map-poll", "out of sync")
    assert loop.timers[0][0] == WARNABLES["not-in-map-poll"].delay_s == 480
    loop.fire()
    assert health.texts() == ["out of sync"]
    assert len(changes) == 1


def test_health_stopped_node_does_not_complain_about_the_network(loop: Loop) -> None:
    health = Health(lambda: None, lambda: 0.0)
    health.set("not-in-map-poll", "out of sync")
    loop.fire()
    health.set("wantrunning-false", "The mesh is stopped.")
    assert health.texts() == ["The mesh is stopped."]


def test_health_unknown_code_is_told_all_the_same() -> None:
    health = Health(lambda: None, lambda: 0.0)
    health.set("some-part", "broken")
    assert health.warnings()["some-part"]["Title"] == "some part"
