"""A byte rate with a burst."""

from __future__ import annotations


class TokenBucket:
    """``rate`` bytes a second, at most ``burst`` at once; starts full."""

    __slots__ = ("_at", "_burst", "_level", "_rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = max(burst, 1.0)
        self._level = self._burst
        self._at = now

    def take(self, amount: float, now: float) -> bool:
        """Whether ``amount`` fits now; only then it is used up."""
        if now > self._at:
            self._level = min(self._burst, self._level + (now - self._at) * self._rate)
            self._at = now
        if amount > self._level:
            return False
        self._level -= amount
        return True
