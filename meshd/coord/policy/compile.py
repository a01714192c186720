"""From a policy and the nodes of the moment to filter rules and to who sees whom."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import cached_property, lru_cache
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from typing import Any

from meshd.base.addr import IPPrefix
from meshd.base.ranges import CGNAT, ULA
from meshd.coord.network import Network
from meshd.coord.policy.document import (
    NONROOT,
    AppGrant,
    Attributes,
    PolicyDocument,
    Rule,
    SSHAccess,
    Target,
    prefix_of,
)
from meshd.coord.records import EXIT_ROUTES, NodeRecord
from meshd.wire.control import (
    CapGrant,
    FilterRule,
    NetPortRange,
    PortRange,
    SSHAction,
    SSHPolicy,
    SSHPrincipal,
    SSHRule,
)

_SSH_ACCEPT = SSHAction(
    accept=True, allow_agent_forwarding=True, allow_local_port_forwarding=True, allow_remote_port_forwarding=True
)


class Endpoint:
    """What an alias stands for: addresses as a filter writes them, and the nodes that own or carry them."""

    __slots__ = ("addresses", "beyond", "node_ids", "of_nodes")

    def __init__(
        self,
        addresses: tuple[str, ...],
        node_ids: frozenset[int],
        *,
        beyond: tuple[IPPrefix, ...] = (),
        of_nodes: bool = False,
    ) -> None:
        self.addresses = addresses
        self.node_ids = node_ids
        self.beyond = beyond
        """What it names of networks that nodes may lead to."""
        self.of_nodes = of_nodes
        """The addresses are those of the nodes, and nothing else."""

    def addresses_at(self, node: NodeRecord) -> tuple[str, ...]:
        """What of it can come in at one of its nodes; the others' addresses are not for that one to know."""
        return (node.v4, node.v6) if self.of_nodes else self.addresses


class _Audience:
    """Who is shown which of the routes that a router carries; worked out once for all nodes that are alike."""

    __slots__ = ("_among", "_found", "_users")

    def __init__(self, users: tuple[tuple[str, frozenset[int]], ...]) -> None:
        self._users = users
        self._among = tuple({ids for _, ids in users})
        self._found: dict[tuple[bool, ...], tuple[str, ...]] = {}

    def shown(self, node: NodeRecord) -> tuple[str, ...]:
        own = frozenset(node.usable_routes)
        if own:  # who could take a route over must know who has it
            return tuple(route for route, ids in self._users if node.id in ids or route in own)
        alike = tuple([node.id in ids for ids in self._among])
        found = self._found.get(alike)
        if found is None:
            found = self._found[alike] = tuple(route for route, ids in self._users if node.id in ids)
        return found


