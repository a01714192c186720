"""Where the access rules of a network come from: nothing, or a policy text."""

from __future__ import annotations

from meshd.coord.access import Access, AllowAll
from meshd.coord.network import Network


class PolicySource:
    """The policy that holds now."""

    def __init__(self) -> None:
        self.text: str | None = None

    def access(self, network: Network) -> Access:
        """The rules for the network as it is now."""
        return AllowAll()
