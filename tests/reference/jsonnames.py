"""Plain-Python twin of meshd._fast.jsonnames."""

from __future__ import annotations

import re
from collections.abc import Iterable

_STRING = re.compile(rb'"((?:[^"\\]|\\.)*)"(?:([ \t\r\n]*:)|)', re.DOTALL)


class NameTable:
    def __init__(self, names: Iterable[bytes]) -> None:
        self._exact = frozenset(names)
        self._folded = frozenset(name.lower() for name in self._exact)

    def misspelled(self, data: bytes) -> bool:
        return any(
            name not in self._exact and name.lower() in self._folded
            for name, colon in _STRING.findall(data)
            if colon and b"\\" not in name
        )