class CompiledPolicy:
    """The `Access` of a network with a policy; valid until a node, its owner, tags or routes change."""

    everyone = False

    def __init__(self, document: PolicyDocument, network: Network) -> None:
        self._document = document
        self._network = network
        self._nodes = list(network.nodes.values())
        self._aliases: dict[str, Endpoint] = {}
        self._links: list[tuple[frozenset[int], frozenset[int]]] = []
        self._ways: list[tuple[Endpoint, Endpoint]] = []
        self._users: dict[tuple[frozenset[int], ...], frozenset[int]] = {}
        self._audiences: dict[tuple[str, ...], _Audience] = {}
        self._ssh: dict[tuple[tuple[SSHAccess, Endpoint], ...], SSHPolicy | None] = {}
        self._merged: dict[tuple[int, ...], Attributes] = {}
        self._compiled: list[tuple[tuple[str, ...], tuple[tuple[Endpoint, Target], ...], Rule]] = []
        self._grants: list[tuple[tuple[str, ...], Endpoint, AppGrant]] = []
        self._self_rules: list[tuple[Rule, Target]] = []
        self._self_grants: list[AppGrant] = []
        self._own_endpoints: dict[tuple[tuple[str, ...], int], Endpoint] = {}
        for rule in document.rules:
            self._add_rule(rule)
        for grant in document.grants:
            self._add_grant(grant)

    def visible(self, node_id: int) -> Collection[int]:
        seen: set[int] = set()
        for sources, targets in self._links:
            if node_id in sources:
                seen |= targets
            if node_id in targets:
                seen |= sources
        node = self._network.nodes.get(node_id)
        if node is not None and not node.tags and any(self._own(part, node).node_ids for part in self._self_parts()):
            seen.update(other.id for other in self._devices.get(node.user_id, ()))
        seen.discard(node_id)
        return seen

    def rules(self, node: NodeRecord) -> Sequence[FilterRule]:
        made: list[FilterRule] = []
        for sources, targets, rule in self._compiled:
            reached = [
                NetPortRange(ip=address, ports=PortRange(first=first, last=last))
                for endpoint, target in targets
                if node.id in endpoint.node_ids
                for address in endpoint.addresses_at(node)
                for first, last in target.ports
            ]
            if reached and sources:
                made.append(FilterRule(src_ips=sources, dst_ports=tuple(reached), ip_proto=rule.protocols))
        made.extend(self._rules_among_own(node))
        for sources, endpoint, grant in self._grants:
            if node.id in endpoint.node_ids and sources:
                made.append(_granted(sources, node, grant))
        made.extend(self._grants_among_own(node))
        return made

    def routes(self, node: NodeRecord, carried: tuple[str, ...]) -> tuple[str, ...]:
        found = self._audiences.get(carried)
        if found is None:
            found = self._audiences[carried] = _Audience(tuple((route, self._users_of(route)) for route in carried))
        return found.shown(node)

    def _users_of(self, route: str) -> frozenset[int]:
        """Ids of the nodes that may send to something behind a route, or are sent to from there."""
        if route in EXIT_ROUTES:
            return self._users_of_exits
        prefix = prefix_of(route)
        if prefix is None:
            return frozenset()
        first, last = int(prefix.network_address), int(prefix.broadcast_address)
        parts = tuple([ids for a, b, ids in self._spans[prefix.version] if a <= last and first <= b])
        found = self._users.get(parts)
        if found is None:
            found = self._users[parts] = frozenset().union(*parts)
        return found

    @cached_property
    def _spans(self) -> dict[int, list[tuple[int, int, frozenset[int]]]]:
        """From which address to which, of each version of IP, are those that some nodes may send to, or are sent to
        from."""
        found: dict[int, dict[tuple[int, int, frozenset[int]], None]] = {4: {}, 6: {}}
        for source, target in self._ways:
            for beyond, ids in ((target.beyond, source.node_ids), (source.beyond, target.node_ids)):
                for prefix in beyond:
                    found[prefix.version][int(prefix.network_address), int(prefix.broadcast_address), ids] = None
        return {version: list(spans) for version, spans in found.items()}

    @cached_property
    def _users_of_exits(self) -> frozenset[int]:
        leading_out = [source.node_ids for source, target in self._ways if any(map(_is_public, target.beyond))]
        return frozenset().union(*leading_out)

    def ssh(self, node: NodeRecord) -> SSHPolicy | None:
        let_in: list[tuple[SSHAccess, Endpoint]] = []
        for part, source, targets in self._logins:
            if node.id in targets:
                let_in.append((part, source))
            elif "autogroup:self" in part.targets and not node.tags:
                let_in.append((part, self._own(part, node)))
        alike = tuple(let_in)
        if alike not in self._ssh:
            rules = tuple(_login_rule(part, source) for part, source in let_in if source.addresses)
            self._ssh[alike] = SSHPolicy(rules=rules) if rules else None
        return self._ssh[alike]

    @cached_property
    def _logins(self) -> list[tuple[SSHAccess, Endpoint, frozenset[int]]]:
        """Who may log in where, besides at machines of their own."""
        return [
            (
                part,
                self.endpoint(part.sources),
                self.endpoint(tuple(t for t in part.targets if t != "autogroup:self")).node_ids,
            )
            for part in self._document.ssh
        ]

    def attributes(self, node: NodeRecord) -> Attributes:
        parts = tuple(n for n, (ids, _) in enumerate(self._attributes) if node.id in ids)
        found = self._merged.get(parts)
        if found is None:
            found = self._merged[parts] = {}
            for part in parts:
                for name, values in self._attributes[part][1].items():
                    found[name] = (*(found.get(name) or ()), *values) if values else found.get(name)
        return found

    @cached_property
    def _attributes(self) -> list[tuple[frozenset[int], Attributes]]:
        return [
            (frozenset().union(*map(self._named, part.targets)), part.attributes)
            for part in self._document.node_attributes
        ]

    def _named(self, alias: str) -> frozenset[int]:
        """Ids of the nodes that an alias stands for: of an address or prefix, those that have it, not those that carry
        a route to it."""
        prefix = self._prefix(alias)
        if prefix is None:
            return self._resolve(alias).node_ids
        return frozenset(node.id for node in self._nodes if any(_overlap(prefix_of(a), prefix) for a in node.addresses))

    def _prefix(self, alias: str) -> IPPrefix | None:
        return self._document.hosts.get(alias) or prefix_of(alias)

    @cached_property
    def _devices(self) -> dict[int, list[NodeRecord]]:
        """The nodes of each user, without those that belong to tags."""
        found: dict[int, list[NodeRecord]] = {}
        for node in self._nodes:
            if not node.tags:
                found.setdefault(node.user_id, []).append(node)
        return found

    # --- rules -------------------------------------------------------------------------------------------

    def _add_rule(self, rule: Rule) -> None:
        source = self.endpoint(rule.sources)
        targets: list[tuple[Endpoint, Target]] = []
        for target in rule.targets:
            if target.alias == "autogroup:self":
                self._self_rules.append((rule, target))
                continue
            endpoint = self._resolve(target.alias)
            targets.append((endpoint, target))
            self._links.append((source.node_ids, endpoint.node_ids))
            if source.beyond or endpoint.beyond:
                self._ways.append((source, endpoint))
        self._compiled.append((source.addresses, tuple(targets), rule))

    def _add_grant(self, grant: AppGrant) -> None:
        source = self.endpoint(grant.sources)
        for alias in grant.targets:
            if alias == "autogroup:self":
                self._self_grants.append(grant)
                continue
            target = self._resolve(alias)
            self._grants.append((source.addresses, target, grant))
            self._links.append((source.node_ids, target.node_ids))

    def _self_parts(self) -> Iterable[Rule | AppGrant]:
        yield from (rule for rule, _ in self._self_rules)
        yield from self._self_grants

    def _rules_among_own(self, node: NodeRecord) -> Iterable[FilterRule]:
        """Rules towards `autogroup:self`: the sources that belong to the same user as the node."""
        if node.tags:
            return
        for rule, target in self._self_rules:
            sources = self._own(rule, node).addresses
            if sources:
                yield FilterRule(
                    src_ips=sources,
                    dst_ports=tuple(
                        NetPortRange(ip=address, ports=PortRange(first=first, last=last))
                        for address in (node.v4, node.v6)
                        for first, last in target.ports
                    ),
                    ip_proto=rule.protocols,
                )

    def _grants_among_own(self, node: NodeRecord) -> Iterable[FilterRule]:
        """Capabilities towards `autogroup:self`, for the same sources."""
        if node.tags:
            return
        for grant in self._self_grants:
            sources = self._own(grant, node).addresses
            if sources:
                yield _granted(sources, node, grant)

    def _own(self, part: Rule | AppGrant | SSHAccess, node: NodeRecord) -> Endpoint:
        """The sources that belong to the node's user; worked out once for all nodes of that user."""
        key = part.sources, node.user_id
        found = self._own_endpoints.get(key)
        if found is None:
            allowed = self.endpoint(part.sources).node_ids
            own = self._devices.get(node.user_id, ())
            found = self._own_endpoints[key] = _of_nodes(other for other in own if other.id in allowed)
        return found

    # --- aliases -----------------------------------------------------------------------------------------

    def endpoint(self, aliases: tuple[str, ...]) -> Endpoint:
        """What aliases stand for together."""
        parts = [self._resolve(alias) for alias in aliases]
        addresses = dict.fromkeys(address for part in parts for address in part.addresses)
        if "*" in addresses:
            addresses = {"*": None}
        ids: frozenset[int] = frozenset().union(*(part.node_ids for part in parts))
        return Endpoint(tuple(addresses), ids, beyond=tuple(prefix for part in parts for prefix in part.beyond))

    def _resolve(self, alias: str) -> Endpoint:
        found = self._aliases.get(alias)
        if found is None:
            found = self._aliases[alias] = self._look_up(alias)
        return found

    def _look_up(self, alias: str) -> Endpoint:
        if alias == "*":
            return Endpoint(("*",), frozenset(node.id for node in self._nodes), beyond=_ANYWHERE)
        if alias == "autogroup:internet":
            exits = frozenset(node.id for node in self._nodes if set(node.usable_routes) & set(EXIT_ROUTES))
            return Endpoint(internet(), exits, beyond=_INTERNET)
        if alias == "autogroup:member":
            return _of_nodes(node for node in self._nodes if not node.tags)
        if alias == "autogroup:tagged":
            return _of_nodes(node for node in self._nodes if node.tags)
        if alias.startswith("tag:"):
            return _of_nodes(node for node in self._nodes if alias in node.tags)
        prefix = self._prefix(alias)
        if prefix is not None:
            return self._of_prefix(prefix)
        members = self._document.groups[alias] if alias.startswith("group:") else (alias,)
        owners = {user.id for user in self._network.users.values() if user.name in members}
        return _of_nodes(node for node in self._nodes if node.user_id in owners and not node.tags)

    def _of_prefix(self, prefix: IPPrefix) -> Endpoint:
        ids = frozenset(node_id for node_id, owned in self._prefixes if any(_overlap(own, prefix) for own in owned))
        return Endpoint((str(prefix),), ids, beyond=(prefix,))

    @cached_property
    def _prefixes(self) -> list[tuple[int, list[IPPrefix | None]]]:
        """What each node owns or carries. To read it again for each alias is most of the work of a long policy."""
        return [(node.id, [prefix_of(own) for own in (*node.addresses, *node.usable_routes)]) for node in self._nodes]


