"""Plain-Python twin of meshd._fast.jsonnames."""

from __future__ import annotations

import re
from collections.abc import Iterable

MISSPELLED, TOO_DEEP, MAX_DEPTH = 1, 2, 64

_TOKEN = re.compile(rb'"((?:[^"\\]|\\.)*)"([ \t\r\n]*:|)|"|[\[\]{}]', re.DOTALL)


class NameTable:
    def __init__(self, names: Iterable[bytes]) -> None:
        self._exact = frozenset(names)
        self._folded = frozenset(name.lower() for name in self._exact)

    def inspect(self, data: bytes) -> int:
        found = depth = 0
        for token in _TOKEN.finditer(data):
            first = token[0][:1]
            if token[0] == b'"':
                break  # a string without end
            if first in b"[{":
                depth += 1
                if depth > MAX_DEPTH:
                    return found | TOO_DEEP
            elif first in b"]}":
                depth = max(depth - 1, 0)
            elif token[2] and self._misspelled(token[1]):
                found = MISSPELLED
        return found

    def _misspelled(self, name: bytes) -> bool:
        return b"\\" not in name and name not in self._exact and name.lower() in self._folded
