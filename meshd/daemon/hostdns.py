"""The DNS of the host as one node needs it, and what the user should know about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from meshd.base.errors import MeshdError
from meshd.base.log import get_logger, kv
from meshd.core.dnscompile import OSConfig, ResolverConfig, compile_dns
from meshd.core.dnsplan import DNSPlan, dns_plan, normal, within
from meshd.core.netmap import Netmap
from meshd.core.ownhosts import needed_beside
from meshd.core.prefs import Prefs
from meshd.host.resolvconf import host_resolvers, network_resolvers
from meshd.wire.control import Resolver

if TYPE_CHECKING:
    from meshd.host.linux.dnskeeper import Outcome

log = get_logger(__name__)


class Keeper(Protocol):
    """Who carries it out."""

    @property
    def outcome(self) -> Outcome: ...

    def want(self, plan: DNSPlan, hosts: tuple[str, ...]) -> None: ...

    def look(self) -> None: ...


class HostNames:
    """``apply`` follows the node; what is wrong is told by ``report`` as code and text, and to our own resolver what
    it has to do by ``resolver``.

    Without a ``keeper`` (no tunnel interface, so no program could ask us) the host's DNS is nobody's business.
    """

    def __init__(self, report: Callable[[str, str | None], None], resolver: Callable[[ResolverConfig], None]) -> None:
        self._report = report
        self._resolver = resolver
        self.keeper: Keeper | None = None

    def apply(self, netmap: Netmap | None, prefs: Prefs | None) -> None:
        """What the host should do for this node from now on; with None it is as it was without us."""
        plan = dns_plan(netmap, prefs) if prefs is not None else DNSPlan()
        hosts = hosts_beyond(netmap, plan) if netmap is not None else ()
        if self.keeper is not None:
            self.keeper.want(plan, hosts)
            return
        try:
            base = host_resolvers() if plan.accepted else OSConfig()
        except MeshdError as error:
            log.info("host_resolvers_unknown", extra=kv(reason=error.message))
            base = OSConfig()
        self._resolver(compile_dns(plan, hosts, can_split=False, base=base)[0])

    def changed(self) -> None:
        """The host's networks are different now."""
        if self.keeper is not None:
            self.keeper.look()

    def done(self, outcome: Outcome) -> None:
        """It was carried out, or not."""
        self._report("dns-read-os-config-failed", outcome.read_problem or None)
        self._report("dns-set-os-config-failed", outcome.set_problem or None)
        self._report("dns-manager", outcome.manager_problem or None)
        self._report("resolv-conf-overwritten", "overwritten" if outcome.overwritten else None)

    def base(self) -> OSConfig:
        """The resolvers of the host without us. Raises MeshdError."""
        known = self.keeper.outcome.base if self.keeper is not None else None
        return known if known is not None else host_resolvers()

    def beside(self, name: str, netmap: Netmap | None, prefs: Prefs) -> tuple[Resolver, ...]:
        """The resolvers of the host's own networks for a name that we need to reach the network at all; none for all
        other names."""
        if not needed_beside(name, netmap, prefs):
            return ()
        try:
            servers = network_resolvers(self.base())
        except MeshdError as error:
            log.info("host_resolvers_unknown", extra=kv(reason=error.message))
            return ()
        return tuple(Resolver(addr=str(server)) for server in servers)


def hosts_beyond(netmap: Netmap, plan: DNSPlan) -> tuple[str, ...]:
    """The names that we answer and no suffix of ours covers; a few, if any."""
    if not plan.accepted:
        return ()
    names = set(map(normal, plan.records))
    own = "." + normal(netmap.magic_dns_suffix)
    peers = map(normal, (node.name for node in (netmap.self_node, *netmap.peers.values())))
    names.update(name for name in peers if not name.endswith(own))
    return tuple(sorted(name for name in names if name and not any(within(name, suffix) for suffix in plan.routes)))
