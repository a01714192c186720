"""The packet filter's memory of flows that this node started over UDP and SCTP."""

from typing import final

@final
class FlowTable:
    """Flows that this node started over UDP and SCTP.

    Holds up to 4096. Among them are the 512 used last, save for one in 100 000 that collides with eight others.
    """

    def __new__(cls, seed: int | None = None) -> FlowTable:
        """`seed` fixes the hash for tests; by default it is random."""

    def clear(self) -> None:
        """Forgets every flow. No worker may be using the table."""

    @property
    def inserted(self) -> int:
        """How many flows were added so far."""
