"""A bounds-checked reader over bytes that came from somewhere else.

Every decoder in `meshd.wire` reads through a `Cursor`, so a short or overlong message ends in one
kind of error that says where it happened.
"""

from __future__ import annotations

from meshd.base.errors import WireError


class Cursor:
    """Reads integers and byte runs from `data`, front to back.

    Every read raises `WireError` with the offset when fewer bytes are left than it needs.
    """

    __slots__ = ("_data", "_offset")

    def __init__(self, data: bytes | bytearray | memoryview, /) -> None:
        self._data = data if isinstance(data, bytes) else bytes(data)
        self._offset = 0

    @property
    def offset(self) -> int:
        """Bytes consumed so far."""
        return self._offset

    @property
    def remaining(self) -> int:
        """Bytes not yet consumed."""
        return len(self._data) - self._offset

    def take(self, n: int) -> bytes:
        """The next `n` bytes."""
        start = self._offset
        if n < 0 or n > len(self._data) - start:
            raise WireError(
                f"message is too short: {n} bytes wanted at offset {start}, {len(self._data) - start} left",
                offset=start,
                expected=f"{n} bytes",
            )
        self._offset = start + n
        return self._data[start : start + n]

    def u8(self) -> int:
        return self.take(1)[0]

    def u16be(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def u32be(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def u32le(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def rest(self) -> bytes:
        """Everything that is left; may be empty."""
        start, self._offset = self._offset, len(self._data)
        return self._data[start:]

    def end(self) -> None:
        """Demand that everything was consumed; raises `WireError` when bytes are left over."""
        if self._offset != len(self._data):
            raise WireError(
                f"{self.remaining} unexpected bytes at offset {self._offset}",
                offset=self._offset,
                expected="end of message",
            )
