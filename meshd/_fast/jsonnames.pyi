from collections.abc import Iterable
from typing import final

@final
class NameTable:
    """A set of JSON member names, for spotting the same names in another spelling.

    names: ASCII, not empty. Raises ValueError for anything else.
    """

    def __init__(self, names: Iterable[bytes]) -> None: ...
    def misspelled(self, data: bytes) -> bool:
        """Whether some object member name in `data` is not in the set but would be if case were ignored.

        Names written with a backslash are passed over. `data` need not be valid JSON. Runs without the GIL at
        about a gigabyte per second.
        """
