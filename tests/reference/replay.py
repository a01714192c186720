"""Plain-Python twin of meshd._fast.replay: remembers every counter."""

from __future__ import annotations

WINDOW = 8128


class Window:
    def __init__(self) -> None:
        self.last = 0
        self._seen: set[int] = set()

    def accept(self, counter: int) -> bool:
        if counter >= 2**64 - 2**13 - 1 or self.last - counter > WINDOW or counter in self._seen:
            return False
        self.last = max(self.last, counter)
        self._seen.add(counter)
        return True
