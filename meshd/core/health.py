"""Which problems this node has, and which of them its user is told at this moment.

A problem shows once it has lasted for its delay and nothing that it depends on is broken. What the coordination
server says about us stands beside the problems that we find ourselves.

Inputs carry ``now`` (monotonic seconds) and, where a time is shown, ``wall`` (unix seconds). After each, look at
what `drain` returns and call `handle_timer` at `next_timer`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from enum import Enum, auto
from typing import Any

import msgspec

from meshd.base.gotime import format_time
from meshd.core.healthcheck import HealthView, judge, next_look
from meshd.core.warnables import WARMING_UP, Args, Warnable, warnable
from meshd.wire.control import DisplayMessage

JSON = dict[str, Any]
_SEVERITIES = ("high", "low")


class HealthEffect(Enum):
    """What the owner is to do."""

    CHANGED = auto()
    """Tell watchers: what shows is different."""
    LOOK = auto()
    """Call `Health.check` with a fresh view: time alone may have changed something."""


class _Problem:
    __slots__ = ("args", "kind", "since", "visible", "visible_at")

    def __init__(self, kind: Warnable, args: Args, now: float, wall: float) -> None:
        self.kind = kind
        self.args = args
        self.since = wall
        self.visible_at = now + kind.delay_s
        self.visible = not kind.delay_s


class Health:
    """The problems of one node, in the order in which they appeared."""

    def __init__(self) -> None:
        self._problems: dict[str, _Problem] = {}
        self._messages: Mapping[str, DisplayMessage] = {}
        self._shown: tuple[object, ...] = ((), {})
        self._look_at: float | None = None
        self._outbox: list[HealthEffect] = []

    # -- machine contract -----------------------------------------------------------------------------------

    def drain(self) -> list[HealthEffect]:
        effects, self._outbox = self._outbox, []
        return effects

    def next_timer(self) -> float | None:
        waiting = [p.visible_at for p in self._problems.values() if not p.visible]
        if self._look_at is not None:
            waiting.append(self._look_at)
        return min(waiting, default=None)

    def handle_timer(self, now: float) -> None:
        for problem in self._problems.values():
            problem.visible = problem.visible or problem.visible_at <= now
        self._settle()
        if self._look_at is not None and self._look_at <= now:
            self._look_at = None
            self._outbox.append(HealthEffect.LOOK)

    # -- inputs ---------------------------------------------------------------------------------------------

    def set(self, code: str, args: Args, now: float, wall: float) -> None:
        """A problem is there; with other ``args`` it keeps its age and gets new words."""
        if self._put(code, args, now, wall):
            self._settle()

    def clear(self, code: str) -> None:
        """A problem is gone, or was never there."""
        if self._problems.pop(code, None) is not None:
            self._settle()

    def set_messages(self, messages: Mapping[str, DisplayMessage]) -> None:
        """What the coordination server has to say, by id; replaces what it said before."""
        if messages != self._messages:
            self._messages = dict(messages)
            self._settle()

    def check(self, view: HealthView, now: float, wall: float) -> None:
        """Look at the node: raises and clears the problems that `meshd.core.healthcheck.judge` knows."""
        for code, args in judge(view, now).items():
            if args is None:
                self._problems.pop(code, None)
            else:
                self._put(code, args, now, wall)
        self._look_at = next_look(view, now)
        self._settle()

    def _put(self, code: str, args: Args, now: float, wall: float) -> bool:
        known = self._problems.get(code)
        if known is None:
            self._problems[code] = _Problem(warnable(code), args, now, wall)
            return True
        if known.args == args:
            return False
        known.args = args
        return True

    def _settle(self) -> None:
        shown = (tuple((code, problem.args) for code, problem in self._visible()), self._messages)
        if shown != self._shown:
            self._shown = shown
            self._outbox.append(HealthEffect.CHANGED)

    # -- what shows -----------------------------------------------------------------------------------------

    def is_broken(self, code: str) -> bool:
        """Whether a problem is there, told or not."""
        return code in self._problems

    def texts(self) -> list[str]:
        """For the status: one text a problem, those of the server last."""
        own = [problem.kind.words(problem.args) for _, problem in self._visible()]
        return own + sorted(_message_text(message) for message in self._messages.values())

    def warnings(self) -> dict[str, JSON]:
        """For the notify bus: code to description."""
        found = {code: _problem_json(code, problem) for code, problem in self._visible()}
        for name, message in self._messages.items():
            code = f"control-health.{name}"
            found[code] = _tagged(_message_json(code, message))
        return found

    def _visible(self) -> list[tuple[str, _Problem]]:
        return [(code, p) for code, p in self._problems.items() if p.visible and not self._follows(p.kind)]

    def _follows(self, kind: Warnable) -> bool:
        """Whether it is but the consequence of another problem, itself no consequence."""
        for code in kind.depends_on:
            cause = self._problems.get(code)
            if cause is not None and not self._follows(cause.kind):
                return True
        return False


def _problem_json(code: str, problem: _Problem) -> JSON:
    kind = problem.kind
    shown: JSON = {
        "WarnableCode": code,
        "Severity": kind.severity,
        "Title": kind.title,
        "Text": kind.words(problem.args),
        "BrokenSince": format_time(problem.since),
    }
    if problem.args:
        shown["Args"] = dict(problem.args)
    depends_on = [*kind.depends_on, *([WARMING_UP] if code != WARMING_UP else [])]
    if depends_on:
        shown["DependsOn"] = depends_on
    if kind.impacts_connectivity:
        shown["ImpactsConnectivity"] = True
    return _tagged(shown)


def _message_json(code: str, message: DisplayMessage) -> JSON:
    shown: JSON = {
        "WarnableCode": code,
        "Severity": message.severity if message.severity in _SEVERITIES else "medium",
        "Title": message.title,
        "Text": message.text,
    }
    if message.impacts_connectivity:
        shown["ImpactsConnectivity"] = True
    if message.primary_action is not None:
        shown["PrimaryAction"] = {"URL": message.primary_action.url, "Label": message.primary_action.label}
    return shown


def _message_text(message: DisplayMessage) -> str:
    if message.title and message.text:
        text = f"{message.title}: {message.text}"
    else:
        text = f"{message.title}." if message.title else message.text
    action = message.primary_action
    return text if action is None else f"{text} {action.label}: {action.url}"


def _tagged(shown: JSON) -> JSON:
    """With a mark by which clients see that something in it changed."""
    return shown | {"ETag": hashlib.sha256(msgspec.json.encode(shown)).hexdigest()}
