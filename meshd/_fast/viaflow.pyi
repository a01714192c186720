"""The flow memory of via addresses."""

from typing import final

@final
class ViaFlows:
    """Flows that peers began by via addresses, at most 32768.

    When the eight places for a flow are in use, it takes that of the same peer's flow that would end first, else that
    of whoever's would.
    """

    def __new__(cls, seed: int | None = None) -> ViaFlows:
        """`seed` fixes the hash for tests; by default it is random."""
