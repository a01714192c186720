"""The host's packet filter and forwarding as one node needs them, and what the user should know about them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Protocol

from meshd.core.firewall import FirewallConfig, firewall_config
from meshd.core.node import Node
from meshd.core.prefs import Prefs
from meshd.host.linux.forwarding import reverse_path_problem
from meshd.host.linux.netfilter import Outcome

_DOCKER = "docker0"
_FORWARDING_OFF = (
    "Subnet routing is enabled, but IP forwarding is disabled. Check that IP forwarding is enabled on your machine."
)
_NO_SNAT = (
    "snat-subnet-routes is disabled while advertising as an exit node; internet traffic through this exit node may "
    "not work as expected"
)
_DOCKER_STATEFUL = (
    "Stateful filtering is enabled and Docker was detected; this may prevent Docker containers on this host from "
    "resolving DNS and connecting to Tailscale nodes. See https://tailscale.com/s/stateful-docker"
)


class Host(Protocol):
    """What is asked about the host."""

    def forwarding_problem(self, routes: list[str]) -> str: ...

    def strict_interfaces(self) -> Collection[str]: ...


class Keeper(Protocol):
    """Who carries out the rules."""

    def want(self, config: FirewallConfig) -> None: ...

    def look(self) -> None: ...


class HostFilter:
    """``apply`` and ``stop`` follow the node; what is wrong is told by ``report`` as code and text."""

    def __init__(
        self,
        host: Host,
        report: Callable[[str, str | None], None],
        mode_known: Callable[[str], None],
        interfaces: Path = Path("/sys/class/net"),
    ) -> None:
        self._host = host
        self._report = report
        self._mode_known = mode_known
        self._interfaces = interfaces
        self.keeper: Keeper | None = None
        self._prefs: Prefs | None = None
        self._outcome: Outcome | None = None

    def apply(self, self_node: Node, prefs: Prefs) -> None:
        """What the host should do for this node from now on."""
        self._prefs = prefs
        if self.keeper is not None:
            self.keeper.want(firewall_config(self_node, prefs))
        self.judge()

    def stop(self) -> None:
        """Nothing any more."""
        self._prefs = None
        if self.keeper is not None:
            self.keeper.want(FirewallConfig())
        self.judge()

    def changed(self) -> None:
        """Something about the host is different now."""
        if self.keeper is not None:
            self._outcome = None  # until the rules fit again
            self.keeper.look()
        self.judge()

    def done(self, outcome: Outcome) -> None:
        """The rules were set, or not."""
        self._outcome = outcome
        self._mode_known(outcome.mode)
        self._report("firewall", outcome.problem or None)
        self.judge()

    def judge(self) -> None:
        """Report what is wrong with the host, and what no longer is."""
        prefs = self._prefs or Prefs()
        routes = list(prefs.advertise_routes or ())
        stateful = prefs.no_stateful_filtering is False and prefs.netfilter_mode != 0
        self._report("ip-forwarding-off", _FORWARDING_OFF if self._host.forwarding_problem(routes) else None)
        self._report("nosnat-with-advertised-exit-node", _NO_SNAT if prefs.no_snat and prefs.offers_exit_node else None)
        self._report(
            "docker-stateful-filtering",
            _DOCKER_STATEFUL if stateful and (self._interfaces / _DOCKER).exists() else None,
        )
        self._report("exit-node-misconfiguration", self._strict_check(prefs) or None)

    def _strict_check(self, prefs: Prefs) -> str:
        """EX-09. Where our rules mark answers to this node's own packets, exit nodes work all the same."""
        if not prefs.wants_exit_node or self.keeper is None:
            return ""
        if prefs.netfilter_mode == 2 and (self._outcome is None or self._outcome.answers_marked):
            return ""
        return reverse_path_problem(list(self._host.strict_interfaces()))
