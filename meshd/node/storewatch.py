"""What the user hears of a store that does not work, and the next try to write what it did not take."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from meshd.base.clock import Clock
from meshd.base.errors import MeshdError
from meshd.base.log import get_logger, kv
from meshd.node.profiles import Profiles
from meshd.node.store import Store

log = get_logger(__name__)

RETRY_S = 30.0
_REST = 20
"""A store that takes long to fail gets so many times as long a rest: nothing else happens while it is asked."""


class StoreWatch:
    """Tries again until everything is stored. ``tell`` gets what there is to say, ``""`` when all is well.

    A store that could not be reached at the start is asked again as well; ``begin`` is called when it was.
    """

    def __init__(
        self,
        clock: Clock,
        store: Store,
        profiles: Profiles,
        tell: Callable[[str], None],
        begin: Callable[[], None] = lambda: None,
    ) -> None:
        self._clock = clock
        self._store = store
        self._profiles = profiles
        self._tell = tell
        self._begin = begin
        self._reason = ""
        self._timer: asyncio.TimerHandle | None = None
        profiles.on_unstored = self._changed
        if store.problem is not None:
            log.error("state_unusable", extra=kv(reason=store.problem.message, action="no login"))
        tell(_standing(store))
        if store.passing:
            self._wait(RETRY_S)

    def close(self) -> None:
        """Try a last time: what is only in memory ends with us, and what got no answer may be stored or not."""
        if self._profiles.store_rest():
            with contextlib.suppress(MeshdError):
                self._store.update({})
        self._cancel()

    def _changed(self, error: MeshdError | None) -> None:
        if error is None:
            self._cancel()
            log.info("state_stored_late")
            self._reason = ""
            self._tell(_standing(self._store))
            return
        if error.message != self._reason:
            log.warning("state_not_stored", extra=kv(reason=error.message))
        self._reason = error.message
        self._tell(f"{error.message}. What is new since then is lost if meshd ends before it can be written.")
        self._wait(RETRY_S)

    def _wait(self, delay_s: float) -> None:
        self._cancel()
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._again)

    def _again(self) -> None:
        began = self._clock.monotonic()
        if self._store.problem is not None:
            self._reopen()
            done = not self._store.passing
        else:
            done = self._profiles.store_rest()
        rest_s = _REST * (self._clock.monotonic() - began)
        if not done:
            self._wait(max(RETRY_S, rest_s))

    def _reopen(self) -> None:
        self._store.reopen()
        if self._store.problem is None:
            log.info("state_opened_late")
            self._profiles.load()
        self._tell(_standing(self._store))
        if self._store.problem is None:
            self._begin()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _standing(store: Store) -> str:
    """What the store itself has to say, whatever was written."""
    if store.problem is None:
        return store.notice
    return (
        "State store failed to initialize, Tailscale will not work until this is resolved. "
        f"See https://tailscale.com/s/state-store-init-error. Error: {store.problem}"
    )
