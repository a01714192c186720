"""Plain-Python twin of meshd._fast.sourcelimit, which never forgets a source."""

from __future__ import annotations

from meshd._fast.sourcelimit import BURST_MESSAGES, HANDSHAKE, HANDSHAKES_PER_S, OTHERS_PER_S

SECOND = 10**9


class SourceLimit:
    """A bucket for each network and kind: full at first, refilled at the kind's rate."""

    def __init__(self) -> None:
        self._buckets: dict[tuple[bytes, int], tuple[int, int]] = {}

    def allow(self, address: bytes, kind: int, now: int) -> bool:
        """As the C one; tokens are kept as nanoseconds of refilling."""
        interval = SECOND // (HANDSHAKES_PER_S if kind == HANDSHAKE else OTHERS_PER_S)
        full = BURST_MESSAGES * interval
        key = (address if len(address) == 4 else address[:8], kind)
        tokens, since = self._buckets.get(key, (full, now))
        tokens = min(full, tokens + now - since)
        if taken := tokens >= interval:
            tokens -= interval
        self._buckets[key] = (tokens, now)
        return taken
