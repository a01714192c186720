"""Which of a peer's prefixes this node accepts, and what the host's routing table should hold.

Pure decisions; ``meshd.host`` carries them out.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import TypeVar

import msgspec

from meshd.base.addr import IPPrefix, covers, host_prefix
from meshd.base.ranges import CGNAT, SERVICE_V4, SERVICE_V6, ULA, is_tailscale_ip

# Beyond this many single IPv4 addresses one route for the whole range replaces them.
MAX_SINGLE_ROUTES = 10_000

Key = TypeVar("Key", bound=Hashable)

_FULL = {4: 32, 6: 128}
_DEFAULT_V4 = IPv4Network("0.0.0.0/0")
_DEFAULT_V6 = IPv6Network("::/0")


class RouterConfig(msgspec.Struct, frozen=True):
    """Everything the host should hold for us. ``throws`` are prefixes that must stay with the host."""

    addresses: tuple[IPPrefix, ...] = ()
    routes: frozenset[IPPrefix] = frozenset()
    throws: frozenset[IPPrefix] = frozenset()
    mtu: int = 1280


def accepted_prefixes(
    addresses: tuple[IPPrefix, ...], allowed: tuple[IPPrefix, ...], *, subnets: bool, exit_node: bool
) -> tuple[IPPrefix, ...]:
    """The prefixes of a peer that packets may go to and come from (RT-02).

    ``addresses`` are the peer's own, ``allowed`` what control lets it carry. Default routes count only for
    the chosen exit node, other subnets only when this node accepts routes.
    """
    if allowed is addresses:  # what a peer without routes has, and all of them are single
        return addresses
    own = set(addresses)
    accepted: list[IPPrefix] = []
    for prefix in allowed:
        if prefix.prefixlen == 0:
            if exit_node:
                accepted.append(prefix)
        elif prefix in own or _single(prefix) is not None or subnets:
            accepted.append(prefix)
    return tuple(accepted)


def _single(prefix: IPPrefix) -> int | None:
    """The number of a node's address, None for every other prefix."""
    address = prefix.network_address
    return int(address) if prefix.prefixlen == _FULL[prefix.version] and is_tailscale_ip(address) else None


