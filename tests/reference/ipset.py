"""Twin of meshd._fast.ipset: a sorted list of integer ranges, rebuilt for every operation."""

from __future__ import annotations

from collections.abc import Iterable

Range = tuple[int, int]


def normalise(ranges: Iterable[Range]) -> list[Range]:
    out: list[Range] = []
    for first, last in sorted(ranges):
        if out and first <= out[-1][1] + 1:
            out[-1] = (out[-1][0], max(last, out[-1][1]))
        else:
            out.append((first, last))
    return out


def contains(ranges: Iterable[Range], address: int) -> bool:
    return any(first <= address <= last for first, last in ranges)


def subtract(a: list[Range], b: list[Range]) -> list[Range]:
    left = list(a)
    for low, high in b:
        pieces: list[Range] = []
        for first, last in left:
            pieces += [(x, y) for x, y in ((first, min(last, low - 1)), (max(first, high + 1), last)) if x <= y]
        left = pieces
    return normalise(left)


def intersect(a: list[Range], b: list[Range]) -> list[Range]:
    return normalise((max(p, r), min(q, s)) for p, q in a for r, s in b if max(p, r) <= min(q, s))
