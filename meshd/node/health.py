"""What is wrong with this node right now, in words for the user.

Each problem has a code; setting the same code again replaces its text, clearing removes it. Some problems show only
once they have lasted: most of them pass by themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

from meshd.base.gotime import format_time

JSON = dict[str, Any]


class Warnable(NamedTuple):
    """What is known of a problem before it happens."""

    title: str
    severity: str = "medium"
    impacts_connectivity: bool = False
    delay_s: float = 0.0
    depends_on: tuple[str, ...] = ()


WARNABLES = {
    "wantrunning-false": Warnable("Mesh off", "low"),
    "login-state": Warnable("Logged out", depends_on=("wantrunning-false",)),
    "not-in-map-poll": Warnable("Out of sync", delay_s=8 * 60.0, depends_on=("network-status",)),
    "state-store-health": Warnable("State store failed to initialize", "high"),
    "control": Warnable("Coordination server unreachable"),
    "control-health": Warnable("Coordination server reports an issue"),
    "refused-peers": Warnable("Peers refused"),
    "router": Warnable("Routes could not be set", impacts_connectivity=True),
    "host": Warnable("Host configuration issue"),
    "start": Warnable("Could not start", "high", impacts_connectivity=True),
}
"""By code; names, severities and delays are those that existing clients know, where they know the problem."""

_ENDS_ALL = ("wantrunning-false", "login-state")  # with one of these, what the network does is not worth telling
_NETWORK = frozenset({"not-in-map-poll"})


class _Problem:
    __slots__ = ("since", "text", "timer")

    def __init__(self, text: str, since: float) -> None:
        self.text = text
        self.since = since
        self.timer: asyncio.TimerHandle | None = None


class Health:
    """The current problems, in the order in which they appeared. ``changed`` is called when what shows changed."""

    def __init__(self, changed: Callable[[], None], wall: Callable[[], float]) -> None:
        self._changed = changed
        self._wall = wall
        self._problems: dict[str, _Problem] = {}

    def set(self, code: str, text: str | None) -> None:
        """Raise, reword or (with None or "") clear a problem."""
        known = self._problems.get(code)
        if not text:
            if known is not None:
                del self._problems[code]
                if known.timer is None:
                    self._changed()
                else:
                    known.timer.cancel()
            return
        if known is not None:
            before, known.text = known.text, text
            if before != text and known.timer is None:
                self._changed()
            return
        problem = self._problems[code] = _Problem(text, self._wall())
        delay = _warnable(code).delay_s
        if delay:
            problem.timer = asyncio.get_running_loop().call_later(delay, self._lasted, problem)
        else:
            self._changed()

    def _lasted(self, problem: _Problem) -> None:
        problem.timer = None
        self._changed()

    def _shown(self) -> list[tuple[str, _Problem]]:
        stopped = any(code in self._problems for code in _ENDS_ALL)
        return [
            (code, problem)
            for code, problem in self._problems.items()
            if problem.timer is None and not (stopped and code in _NETWORK)
        ]

    def texts(self) -> list[str]:
        return [problem.text for _, problem in self._shown()]

    def warnings(self) -> dict[str, JSON]:
        """For the notify bus: code to description."""
        return {code: _json(code, problem) for code, problem in self._shown()}

    def close(self) -> None:
        for problem in self._problems.values():
            if problem.timer is not None:
                problem.timer.cancel()


def _warnable(code: str) -> Warnable:
    return WARNABLES.get(code) or Warnable(code.replace("-", " "))


def _json(code: str, problem: _Problem) -> JSON:
    kind = _warnable(code)
    shown: JSON = {
        "WarnableCode": code,
        "Severity": kind.severity,
        "Title": kind.title,
        "Text": problem.text,
        "BrokenSince": format_time(problem.since),
    }
    if kind.depends_on:
        shown["DependsOn"] = list(kind.depends_on)
    if kind.impacts_connectivity:
        shown["ImpactsConnectivity"] = True
    return shown
