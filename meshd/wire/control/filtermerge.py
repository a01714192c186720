"""The named packet filters of a map stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from meshd.wire.control.filter import FilterRule

MAX_NAMED_FILTERS: Final = 1024
"""Names come from the network and stay for the life of a stream; a server uses one or two."""

_BASE: Final = "base"
_ALL: Final = "*"


class NamedFilters:
    """Filters by name, empty at the start of a stream. No rule at all denies everything inbound."""

    __slots__ = ("_named",)

    def __init__(self) -> None:
        self._named: dict[str, tuple[FilterRule, ...]] = {}

    def apply(
        self,
        packet_filter: tuple[FilterRule, ...] | None,
        packet_filters: Mapping[str, tuple[FilterRule, ...] | None],
    ) -> bool:
        """Take in the two fields of a map response; returns whether they said anything.

        `packet_filter` replaces the one named `base`. In `packet_filters` a None deletes that name and a
        None for `*` deletes all names first; an empty tuple keeps the name with no rules. Names beyond
        `MAX_NAMED_FILTERS` are not taken in, which can only deny.
        """
        named = self._named
        before = dict(named)
        if packet_filter is not None:
            named[_BASE] = _kept(before.get(_BASE, ()), packet_filter)
        if _ALL in packet_filters and packet_filters[_ALL] is None:
            named.clear()
        for name, rules in packet_filters.items():
            if name == _ALL:
                continue
            if rules is None:
                named.pop(name, None)
            elif name in named or len(named) < MAX_NAMED_FILTERS:
                named[name] = _kept(before.get(name, ()), rules)
        return packet_filter is not None or bool(packet_filters)

    def effective(self) -> tuple[FilterRule, ...]:
        """All rules, in the order of the names."""
        return tuple(rule for name in sorted(self._named) for rule in self._named[name])


def _kept(old: tuple[FilterRule, ...], new: tuple[FilterRule, ...]) -> tuple[FilterRule, ...]:
    """``new``, with the objects of ``old`` for rules that are the same and in the same place, counted from the first
    or from the last: identity then says "unchanged" to whoever works out what rules mean."""
    shift = len(new) - len(old)

    def kept(place: int, rule: FilterRule) -> FilterRule:
        for there in (place, place - shift):
            if 0 <= there < len(old) and old[there] == rule:
                return old[there]
        return rule

    return tuple(kept(place, rule) for place, rule in enumerate(new))
