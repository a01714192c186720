"""The health of the running node: the problems of `meshd.core.health` on the event loop and the system's clocks."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from meshd.base.clock import Clock
from meshd.core.health import Health, HealthEffect
from meshd.core.healthcheck import HealthView
from meshd.core.loginurl import may_be_shown
from meshd.core.warnables import warnable
from meshd.io.driver import Driver
from meshd.wire.control import DisplayMessage

JSON = dict[str, Any]


class NodeHealth:
    """``changed`` is called when what shows is different, ``view`` to have a fresh look at the node."""

    def __init__(self, clock: Clock, changed: Callable[[], None], view: Callable[[], HealthView]) -> None:
        self._clock = clock
        self._changed = changed
        self._view = view
        self._health = Health()
        self._driver = Driver(asyncio.get_running_loop(), clock, self._health, self._execute)
        self._wanted_since: float | None = None
        self._poll_ended_at: float | None = None
        self._in_poll = False
        self._heard: Mapping[str, DisplayMessage] = {}
        self._fake_error = os.environ.get("TS_DEBUG_FAKE_HEALTH_ERROR", "")

    def set(self, code: str, text: str | None) -> None:
        """Raise, reword or (with None or "") clear a problem."""
        if text:
            args = {warnable(code).argument: text}
            self._health.set(code, args, self._clock.monotonic(), self._clock.wall())
        else:
            self._health.clear(code)
        self._driver.turn()

    def set_messages(self, messages: Mapping[str, DisplayMessage], control_url: str = "") -> None:
        """What the coordination server at ``control_url`` has to say, by id. Of pages, only those it may have shown
        are offered (LK-04)."""
        if messages == self._heard:
            return
        self._heard = messages
        self._health.set_messages({name: _permitted(message, control_url) for name, message in messages.items()})
        self._driver.turn()

    def look(self) -> None:
        """Have a fresh look at the node."""
        now = self._clock.monotonic()
        view = self._view()
        if not view.want_running:
            self._wanted_since = None
        elif self._wanted_since is None:
            self._wanted_since = now
        if self._in_poll and not view.in_map_poll:
            self._poll_ended_at = now
        self._in_poll = view.in_map_poll
        view.wanted_since, view.poll_ended_at = self._wanted_since, self._poll_ended_at
        view.fake_error = self._fake_error
        self._health.check(view, now, self._clock.wall())
        self._driver.turn()

    def is_broken(self, code: str) -> bool:
        """Whether a problem is there, told or not."""
        return self._health.is_broken(code)

    def texts(self) -> list[str]:
        return self._health.texts()

    def warnings(self) -> dict[str, JSON]:
        """For the notify bus: code to description."""
        return self._health.warnings()

    def close(self) -> None:
        self._driver.close()

    def _execute(self, effect: HealthEffect) -> None:
        if effect is HealthEffect.CHANGED:
            self._changed()
        else:
            self.look()


def _permitted(message: DisplayMessage, control_url: str) -> DisplayMessage:
    action = message.primary_action
    if action is None or may_be_shown(action.url, control_url):
        return message
    return msgspec.structs.replace(message, primary_action=None)
