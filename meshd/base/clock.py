"""Time as it is handed to code that must not read a clock itself."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """``monotonic`` is seconds that only go forward, ``wall`` unix seconds that may jump."""

    def monotonic(self) -> float: ...

    def wall(self) -> float: ...
