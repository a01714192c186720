"""What all kinds of keys have in common: immutable bytes, compared and hashed at the speed of bytes."""

from typing import ClassVar, TypeVar

from typing_extensions import disjoint_base

_K = TypeVar("_K", bound=RawKey)

@disjoint_base
class RawKey:
    """A subclass names its ``prefix`` and ``size``. Keys are equal when type and bytes are."""

    __slots__ = ("raw",)
    prefix: ClassVar[str]
    size: ClassVar[int]
    @property
    def raw(self) -> bytes: ...
    def __init__(self, raw: bytes) -> None:
        """ValueError when the number of bytes is another than ``size``."""

    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

def trusted(kind: type[_K], raw: bytes, /) -> _K:
    """A key of this kind; ``raw`` is known to have its size."""
