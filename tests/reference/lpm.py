"""Plain-Python twin of meshd._fast.lpm: tries every length, longest first."""

from __future__ import annotations


class PrefixMap:
    def __init__(self) -> None:
        self._values: dict[tuple[int, int, int], int] = {}

    @staticmethod
    def _key(address: bytes, bits: int) -> tuple[int, int, int]:
        width = len(address) * 8
        return width, bits, int.from_bytes(address, "big") >> (width - bits)

    def insert(self, address: bytes, bits: int, value: int) -> bool:
        key = self._key(address, bits)
        new = key not in self._values
        self._values[key] = value
        return new

    def remove(self, address: bytes, bits: int) -> bool:
        return self._values.pop(self._key(address, bits), None) is not None

    def get(self, address: bytes, bits: int) -> int | None:
        return self._values.get(self._key(address, bits))

    def lookup(self, address: bytes) -> int | None:
        for bits in range(len(address) * 8, -1, -1):
            if (value := self.get(address, bits)) is not None:
                return value
        return None

    def __len__(self) -> int:
        return len(self._values)