class RouteTable:
    """The union of all peers' accepted prefixes, kept current in O(1) per prefix.

    ``routes`` is what the host needs for it; ``wants`` answers that for one prefix, and ``take_touched`` names
    the prefixes for which the answer may have changed.
    """

    def __init__(self) -> None:
        self._by_peer: dict[Hashable, tuple[IPPrefix, ...]] = {}
        # How many peers carry a prefix, or by its number a single address.
        self._others: dict[IPPrefix, int] = {}
        self._single_v4: dict[int, int] = {}
        self._single_v6: dict[int, int] = {}
        self._touched: set[IPPrefix] | None = None
        self._max_single = MAX_SINGLE_ROUTES
        self._merges_v4 = False

    def prefer_one_route(self, preferred: bool) -> None:
        """Whether two single IPv4 addresses are enough for the one route (RT-04), or very many must come."""
        self._max_single = 1 if preferred else MAX_SINGLE_ROUTES
        self._merge(len(self._single_v4) > self._max_single)

    @property
    def touched(self) -> bool:
        """Whether anything may have changed since the last ``take_touched``."""
        return self._touched is None or bool(self._touched)

    def take_touched(self) -> set[IPPrefix] | None:
        """The prefixes that may have become wanted or unwanted since the last call; None: any may have."""
        touched, self._touched = self._touched, set()
        return touched

    def set_peer(self, peer: Hashable, prefixes: tuple[IPPrefix, ...]) -> None:
        """Replace what a peer, by any name of it that stays, carries; an empty tuple removes it."""
        before = self._by_peer.get(peer, ())
        if before is prefixes or before == prefixes:
            return
        if prefixes:
            self._by_peer[peer] = prefixes
        else:
            del self._by_peer[peer]
        for prefix in before:
            self._add(prefix, -1)
        for prefix in prefixes:
            self._add(prefix, 1)

    def clear(self) -> None:
        for what in (self._by_peer, self._others, self._single_v4, self._single_v6):
            what.clear()
        self._merges_v4, self._touched = False, None

    def _add(self, prefix: IPPrefix, step: int) -> None:
        number = _single(prefix)
        if number is None:
            if _count(self._others, prefix, step):
                self._touch(prefix)
        elif prefix.version == 6:
            if _count(self._single_v6, number, step) and len(self._single_v6) == (step > 0):
                self._touch(ULA)  # the first came or the last went
        else:
            if not _count(self._single_v4, number, step):
                return
            count = len(self._single_v4)
            # A network whose size is about the limit must not change all routes with every peer that comes or goes.
            self._merge(count > self._max_single - (self._max_single // 10 if self._merges_v4 else 0))
            if not self._merges_v4:
                self._touch(prefix)

    def _merge(self, merges: bool) -> None:
        if merges != self._merges_v4:
            self._merges_v4, self._touched = merges, None

    def _touch(self, prefix: IPPrefix) -> None:
        if self._touched is not None:
            self._touched.add(prefix)

    def wants(self, prefix: IPPrefix) -> bool:
        """Whether ``prefix`` is one of ``routes``."""
        number = _single(prefix)
        if number is not None:
            return prefix.version == 4 and not self._merges_v4 and number in self._single_v4
        if prefix == ULA and self._single_v6:
            return True
        if prefix == CGNAT and self._merges_v4:
            return True
        return prefix in self._others

    def routes(self) -> frozenset[IPPrefix]:
        """Routes for the host (RT-03): single ULA addresses as one /48, very many CGNAT ones as one /10."""
        wanted = set(self._others)
        if self._single_v6:
            wanted.add(ULA)
        if self._merges_v4:
            wanted.add(CGNAT)
        else:
            wanted.update(host_prefix(IPv4Address(number)) for number in self._single_v4)
        return frozenset(wanted)


def _count(counts: dict[Key, int], key: Key, step: int) -> bool:
    """Add to the number of those who carry something; whether the first came or the last went."""
    before = counts.get(key, 0)
    after = before + step
    if after:
        counts[key] = after
    else:
        del counts[key]
    return not (before and after)


def router_config(
    addresses: Iterable[IPPrefix],
    routes: frozenset[IPPrefix],
    attached: Iterable[IPPrefix],
    *,
    exit_node: bool = False,
    lan_access: bool = False,
    mtu: int = 1280,
) -> RouterConfig:
    """What the host should hold (RT-05 to RT-07).

    ``attached`` are the prefixes of the host's other interfaces. They win over accepted routes that are as
    wide or wider. With an exit node both default routes are present even when nobody carries one of them,
    so that nothing leaks, and the local networks stay local only with ``lan_access``.
    """
    own, attached = tuple(addresses), tuple(attached)
    local = local_prefixes(attached)
    extra, throws = fixed_routes(own, attached, exit_node=exit_node, lan_access=lan_access)
    wanted = routes | extra
    if not exit_node:
        subnets = [p for p in routes if 0 < p.prefixlen < p.max_prefixlen]
        throws = frozenset(p for p in local if any(covers(s, p) for s in subnets))
    return RouterConfig(own, wanted - throws, throws, mtu)


def local_prefixes(attached: Iterable[IPPrefix]) -> frozenset[IPPrefix]:
    """The host's own networks among the prefixes of its interfaces."""
    return frozenset(p for p in attached if p.prefixlen < p.max_prefixlen and not is_tailscale_ip(p.network_address))


def fixed_routes(
    own: tuple[IPPrefix, ...], attached: Iterable[IPPrefix], *, exit_node: bool, lan_access: bool
) -> tuple[frozenset[IPPrefix], frozenset[IPPrefix]]:
    """Routes and throws that do not depend on what peers carry."""
    attached = tuple(attached)
    local = local_prefixes(attached)
    extra: set[IPPrefix] = set()
    throws: set[IPPrefix] = set()
    if any(isinstance(prefix, IPv4Network) for prefix in own):
        extra.add(host_prefix(SERVICE_V4))
    if any(isinstance(prefix, IPv6Network) for prefix in own):
        extra.add(host_prefix(SERVICE_V6))
    if exit_node:
        extra |= {_DEFAULT_V4, _DEFAULT_V6}
        if lan_access:
            throws |= {p for p in local if not p.is_link_local}
            # Providers use the mesh's range for networks of theirs; the single routes of peers in one are longer.
            throws |= {p for p in attached if CGNAT.prefixlen < p.prefixlen < p.max_prefixlen and covers(CGNAT, p)}
        else:
            extra |= {p for p in local if not p.is_loopback and not p.is_link_local}
        throws |= {p for p in local if p.is_loopback}
    return frozenset(extra), frozenset(throws)
