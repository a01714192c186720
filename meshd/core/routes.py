"""Which of a peer's prefixes this node accepts, and what the host's routing table should hold.

Pure decisions; ``meshd.host`` carries them out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from meshd.base.addr import IPAddress, IPPrefix, host_prefix
from meshd.base.ranges import CGNAT, SERVICE_V4, ULA, is_tailscale_ip

# Beyond this many single IPv4 addresses one route for the whole range replaces them.
MAX_SINGLE_ROUTES = 10_000

_DEFAULT_V4 = IPv4Network("0.0.0.0/0")
_DEFAULT_V6 = IPv6Network("::/0")


@dataclass(frozen=True, slots=True)
class RouterConfig:
    """Everything the host should hold for us. ``throws`` are prefixes that must stay with the host."""

    addresses: tuple[IPPrefix, ...] = ()
    routes: frozenset[IPPrefix] = frozenset()
    throws: frozenset[IPPrefix] = frozenset()
    mtu: int = 1280


def accepted_prefixes(
    addresses: Iterable[IPPrefix], allowed: Iterable[IPPrefix], *, subnets: bool, exit_node: bool
) -> tuple[IPPrefix, ...]:
    """The prefixes of a peer that packets may go to and come from (RT-02).

    ``addresses`` are the peer's own, ``allowed`` what control lets it carry. Default routes count only for
    the chosen exit node, other subnets only when this node accepts routes.
    """
    own = set(addresses)
    accepted: list[IPPrefix] = []
    for prefix in allowed:
        if prefix.prefixlen == 0:
            if exit_node:
                accepted.append(prefix)
        elif prefix in own or _single_tailscale(prefix) or subnets:
            accepted.append(prefix)
    return tuple(accepted)


def _single_tailscale(prefix: IPPrefix) -> bool:
    return prefix.prefixlen == prefix.max_prefixlen and is_tailscale_ip(prefix.network_address)


class RouteTable:
    """The union of all peers' accepted prefixes, kept current in O(1) per prefix."""

    def __init__(self) -> None:
        self._by_peer: dict[bytes, tuple[IPPrefix, ...]] = {}
        self._count: Counter[IPPrefix] = Counter()
        self._single_v4 = 0
        self._single_v6 = 0
        self.generation = 0
        """Grows with every prefix that appears or disappears."""

    def set_peer(self, key: bytes, prefixes: tuple[IPPrefix, ...]) -> None:
        """Replace what the peer of this node key carries; an empty tuple removes it."""
        if self._by_peer.get(key, ()) == prefixes:
            return
        for prefix in self._by_peer.pop(key, ()):
            self._add(prefix, -1)
        if prefixes:
            self._by_peer[key] = prefixes
            for prefix in prefixes:
                self._add(prefix, 1)

    def clear(self) -> None:
        self._by_peer.clear()
        self._count.clear()
        self._single_v4 = self._single_v6 = 0
        self.generation += 1

    def _add(self, prefix: IPPrefix, step: int) -> None:
        before = self._count[prefix]
        self._count[prefix] = before + step
        if before + step == 0:
            del self._count[prefix]
        if before == 0 or before + step == 0:
            self.generation += 1
        if (before == 0) != (before + step == 0) and _single_tailscale(prefix):
            if prefix.version == 4:
                self._single_v4 += step
            else:
                self._single_v6 += step

    def routes(self) -> frozenset[IPPrefix]:
        """Routes for the host (RT-03): single ULA addresses as one /48, very many CGNAT ones as one /10."""
        merge_v4 = self._single_v4 > MAX_SINGLE_ROUTES
        wanted: set[IPPrefix] = set()
        for prefix in self._count:
            if _single_tailscale(prefix) and (prefix.version == 6 or merge_v4):
                continue
            wanted.add(prefix)
        if self._single_v6:
            wanted.add(ULA)
        if merge_v4:
            wanted.add(CGNAT)
        return frozenset(wanted)


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
    own = tuple(addresses)
    wanted = set(routes)
    if any(isinstance(prefix, IPv4Network) for prefix in own):
        wanted.add(host_prefix(SERVICE_V4))
    local = {p for p in attached if p.prefixlen < p.max_prefixlen and not is_tailscale_ip(p.network_address)}
    throws: set[IPPrefix] = set()
    if exit_node:
        wanted |= {_DEFAULT_V4, _DEFAULT_V6}
        if lan_access:
            throws |= {p for p in local if not p.is_link_local}
        else:
            wanted |= {p for p in local if not p.is_loopback and not p.is_link_local}
        throws |= {p for p in local if p.is_loopback}
    else:
        subnets = [p for p in wanted if p.prefixlen < p.max_prefixlen and p.prefixlen > 0]
        throws = {p for p in local if any(_covers(s, p) for s in subnets)}
    return RouterConfig(own, frozenset(wanted - throws), frozenset(throws), mtu)


def _covers(outer: IPPrefix, inner: IPPrefix) -> bool:
    if isinstance(outer, IPv4Network):
        return isinstance(inner, IPv4Network) and outer.supernet_of(inner)
    return isinstance(inner, IPv6Network) and outer.supernet_of(inner)


def single_addresses(prefixes: Iterable[IPPrefix]) -> list[IPAddress]:
    """The addresses among ``prefixes``: those of full length."""
    return [p.network_address for p in prefixes if p.prefixlen == p.max_prefixlen]
