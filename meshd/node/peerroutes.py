"""Which peer owns which prefix in the data plane."""

from __future__ import annotations

from collections.abc import Iterable

from meshd.base.addr import IPPrefix
from meshd.node.dataplane import DataPlane


class PeerRoutes:
    """A prefix belongs to one peer; giving it to another moves it.

    A move may be announced in either order: when the new owner comes first, the old one giving it up
    later takes nothing away.
    """

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane
        self._owner: dict[IPPrefix, int] = {}

    def replace(self, peer: int, old: Iterable[IPPrefix], new: Iterable[IPPrefix]) -> None:
        """Change the prefixes of a peer (by its plane index)."""
        before, after = set(old), set(new)
        for prefix in before - after:
            if self._owner.get(prefix) == peer:
                del self._owner[prefix]
                self._plane.remove_route(prefix.network_address.packed, prefix.prefixlen)
        for prefix in after - before:
            self._owner[prefix] = peer
            self._plane.add_route(peer, prefix.network_address.packed, prefix.prefixlen)
