"""Token buckets per source, for handshake messages that arrive under load."""

from __future__ import annotations

from collections import OrderedDict

RATE_PER_S = 20.0
BURST = 5.0
FORGET_AFTER_S = 1.0  # a bucket untouched for so long is full again
MAX_SOURCES = 8192  # about 1 MB at most


def source_network(address: bytes) -> bytes:
    """What counts as one source: an IPv4 address, the /64 of an IPv6 one; anything else as it is."""
    return address[:8] if len(address) == 16 else address


class SourceLimiter:
    """20 messages a second per source with bursts of 5; memory is bounded by ``MAX_SOURCES``.

    When the table is full the source that was quiet the longest is forgotten, which at worst gives it a
    new burst: a flood from many addresses cannot lock out anyone else.
    """

    __slots__ = ("_buckets",)

    def __init__(self) -> None:
        self._buckets: OrderedDict[bytes, tuple[float, float]] = OrderedDict()  # source -> tokens, time

    def allow(self, source: bytes, now: float) -> bool:
        """Take one token of ``source`` (see ``source_network``)."""
        buckets = self._buckets
        while buckets:
            oldest, (_, touched) = next(iter(buckets.items()))
            if now - touched < FORGET_AFTER_S and len(buckets) < MAX_SOURCES:
                break
            if oldest == source and now - touched < FORGET_AFTER_S:
                break
            del buckets[oldest]
        tokens, touched = buckets.pop(source, (BURST, now))
        tokens = min(BURST, tokens + (now - touched) * RATE_PER_S)
        allowed = tokens >= 1.0
        buckets[source] = (tokens - 1.0 if allowed else tokens, now)
        return allowed

    def __len__(self) -> int:
        return len(self._buckets)
