"""What a policy claims of itself in `tests`: who reaches what, and who does not."""

from __future__ import annotations

from collections.abc import Iterable

from meshd._fast.ipprefix import Prefix
from meshd._fast.ipset import IPSet
from meshd.base.addr import IPPrefix
from meshd.coord.network import Network
from meshd.coord.policy.compile import CompiledPolicy, Endpoint
from meshd.coord.policy.document import Claim, PolicyDocument, Rule, Target, prefix_of
from meshd.coord.policy.ports import ALL_PORTS, PROTOCOLS, WITH_PORTS, write_ports
from meshd.coord.records import NodeRecord

_DEFAULT_PROTOCOLS = frozenset((*PROTOCOLS["tcp"], *PROTOCOLS["udp"], *PROTOCOLS["icmp"]))
"""Of rules and claims that name none."""


def broken_claims(document: PolicyDocument, network: Network) -> list[str]:
    """A line for each claim that does not hold for the users and nodes of now, with the place where it stands.

    What is accepted must be so from every address of the source, to one of the target's at least. What is denied must
    be so from every address of the source to every one of the target's.
    """
    if not document.claims:
        return []
    judge = _Judge(document, network)
    return [f"{claim.place}: {problem}" for claim in document.claims for problem in judge.problems(claim)]


class _Judge:
    def __init__(self, document: PolicyDocument, network: Network) -> None:
        self._rules = document.rules
        self._policy = CompiledPolicy(document, network)
        self._nodes = list(network.nodes.values())
        self._sets: dict[tuple[str, ...], IPSet] = {}

    def problems(self, claim: Claim) -> Iterable[str]:
        source = self._named(claim.source)
        if not source:
            yield f"{claim.source} stands for no address here"
            return
        protocols = frozenset(claim.protocols) or _DEFAULT_PROTOCOLS
        for target in claim.accept:
            yield from self._problem(claim, source, target, protocols, wanted=True)
        for target in claim.deny:
            yield from self._problem(claim, source, target, protocols, wanted=False)

    def _problem(
        self, claim: Claim, source: IPSet, target: Target, protocols: frozenset[int], *, wanted: bool
    ) -> Iterable[str]:
        goal = self._named(target.alias)
        if not goal:
            yield f"{target.alias} stands for no address here"
            return
        let_in = self._let_in(goal, target, protocols)
        if wanted and source - let_in:
            yield f"{claim.source} cannot reach {target.alias}:{write_ports(target.ports)}"
        elif not wanted and source & let_in:
            yield f"{claim.source} can reach {target.alias}:{write_ports(target.ports)}"

    def _let_in(self, goal: IPSet, wanted: Target, protocols: frozenset[int]) -> IPSet:
        """From where something of the goal is reached at one of the wanted ports."""
        found = IPSet()
        if wanted.ports != (ALL_PORTS,):
            protocols &= WITH_PORTS  # who may ping a node does not reach its ports
        for rule in self._rules:
            if protocols.isdisjoint(rule.protocols or _DEFAULT_PROTOCOLS):
                continue
            for target in rule.targets:
                if not any(first <= a and b <= last for a, b in wanted.ports for first, last in target.ports):
                    continue
                if target.alias == "autogroup:self":
                    found |= self._own(rule, goal)
                elif self._set((target.alias,)) & goal:
                    found |= self._set(rule.sources)
        return found

    def _own(self, rule: Rule, goal: IPSet) -> IPSet:
        """The sources that belong to the same user as a node of the goal."""
        reached = [node for node in self._nodes if not node.tags and _addresses([node]) & goal]
        users = {node.user_id for node in reached}
        own = _addresses(node for node in self._nodes if not node.tags and node.user_id in users)
        return own & self._set(rule.sources)

    def _named(self, alias: str) -> IPSet:
        """What a claim means by an alias: by `*`, all nodes."""
        return _addresses(self._nodes) if alias == "*" else self._set((alias,))

    def _set(self, aliases: tuple[str, ...]) -> IPSet:
        found = self._sets.get(aliases)
        if found is None:
            found = self._sets[aliases] = _of(self._policy.endpoint(aliases))
        return found


def _of(endpoint: Endpoint) -> IPSet:
    named = (prefix_of(text) for text in endpoint.addresses if text != "*")
    return _set_of([*endpoint.beyond, *(prefix for prefix in named if prefix is not None)])


def _addresses(nodes: Iterable[NodeRecord]) -> IPSet:
    owned = (prefix_of(text) for node in nodes for text in node.addresses)
    return _set_of(prefix for prefix in owned if prefix is not None)


def _set_of(prefixes: Iterable[IPPrefix]) -> IPSet:
    return IPSet(prefixes=[Prefix(prefix.network_address.packed, prefix.prefixlen) for prefix in prefixes])
