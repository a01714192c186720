"""Longest-prefix map: which value belongs to the most specific prefix that contains an address.

Host routes (/32, /128) live in a hash table, shorter prefixes in a path-compressed 16-way trie. Insert, replace and
remove cost a constant number of steps (growing the hash table is amortised).
"""

from typing import final

from _typeshed import ReadableBuffer

@final
class PrefixMap:
    """Map from IPv4 and IPv6 prefixes to integers 0..2**31-2. One thread at a time."""

    def insert(self, address: ReadableBuffer, bits: int, value: int, /) -> bool:
        """Maps address/bits to value; True when the prefix is new, False when its value was replaced.

        `address` is 4 or 16 bytes; bits beyond the length are ignored. ValueError for another size, a length that the
        family does not have, or a value out of range.
        """

    def remove(self, address: ReadableBuffer, bits: int, /) -> bool:
        """Removes exactly this prefix; False when it was absent."""

    def lookup(self, address: ReadableBuffer, /) -> int | None:
        """The value of the longest prefix that contains the address, None when there is none."""

    def get(self, address: ReadableBuffer, bits: int, /) -> int | None:
        """The value of exactly this prefix, None when absent."""

    def __len__(self) -> int: ...
    @property
    def allocated_bytes(self) -> int:
        """Memory in use, in bytes."""
