"""A log line for every request that may change something, but never more than a person can read."""

from __future__ import annotations

from collections.abc import Callable

from meshd.base.log import get_logger, kv
from meshd.core.tokenbucket import TokenBucket

log = get_logger(__name__)

LINES_PER_S = 2.0
BURST = 40.0


class RequestLog:
    """``note`` per request. What is left out while too many come is counted and told by the next line."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._bucket = TokenBucket(LINES_PER_S, BURST, monotonic())
        self._left_out = 0

    def note(self, method: str, route: str, uid: int | None, reason: str) -> None:
        """Write the line; ``reason`` is what the user gave as one ("" for none)."""
        if not self._bucket.take(1.0, self._monotonic()):
            self._left_out += 1
            return
        facts: dict[str, object] = {"method": method, "route": route, "uid": uid}
        if reason:
            facts["reason"] = reason
        if self._left_out:
            facts["lines_left_out"], self._left_out = self._left_out, 0
        log.info("localapi_request", extra=kv(**facts))
