"""Immutable sets of IP addresses, kept as sorted disjoint ranges."""

from collections.abc import Iterable
from typing import final

from meshd._fast.ipprefix import Prefix

@final
class IPSet:
    """A set of IPv4 and IPv6 addresses (packed, 4 or 16 bytes); immutable and hashable."""

    def __init__(self, ranges: Iterable[tuple[bytes, bytes]] = (), prefixes: Iterable[Prefix] = ()) -> None:
        """Every address of the inclusive ranges and of the prefixes.

        ValueError for ranges that are reversed or join two families.
        """

    def __contains__(self, address: bytes, /) -> bool:
        """Whether a packed address is in the set; logarithmic in the number of ranges."""

    def covers(self, prefix: Prefix) -> bool:
        """Whether every address of the prefix is in the set."""

    def overlaps(self, prefix: Prefix) -> bool:
        """Whether at least one address of the prefix is in the set."""

    def __or__(self, other: IPSet, /) -> IPSet:
        """The addresses in either."""

    def __sub__(self, other: IPSet, /) -> IPSet:
        """The addresses in this one but not in the other."""

    def __and__(self, other: IPSet, /) -> IPSet:
        """The addresses in both."""

    def __ror__(self, other: IPSet, /) -> IPSet: ...
    def __rsub__(self, other: IPSet, /) -> IPSet: ...
    def __rand__(self, other: IPSet, /) -> IPSet: ...
    def __bool__(self) -> bool: ...
    def __hash__(self) -> int: ...
    def ranges(self) -> list[tuple[bytes, bytes]]:
        """The inclusive (first, last) ranges: sorted, disjoint, not touching, IPv4 before IPv6."""

    def prefixes(self) -> list[Prefix]:
        """The fewest prefixes that make up the set, sorted, IPv4 before IPv6."""
