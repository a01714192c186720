"""Which peer owns which prefix in the data plane."""

from __future__ import annotations

from collections.abc import Sequence

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

    def replace(self, peer: int, old: Sequence[IPPrefix], new: Sequence[IPPrefix]) -> None:
        """Change the prefixes of a peer (by its plane index)."""
        if old is new:
            return
        if old and new:
            kept = set(old).intersection(new)
            old, new = [p for p in old if p not in kept], [p for p in new if p not in kept]
        for prefix in old:
            if self._owner.get(prefix) == peer:
                del self._owner[prefix]
                self._plane.remove_route(prefix.network_address.packed, prefix.prefixlen)
        for prefix in new:
            self._owner[prefix] = peer
            self._plane.add_route(peer, prefix.network_address.packed, prefix.prefixlen)
