"""How long to wait after the n-th failure in a row."""

from __future__ import annotations

from collections.abc import Callable

STEP = 0.010  # s, times the square of the number of failures
LONGEST = 30.0  # s, before the random factor


class Backoff:
    """min(n² · 10 ms, 30 s) × 0.5…1.5; ``random`` returns floats in [0, 1)."""

    __slots__ = ("_failures", "_random")

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._failures = 0

    @property
    def failures(self) -> int:
        """Failures since the last success."""
        return self._failures

    def failed(self) -> float:
        """Count a failure; seconds to wait now."""
        self._failures = min(self._failures + 1, 10_000)
        return min(self._failures**2 * STEP, LONGEST) * (0.5 + self._random())

    def reset(self) -> None:
        """Something worked."""
        self._failures = 0
