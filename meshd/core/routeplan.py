"""The host's routes, kept current in time proportional to what changed.

``meshd.core.routes.router_config`` says what the host should hold, all of it. A `RoutePlan` remembers what that
was made of and answers for single prefixes, so that a peer that comes or goes costs the same in a network of
ten nodes and of ten thousand.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from meshd.base.addr import IPPrefix
from meshd.core.routes import RouterConfig, RouteTable, fixed_routes, local_prefixes, router_config


class RouteChange(msgspec.Struct, frozen=True):
    """How the host should hold some prefixes from now on; what it holds already is no harm.

    ``routes`` lead into the network, ``throws`` stay with the host, ``gone`` are neither.
    """

    routes: tuple[IPPrefix, ...]
    throws: tuple[IPPrefix, ...]
    gone: tuple[IPPrefix, ...]


class RoutePlan:
    """``config`` is the whole, ``changes`` what became different since then."""

    def __init__(self, table: RouteTable) -> None:
        self._table = table
        self._extra: frozenset[IPPrefix] = frozenset()
        self._throws: frozenset[IPPrefix] = frozenset()
        self._around: dict[IPPrefix, tuple[IPPrefix, ...]] = {}
        self._exit_node = False

    def config(
        self,
        addresses: Iterable[IPPrefix],
        attached: Iterable[IPPrefix],
        *,
        exit_node: bool = False,
        lan_access: bool = False,
        mtu: int = 1280,
    ) -> RouterConfig:
        """All that the host should hold now; the arguments are those of ``router_config``."""
        own, attached = tuple(addresses), tuple(attached)
        self._table.take_touched()
        local = local_prefixes(attached)
        self._extra, self._throws = fixed_routes(own, attached, exit_node=exit_node, lan_access=lan_access)
        self._around = dict.fromkeys(local, ())
        self._exit_node = exit_node
        return router_config(own, self._table.routes(), attached, exit_node=exit_node, lan_access=lan_access, mtu=mtu)

    def changes(self) -> RouteChange | None:
        """What changed since ``config`` or the last call, under the same arguments; None: ask for ``config``."""
        touched = self._table.take_touched()
        if touched is None:
            return None
        if not self._exit_node and self._around:
            for prefix in [p for p in touched if p.prefixlen < p.max_prefixlen]:
                touched |= {p for p in self._around if prefix in self._supernets(p)}
        routes, throws, gone = [], [], []
        for prefix in touched:
            if (self._throws and prefix in self._throws) or (
                self._around and not self._exit_node and self._stays_local(prefix)
            ):
                throws.append(prefix)
            elif self._table.wants(prefix) or prefix in self._extra:
                routes.append(prefix)
            else:
                gone.append(prefix)
        return RouteChange(tuple(routes), tuple(throws), tuple(gone))

    def _stays_local(self, prefix: IPPrefix) -> bool:
        """A network of the host's own, inside an accepted route or the same."""
        return prefix in self._around and any(map(self._table.wants, self._supernets(prefix)))

    def _supernets(self, local: IPPrefix) -> tuple[IPPrefix, ...]:
        """The prefixes, other than default routes, that cover a network of the host's own; it is one of them."""
        found = self._around[local]
        if not found:
            found = tuple(local.supernet(new_prefix=bits) for bits in range(1, local.prefixlen + 1))
            self._around[local] = found
        return found
