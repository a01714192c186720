"""The table of local session indices: random, unique over all peers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

Owner = TypeVar("Owner")


class IndexTable(Generic[Owner]):
    """Maps the u32 that a peer addresses us by to whoever allocated it.

    Indices come from the random source alone, so that neither the number of sessions nor the next index
    can be guessed from one that was seen. Zero is never given out.
    """

    __slots__ = ("_owners", "_random")

    def __init__(self, random: Callable[[int], bytes]) -> None:
        self._random = random
        self._owners: dict[int, Owner] = {}

    def allocate(self, owner: Owner) -> int:
        """A free index, now owned by ``owner``."""
        while True:
            index = int.from_bytes(self._random(4), "little")
            if index and index not in self._owners:
                self._owners[index] = owner
                return index

    def adopt(self, index: int, owner: Owner) -> bool:
        """Take back an index released too early; False when it has found another owner since."""
        return self._owners.setdefault(index, owner) is owner

    def owner(self, index: int) -> Owner | None:
        return self._owners.get(index)

    def release(self, index: int) -> None:
        """Free an index; one that is not allocated is ignored."""
        self._owners.pop(index, None)

    def __len__(self) -> int:
        return len(self._owners)
