"""WireGuard's replay window: RFC 6479 bitmap of 128 blocks of 64 bits."""

from typing import final

WINDOW: int
"""How far behind the newest accepted counter an unseen one may be: 8128."""

REJECT_AFTER_MESSAGES: int
"""Counters from here on are never accepted: 2**64 - 2**13 - 1."""

@final
class Window:
    """Counters seen on one receiving session. Not locked: one thread at a time."""

    def accept(self, counter: int, /) -> bool:
        """Whether `counter` (0..2**64-1, else OverflowError) is new and inside the window; if so it is marked.

        Call it only for packets that passed authentication: an accepted counter moves the window.
        """

    @property
    def last(self) -> int:
        """The greatest accepted counter, 0 at first."""
