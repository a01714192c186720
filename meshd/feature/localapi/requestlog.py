"""What requests put into the log: a line for each that may change something, and lines that local programs want there;
never more than a person can read."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from meshd.base.log import get_logger, kv
from meshd.core.tokenbucket import TokenBucket

log = get_logger(__name__)

LINES_PER_S = 2.0
BURST = 40.0

MAX_CLIENT_LINES = 60
"""Lines of its own that one request may add, and those of users without rights together at once."""
MAX_CLIENT_LINE_CHARACTERS = 1000
"""Length of one such line."""


class RequestLog:
    """``note`` per request. What is left out while too many come is counted and told by the next line."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._bucket = TokenBucket(LINES_PER_S, BURST, monotonic())
        self._left_out = 0
        self._strangers = TokenBucket(LINES_PER_S, MAX_CLIENT_LINES, monotonic())
        self._dropped = 0

    def client_lines(self, source: str, lines: Sequence[str], *, trusted: bool) -> None:
        """Write lines of a local program. Users that are not ``trusted`` share what is written for all of them: nobody
        fills the disk with another's log. What is left out is counted and told by the next that are written."""
        now, written = self._monotonic(), 0
        for line in lines[:MAX_CLIENT_LINES]:
            if not trusted and not self._strangers.take(1.0, now):
                break
            log.info("client_log", extra=kv(source=source[:64], line=line[:MAX_CLIENT_LINE_CHARACTERS]))
            written += 1
        self._dropped += len(lines) - written
        if written and self._dropped:
            log.info("client_log_dropped", extra=kv(lines=self._dropped))
            self._dropped = 0

    def refused(self, host: str) -> None:
        """Say that a request was not for us, which a page in a browser may try as often as it likes."""
        if self._strangers.take(1.0, self._monotonic()):
            log.warning("localapi_request_refused", extra=kv(host=host[:100]))

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
