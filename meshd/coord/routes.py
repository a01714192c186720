"""Which node carries a route when several offer it."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from meshd.coord.records import EXIT_ROUTES


class RouteTable:
    """Elects one carrier per prefix: it keeps the role while online, else the lowest id that is online takes over.

    When none of them is online the last carrier keeps the route. Exit routes are never elected: every approved exit
    node offers them and the client chooses.
    """

    def __init__(self) -> None:
        self._offers: dict[str, dict[int, bool]] = {}
        self._carrier: dict[str, int] = {}
        self._of_node: dict[int, tuple[str, ...]] = {}
        self._carried: dict[int, tuple[str, ...]] = {}

    def update(self, node_id: int, routes: Iterable[str], *, online: bool) -> set[int]:
        """Set what a node offers; returns the ids of the nodes whose set of carried routes changed."""
        wanted = tuple(routes)
        before = self._of_node.get(node_id, ())
        changed: set[int] = set()
        if set(wanted) & set(EXIT_ROUTES) != set(before) & set(EXIT_ROUTES):
            changed.add(node_id)
        for prefix in set(before) - set(wanted):
            offers = self._offers.get(prefix, {})
            offers.pop(node_id, None)
            changed |= self._elect(prefix)
        for prefix in wanted:
            if prefix not in EXIT_ROUTES:
                self._offers.setdefault(prefix, {})[node_id] = online
                changed |= self._elect(prefix)
        if wanted:
            self._of_node[node_id] = wanted
        else:
            self._of_node.pop(node_id, None)
        for other in (node_id, *changed):
            self._carried.pop(other, None)
        return changed

    @property
    def routers(self) -> Collection[int]:
        """Ids of the nodes that offer routes."""
        return self._of_node.keys()

    def primary(self, node_id: int) -> tuple[str, ...]:
        """Subnet routes that the node carries."""
        return tuple(prefix for prefix in self._of_node.get(node_id, ()) if self._carrier.get(prefix) == node_id)

    def carried(self, node_id: int) -> tuple[str, ...]:
        """Subnet routes that the node carries, and its exit routes."""
        offered = self._of_node.get(node_id)
        if offered is None:
            return ()
        found = self._carried.get(node_id)
        if found is None:
            found = self._carried[node_id] = tuple(
                prefix for prefix in offered if prefix in EXIT_ROUTES or self._carrier.get(prefix) == node_id
            )
        return found

    def _elect(self, prefix: str) -> set[int]:
        offers = self._offers.get(prefix, {})
        old = self._carrier.get(prefix)
        if not offers:
            self._offers.pop(prefix, None)
            self._carrier.pop(prefix, None)
            return {old} if old is not None else set()
        if old in offers and (offers[old] or not any(offers.values())):
            return set()
        new = min((node_id for node_id, online in offers.items() if online), default=min(offers))
        if new == old:
            return set()
        self._carrier[prefix] = new
        return {new} if old is None else {new, old}
