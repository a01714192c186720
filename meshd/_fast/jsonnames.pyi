"""A look over a JSON text before it is decoded: names in another letter case, nesting."""

from collections.abc import Iterable
from typing import final

from _typeshed import ReadableBuffer

MISSPELLED: int
"""Bit: a member name is not in the table, but would be if letter case were ignored."""
TOO_DEEP: int
"""Bit: nested deeper than ``MAX_DEPTH``."""
MAX_DEPTH: int
"""Arrays and objects inside each other. Comparing or writing much deeper values would end the recursion limit."""

@final
class NameTable:
    """The member names that may occur in a document.

    ``names``: 1 to 64 ASCII bytes each; ValueError for anything else.
    """

    def __init__(self, names: Iterable[bytes]) -> None: ...
    def inspect(self, data: ReadableBuffer) -> int:
        """``MISSPELLED`` and ``TOO_DEEP`` bits. ``data`` need not be valid JSON.

        Names written with a backslash are passed over. Runs without the GIL, about a gigabyte per second.
        """
