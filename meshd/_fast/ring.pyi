"""A ring of records from one thread to another, with an eventfd that tells when to look."""

from typing import final

@final
class Ring:
    """One producer thread, one consumer thread; size is rounded up to a power of two from 4096."""

    def __init__(self, size: int) -> None: ...
    @property
    def event_fd(self) -> int:
        """Readable from the first record until take() has returned None."""

    @property
    def dropped(self) -> int:
        """Records refused because the ring was full."""

    def put(self, kind: int, data: bytes) -> bool:
        """Add a record (kind 0..65534); False, and one more in dropped, when there is no room."""

    def take(self) -> tuple[int, bytes] | None:
        """The oldest record, or None after switching the eventfd off."""
