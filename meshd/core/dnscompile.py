"""What a DNS plan means for our own resolver and for the operating system.

Names are lower case and without dots at their ends.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from meshd.base.addr import IPAddress
from meshd.base.errors import MeshdError
from meshd.base.ranges import SERVICE_V4, SERVICE_V6
from meshd.core.dnsattempts import DNS_PORT, resolver_address
from meshd.core.dnsplan import DNSPlan, told, within
from meshd.core.publicdns import is_https_only
from meshd.wire.control import Resolver

BASE_UNKNOWN = "dns-base"
"""The error of ``compile_dns`` that calls for the resolvers of the host."""


MAX_LOOSE = 128
"""Names outside of our suffixes that a system which splits is told one by one. systemd-resolved refuses more than 256
domains of a link, and then it would have none of them."""


class ResolverConfig(msgspec.Struct, frozen=True):
    """What our own resolver asks others, and whom: ``routes`` are suffixes ("" = all names) to forwarders, the longest
    suffix counts. Names below ``local_domains`` are answered by ourselves alone: those we do not know do not exist.
    ``only_ipv6``: this node has no IPv4 address in the network."""

    routes: dict[str, tuple[Resolver, ...]] = msgspec.field(default_factory=dict)
    local_domains: tuple[str, ...] = ()
    only_ipv6: bool = False


class OSConfig(msgspec.Struct, frozen=True):
    """What the operating system is told. With ``match_domains`` only names below these go to ``nameservers``, without
    them all names do. ``search_domains`` are tried, in order, behind short names."""

    nameservers: tuple[IPAddress, ...] = ()
    search_domains: tuple[str, ...] = ()
    match_domains: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """The operating system is left as it was."""
        return not (self.nameservers or self.search_domains or self.match_domains)


def compile_dns(
    plan: DNSPlan, hosts: Iterable[str], *, can_split: bool, base: OSConfig | None
) -> tuple[ResolverConfig, OSConfig]:
    """DN-11: what our resolver is told, and the operating system.

    ``hosts`` are the names that our resolver knows, ``base`` what the operating system has without us. Raises
    MeshdError of code ``BASE_UNKNOWN`` when ``base`` is needed and None: with it nothing would be resolved any more.
    """
    split = {suffix: chosen for suffix, chosen in plan.routes.items() if chosen}
    local = tuple(sorted(suffix for suffix in plan.routes if suffix not in split))

    def ours(routes: dict[str, tuple[Resolver, ...]]) -> ResolverConfig:
        return ResolverConfig(routes, local, plan.only_ipv6)

    search = plan.search
    if not plan.resolves:
        return ours({}), OSConfig(search_domains=search)
    service: tuple[IPAddress, ...] = (SERVICE_V6,) if plan.only_ipv6 else (SERVICE_V4,)
    names = {*map(told, hosts), plan.unrouted} if plan.routes or plan.defaults else {*map(told, hosts)}
    loose = sorted(name for name in names if name and not any(within(name, suffix) for suffix in plan.routes))
    # Resolvers that are told to the system directly know nothing of these.
    ours_alone = bool(loose or plan.unrouted)
    if plan.defaults:
        plain = plain_addresses(plan.defaults)
        if plain and not plan.routes and not ours_alone:
            return ours({}), OSConfig(plain, search)
        return ours({**split, "": plan.defaults}), OSConfig(service, search)
    matched = tuple(sorted({*plan.routes, *loose}))
    beyond = tuple(Resolver(addr=str(server)) for server in base.nameservers) if base is not None else ()
    if can_split and (len(loose) <= MAX_LOOSE or base is None):
        sets = set(plan.routes.values())
        alone = plain_addresses(next(iter(sets))) if len(sets) == 1 and not ours_alone else ()
        if alone:
            return ours({}), OSConfig(alone, search, matched)
        if beyond:  # below these there may be other names, which only the others know
            split |= dict.fromkeys(loose, beyond)
        return ours(split), OSConfig(service, search, matched)
    if base is None:
        raise MeshdError(
            "the resolvers of this host are not known, and names that are not the network's would reach nobody",
            code=BASE_UNKNOWN,
        )
    routes = {**split, "": beyond} if beyond else split
    return ours(routes), OSConfig(service, tuple(dict.fromkeys((*search, *base.search_domains))))


def plain_addresses(resolvers: Iterable[Resolver]) -> tuple[IPAddress, ...]:
    """The addresses of resolvers that speak plain DNS at port 53; none when one of them does not."""
    found = [resolver_address(resolver.addr) for resolver in resolvers]
    plain = tuple(a.ip for a in found if a is not None and a.port == DNS_PORT and not is_https_only(a.ip))
    return plain if len(plain) == len(found) else ()
