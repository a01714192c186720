"""Timestamps of first handshake messages: TAI64N with the low 24 bits of the nanoseconds cleared.

The clearing keeps an observer from reading the exact clock; it also means that two messages within one
step of 16.8 ms would carry equal stamps, and the second would be refused as a replay. ``TimestampSource``
therefore never gives a peer the same stamp twice, nor a smaller one when the wall clock steps back.
"""

from __future__ import annotations

from struct import pack

_TAI_EPOCH = 0x400000000000000A
_SHIFT = 24
_STEPS = 60  # whole steps in a second: 59 << 24 is the greatest below 10^9
_PRUNE_ABOVE = 64  # kept stamps before looking for ones that no longer matter


def step_of(wall: float) -> int:
    """The number of the step that a unix time in seconds falls into."""
    seconds, nanos = divmod(max(0, round(wall * 1e9)), 1_000_000_000)
    return seconds * _STEPS + (nanos >> _SHIFT)


def encode_step(step: int) -> bytes:
    """The 12 bytes of a step: u64 seconds from the TAI epoch, u32 nanoseconds, both big-endian."""
    seconds, part = divmod(step, _STEPS)
    return pack(">QI", _TAI_EPOCH + seconds, part << _SHIFT)


class TimestampSource:
    """Stamps for all peers of a device; outlives the removal and return of a peer."""

    __slots__ = ("_clock_step", "_last", "_prune_above")

    def __init__(self) -> None:
        self._clock_step = 0  # greatest step the wall clock ever showed
        self._last: dict[bytes, int] = {}  # per peer, only while not below _clock_step
        self._prune_above = _PRUNE_ABOVE

    def next(self, peer_public: bytes, wall: float) -> bytes:
        """A stamp greater than every earlier one for this peer."""
        self._clock_step = max(self._clock_step, step_of(wall))
        step = max(self._clock_step, self._last.get(peer_public, -1) + 1)
        self._last[peer_public] = step
        if len(self._last) > self._prune_above:
            self._last = {peer: last for peer, last in self._last.items() if last >= self._clock_step}
            self._prune_above = max(_PRUNE_ABOVE, 2 * len(self._last))
        return encode_step(step)
