"""IP prefixes and their arithmetic, on packed addresses (4 or 16 bytes, network order).

Made for the many small sums that routes and filters need; ipaddress is an order of magnitude slower. IPv4-mapped IPv6
addresses are IPv6 here.
"""

from typing import final

@final
class Prefix:
    """An IPv4 or IPv6 prefix without host bits; immutable, hashable, ordered by family, address and length."""

    family: int
    """4 or 6."""
    bits: int
    """Prefix length."""

    def __init__(self, address: bytes, bits: int) -> None:
        """ValueError for an address of another size, a length the family does not have, or bits beyond the length."""

    @staticmethod
    def masked(address: bytes, bits: int) -> Prefix:
        """The prefix of this length that contains the address."""

    @staticmethod
    def parse(text: str) -> Prefix:
        """From "address/length" or a single address. ValueError as for the constructor, and for anything else."""

    @property
    def address(self) -> bytes:
        """The packed first address."""

    @property
    def last(self) -> bytes:
        """The packed last address."""

    @property
    def is_host(self) -> bool:
        """Whether it is a single address."""

    def __contains__(self, address: bytes, /) -> bool:
        """Whether a packed address is in the prefix."""

    def contains(self, other: Prefix) -> bool:
        """Whether every address of `other` is in this prefix."""

    def overlaps(self, other: Prefix) -> bool:
        """Whether the two have an address in common."""

    def supernet(self, bits: int) -> Prefix:
        """The prefix of `bits` (at most the own length, else ValueError) that contains this one."""

    def subtract(self, other: Prefix) -> list[Prefix]:
        """The fewest prefixes that make up this one without `other`, in order."""

    def __lt__(self, other: Prefix, /) -> bool: ...
    def __gt__(self, other: Prefix, /) -> bool: ...
    def __hash__(self) -> int: ...

def summarize(first: bytes, last: bytes, /) -> list[Prefix]:
    """The fewest prefixes that make up the inclusive range, in order. ValueError when reversed or of two families."""

def parse_address(text: str, /) -> bytes:
    """The packed form of an IPv4 or IPv6 address; ValueError for anything else (zones and leading zeros included)."""

def format_address(address: bytes, /) -> str:
    """The text form of a packed address (RFC 5952 for IPv6)."""