def compile_policy(document: PolicyDocument, network: Network) -> CompiledPolicy:
    """The access rules for the network as it is now."""
    return CompiledPolicy(document, network)


def _granted(sources: tuple[str, ...], node: NodeRecord, grant: AppGrant) -> FilterRule:
    capabilities: dict[str, tuple[Any, ...] | None] = dict(grant.capabilities)
    return FilterRule(src_ips=sources, cap_grant=(CapGrant(dsts=node.addresses, cap_map=capabilities),))


def _of_nodes(nodes: Iterable[NodeRecord]) -> Endpoint:
    chosen = list(nodes)
    return Endpoint(
        tuple(address for node in chosen for address in (node.v4, node.v6)),
        frozenset(node.id for node in chosen),
        of_nodes=True,
    )


def _overlap(a: IPPrefix | None, b: IPPrefix) -> bool:
    return a is not None and a.version == b.version and a.overlaps(b)


_NOT_INTERNET = (
    "10.0.0.0/8",
    str(CGNAT),
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "224.0.0.0/4",
    "240.0.0.0/4",
)
"""Special-purpose blocks (RFC 6890) that an exit node is not meant for.

0.0.0.0/8 stays in: an exit node answers DNS for those who may reach 0.0.0.0.
"""


@lru_cache(maxsize=1)
def internet() -> tuple[str, ...]:
    """Prefixes of everything that is reached through an exit node."""
    left = [IPv4Network("0.0.0.0/0")]
    for text in _NOT_INTERNET:
        excluded = IPv4Network(text)
        left = [
            part
            for block in left
            for part in (block.address_exclude(excluded) if excluded.subnet_of(block) else (block,))
            if not part.subnet_of(excluded)
        ]
    v6 = [part for part in (IPv6Network("2000::/3"),) if not part.overlaps(ULA)]
    return (*(str(ip_network(part)) for part in collapse_addresses(left)), *(str(part) for part in v6))


def _login_rule(part: SSHAccess, source: Endpoint) -> SSHRule:
    users = {"root": "root" if "root" in part.users else ""}  # empty: not this one
    users |= {"*" if name == NONROOT else name: "=" for name in part.users if name != "root"}
    return SSHRule(
        principals=tuple(SSHPrincipal(node_ip=address) for address in source.addresses),
        ssh_users=users,
        action=_SSH_ACCEPT,
        accept_env=part.environment,
    )


_ANYWHERE: tuple[IPPrefix, ...] = (ip_network("0.0.0.0/0"), ip_network("::/0"))
_INTERNET: tuple[IPPrefix, ...] = tuple(ip_network(text) for text in internet())


def _is_public(prefix: IPPrefix) -> bool:
    """Whether something of a prefix is reached through an exit node."""
    return any(_overlap(part, prefix) for part in _INTERNET)
