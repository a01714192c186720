"""Makes an input smaller that shows a fault, for those who have to understand it."""

from __future__ import annotations

from collections.abc import Callable

TRIES = 2000


def shrink(data: bytes, still: Callable[[bytes], bool]) -> bytes:
    """The smallest input found for which ``still`` holds; ``data`` itself when nothing smaller does."""
    tries = TRIES
    size = max(len(data) // 2, 1)
    while data and tries > 0:
        at, shorter = 0, False
        while at < len(data) and tries > 0:
            tries -= 1
            candidate = data[:at] + data[at + size :]
            if still(candidate):
                data, shorter = candidate, True
            else:
                at += size
        if size == 1 and not shorter:
            break
        size = max(size // 2, 1)
    for at in range(len(data)):  # plain bytes where any will do
        for plain in b"0\0":
            if tries <= 0 or data[at] == plain:
                break
            tries -= 1
            candidate = data[:at] + bytes([plain]) + data[at + 1 :]
            if still(candidate):
                data = candidate
                break
    return data
