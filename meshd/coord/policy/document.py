"""The policy file: what may stand in it, checked with line and column.

    groups, hosts, tagOwners, acls, grants, autoApprovers, nodeAttrs, ssh, tests,
    randomizeClientPort

Without a file everybody may reach everybody. With one, only what a rule allows is possible.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from math import isfinite
from typing import Any, NoReturn, TypeVar

import msgspec

from meshd.base.addr import IPPrefix, covers, host_prefix, parse_ip, parse_prefix
from meshd.base.errors import MeshdError
from meshd.coord.policy.ports import ALL_PORTS, PROTOCOLS, WITH_PORTS, PortSpan, parse_ports
from meshd.coord.records import EXIT_ROUTES, NodeRecord
from meshd.coord.tags import is_tag
from meshd.wire.hujson import HujsonError, Item, parse

T = TypeVar("T")

MAX_POLICY_BYTES = 1024 * 1024
AUTOGROUPS_SOURCE = ("autogroup:member", "autogroup:tagged")
AUTOGROUPS_TARGET = (*AUTOGROUPS_SOURCE, "autogroup:self", "autogroup:internet")
_FIELDS = (
    *("groups", "hosts", "tagOwners", "acls", "grants", "autoApprovers"),
    *("nodeAttrs", "ssh", "tests", "randomizeClientPort"),
)
_SSH_CAPABILITY = "https://tailscale.com/cap/ssh"
_LOGIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.@-]{0,255}\$?")
NONROOT = "autogroup:nonroot"
Attributes = dict[str, tuple[Any, ...] | None]


class Target(msgspec.Struct, frozen=True):
    """A destination of a rule: an alias and the ports that are open there."""

    alias: str
    ports: tuple[PortSpan, ...]


class Rule(msgspec.Struct, frozen=True):
    """Sources may reach targets; `protocols` empty means TCP, UDP and ICMP."""

    sources: tuple[str, ...]
    targets: tuple[Target, ...]
    protocols: tuple[int, ...]


class AppGrant(msgspec.Struct, frozen=True):
    """Sources have capabilities towards targets."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    capabilities: dict[str, tuple[Any, ...] | None]


class NodeAttributes(msgspec.Struct, frozen=True):
    """What the nodes that targets stand for are told to do, or may do."""

    targets: tuple[str, ...]
    attributes: Attributes


class SSHAccess(msgspec.Struct, frozen=True):
    """Sources may log in by SSH at targets as some of the users there."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    users: tuple[str, ...]
    environment: tuple[str, ...]


class Claim(msgspec.Struct, frozen=True):
    """A source reaches what it is accepted at and nothing of what it is denied; `protocols` as in a rule. It stands at
    `place` (name:line:column)."""

    place: str
    source: str
    protocols: tuple[int, ...]
    accept: tuple[Target, ...]
    deny: tuple[Target, ...]


class PolicyDocument(msgspec.Struct, frozen=True):
    """A checked policy; every alias in it resolves."""

    groups: dict[str, tuple[str, ...]]
    hosts: dict[str, IPPrefix]
    tag_owners: dict[str, tuple[str, ...]]
    rules: tuple[Rule, ...]
    grants: tuple[AppGrant, ...]
    route_approvers: tuple[tuple[IPPrefix, tuple[str, ...]], ...]
    exit_approvers: tuple[str, ...]
    node_attributes: tuple[NodeAttributes, ...] = ()
    claims: tuple[Claim, ...] = ()
    ssh: tuple[SSHAccess, ...] = ()

    def user_names(self) -> set[str]:
        """Every name in it that can only be that of a user."""
        owners = [*self.tag_owners.values(), *(owners for _, owners in self.route_approvers), self.exit_approvers]
        named = {name for names in (*self.groups.values(), *owners) for name in names}
        for rule in self.rules:
            named.update(rule.sources, (target.alias for target in rule.targets))
        for grant in self.grants:
            named.update(grant.sources, grant.targets)
        named.update(*(part.targets for part in self.node_attributes))
        for access in self.ssh:
            named.update(access.sources, access.targets)
        for claim in self.claims:
            named.update((claim.source,), (target.alias for target in (*claim.accept, *claim.deny)))
        return {
            name for name in named if ":" not in name and name != "*" and name not in self.hosts and not prefix_of(name)
        }

    def may_claim(self, tags: Collection[str], user: str) -> bool:
        """Whether a user may give these tags to a machine."""
        return all(tag in self.tag_owners and self._is_user_among(user, self.tag_owners[tag]) for tag in tags)

    def approves(self, route: str, node: NodeRecord, user: str) -> bool:
        """Whether a route is usable without an administrator's approval."""
        if route in EXIT_ROUTES:
            return self._owned_by(node, user, self.exit_approvers)
        wanted = prefix_of(route)
        return wanted is not None and any(
            covers(prefix, wanted) and self._owned_by(node, user, owners) for prefix, owners in self.route_approvers
        )

    def _owned_by(self, node: NodeRecord, user: str, owners: tuple[str, ...]) -> bool:
        if node.tags:
            return any(tag in owners for tag in node.tags)
        return self._is_user_among(user, owners)

    def _is_user_among(self, user: str, owners: Iterable[str]) -> bool:
        return any(owner in (user, "autogroup:member") or user in self.groups.get(owner, ()) for owner in owners)


def parse_policy(text: str, name: str = "policy") -> PolicyDocument:
    """The policy written in `text`; MeshdError `name:line:column: what is wrong`."""
    return _Parser(name).document(text)


def prefix_of(text: str) -> IPPrefix | None:
    """The prefix that an address or prefix stands for, None when it is neither."""
    try:
        return parse_prefix(text) if "/" in text else host_prefix(parse_ip(text))
    except ValueError:
        return None


def _is_tagged(alias: str) -> bool:
    return alias.startswith("tag:") or alias == "autogroup:tagged"


class _Parser:
    def __init__(self, name: str) -> None:
        self._name = name
        self._groups: dict[str, tuple[str, ...]] = {}
        self._hosts: dict[str, IPPrefix] = {}
        self._tag_owners: dict[str, tuple[str, ...]] = {}

    def fail(self, item: Item, message: str) -> NoReturn:
        raise MeshdError(f"{self._name}:{item.line}:{item.column}: {message}", code="usage")

    def document(self, text: str) -> PolicyDocument:
        if len(text) > MAX_POLICY_BYTES:
            raise MeshdError(f"{self._name}: a policy has at most {MAX_POLICY_BYTES} characters", code="usage")
        try:
            root = parse(text)
        except HujsonError as error:
            raise MeshdError(f"{self._name}:{error.line}:{error.column}: {error.problem}", code="usage") from None
        top = self.fields(root, _FIELDS)
        tag_items = self.table(top.get("tagOwners"))
        for name, item in tag_items.items():
            if not is_tag(name):
                self.fail(item, f"{name!r} is not a tag (tag:name)")
            self._tag_owners[name] = ()
        self._groups = {name: self._group(name, item) for name, item in self.table(top.get("groups")).items()}
        self._hosts = {name: self._host(name, item) for name, item in self.table(top.get("hosts")).items()}
        for name, item in tag_items.items():
            self._tag_owners[name] = self.each(item, self._owner)
        rules = self.each(top.get("acls"), self._acl)
        granted = self.each(top.get("grants"), self._grant)
        approvers = self.fields(top["autoApprovers"], ("routes", "exitNode")) if "autoApprovers" in top else {}
        routes = self.table(approvers.get("routes"))
        attributes = self.each(top.get("nodeAttrs"), self._node_attributes)
        ssh = self.each(top.get("ssh"), self._ssh)
        if ssh:
            attributes = (*attributes, NodeAttributes(("*",), {_SSH_CAPABILITY: None}))
        if "randomizeClientPort" in top and self._switch(top["randomizeClientPort"]):
            attributes = (*attributes, NodeAttributes(("*",), {"randomize-client-port": None}))
        return PolicyDocument(
            self._groups,
            self._hosts,
            self._tag_owners,
            (*rules, *(rule for rules_of_grant, _ in granted for rule in rules_of_grant)),
            tuple(grant for _, grant in granted if grant is not None),
            tuple((self._route(name, item), self.each(item, self._owner)) for name, item in routes.items()),
            self.each(approvers.get("exitNode"), self._owner),
            attributes,
            self.each(top.get("tests"), self._claim),
            ssh,
        )

    # --- shapes ------------------------------------------------------------------------------------------

    def table(self, item: Item | None) -> dict[str, Item]:
        if item is None:
            return {}
        if not isinstance(item.value, dict):
            self.fail(item, "an object { … } is expected here")
        return item.value

    def fields(self, item: Item, known: tuple[str, ...]) -> dict[str, Item]:
        found = self.table(item)
        for name, value in found.items():
            if name not in known:
                self.fail(value, f"{name!r} is not supported here; known are {', '.join(known)}")
        return found

    def each(self, item: Item | None, read: Callable[[Item], T]) -> tuple[T, ...]:
        if item is None:
            return ()
        if not isinstance(item.value, list):
            self.fail(item, "a list [ … ] is expected here")
        return tuple(read(entry) for entry in item.value)

    def text(self, item: Item) -> str:
        if not isinstance(item.value, str) or not item.value:
            self.fail(item, "a text is expected here")
        return item.value

    # --- definitions -------------------------------------------------------------------------------------

    def _group(self, name: str, item: Item) -> tuple[str, ...]:
        if not name.startswith("group:"):
            self.fail(item, f"the name {name!r} of a group must begin with group:")
        members = self.each(item, self.text)
        for member in members:
            if ":" in member:
                self.fail(item, f"{member!r} cannot be a member of a group; only users can")
        return members

    def _host(self, name: str, item: Item) -> IPPrefix:
        if ":" in name or "/" in name or name == "*" or prefix_of(name) is not None:
            self.fail(item, f"{name!r} cannot be the name of a host")
        prefix = prefix_of(self.text(item))
        if prefix is None:
            self.fail(item, f"{item.value!r} is not an address or prefix (without host bits)")
        return prefix

    def _route(self, text: str, item: Item) -> IPPrefix:
        prefix = prefix_of(text)
        if prefix is None:
            self.fail(item, f"{text!r} is not a prefix")
        return prefix

    def _owner(self, item: Item) -> str:
        owner = self.text(item)
        if owner.startswith("group:"):
            self._known(item, owner, self._groups)
        elif owner.startswith("tag:"):
            self._known(item, owner, self._tag_owners)
        elif owner == "*" or (owner.startswith("autogroup:") and owner != "autogroup:member"):
            self.fail(item, f"{owner!r} is not supported here; known is autogroup:member")
        return owner

    def _known(self, item: Item, alias: str, table: dict[str, Any]) -> None:
        if alias not in table:
            self.fail(item, f"{alias!r} is not defined")

    # --- rules -------------------------------------------------------------------------------------------

    def _acl(self, item: Item) -> Rule:
        found = self.fields(item, ("action", "proto", "src", "dst"))
        for needed in ("action", "src", "dst"):
            if needed not in found:
                self.fail(item, f"{needed!r} is missing")
        if found["action"].value != "accept":
            self.fail(found["action"], 'the only action is "accept"')
        protocols = self._protocol(found["proto"]) if "proto" in found else ()
        sources = self.each(found["src"], self._source)
        return Rule(sources, self.each(found["dst"], lambda item: self._target(item, protocols)), protocols)

    def _protocol(self, item: Item) -> tuple[int, ...]:
        name = str(item.value).lower() if isinstance(item.value, (str, int)) else ""
        if name in PROTOCOLS:
            return PROTOCOLS[name]
        if name.isascii() and name.isdigit() and len(name) <= 3 and 0 < int(name) < 256:
            return (int(name),)
        self.fail(item, f"{item.value!r} is not a protocol")

    def _source(self, item: Item) -> str:
        return self._alias(item, self.text(item), AUTOGROUPS_SOURCE)

    def _target_alias(self, item: Item) -> str:
        return self._alias(item, self.text(item), AUTOGROUPS_TARGET)

    def _alias(self, item: Item, alias: str, autogroups: tuple[str, ...]) -> str:
        if alias.startswith("group:"):
            self._known(item, alias, self._groups)
        elif alias.startswith("tag:"):
            self._known(item, alias, self._tag_owners)
        elif alias.startswith("autogroup:"):
            if alias not in autogroups:
                self.fail(item, f"{alias!r} is not supported here; known are {', '.join(autogroups)}")
        elif "/" in alias and prefix_of(alias) is None:
            self.fail(item, f"{alias!r} is not a prefix (are host bits set?)")
        return alias

    def _target(self, item: Item, protocols: tuple[int, ...]) -> Target:
        alias, separator, ports = self.text(item).rpartition(":")
        if not separator:
            self.fail(item, f"{item.value!r} has no ports; write {item.value}:* for all")
        if alias.startswith("[") and alias.endswith("]"):
            alias = alias[1:-1]
        spans = self._ports(item, ports, protocols)
        return Target(self._alias(item, alias, AUTOGROUPS_TARGET), spans)

    def _ports(self, item: Item, text: str, protocols: tuple[int, ...]) -> tuple[PortSpan, ...]:
        try:
            spans = parse_ports(text)
        except ValueError as error:
            self.fail(item, str(error))
        if spans != (ALL_PORTS,) and not WITH_PORTS.issuperset(protocols):
            self.fail(item, f"only TCP, UDP and SCTP have ports; write * instead of {text}")
        return spans

    def _grant(self, item: Item) -> tuple[tuple[Rule, ...], AppGrant | None]:
        found = self.fields(item, ("src", "dst", "ip", "app"))
        for needed in ("src", "dst"):
            if needed not in found:
                self.fail(item, f"{needed!r} is missing")
        if "ip" not in found and "app" not in found:
            self.fail(item, "a grant needs 'ip' or 'app'")
        sources = self.each(found["src"], self._source)
        targets = self.each(found["dst"], self._target_alias)
        rules = tuple(
            Rule(sources, tuple(Target(alias, spans) for alias in targets), protocols)
            for protocols, spans in self.each(found.get("ip"), self._grant_ip)
        )
        if "app" not in found:
            return rules, None
        capabilities = {
            name: self.each(values, self._plain) or None for name, values in self.table(found["app"]).items()
        }
        return rules, AppGrant(sources, targets, capabilities)

    def _grant_ip(self, item: Item) -> tuple[tuple[int, ...], tuple[PortSpan, ...]]:
        name, separator, ports = self.text(item).rpartition(":")
        protocols = self._protocol(Item(name, item.line, item.column)) if separator else ()
        return protocols, self._ports(item, ports, protocols)

    def _ssh(self, item: Item) -> SSHAccess:
        found = self.fields(item, ("action", "src", "dst", "users", "acceptEnv", "checkPeriod"))
        for needed in ("action", "src", "dst", "users"):
            if needed not in found:
                self.fail(item, f"{needed!r} is missing")
        if found["action"].value == "check" or "checkPeriod" in found:
            self.fail(
                found.get("checkPeriod", found["action"]), "check is not supported: there is no page to confirm at"
            )
        if found["action"].value != "accept":
            self.fail(found["action"], 'the only action is "accept"')
        sources = self.each(found["src"], lambda item: self._account(item, AUTOGROUPS_SOURCE))
        targets = self.each(found["dst"], lambda item: self._account(item, (*AUTOGROUPS_SOURCE, "autogroup:self")))
        for target in targets:
            if _is_tagged(target):
                continue
            if any(map(_is_tagged, sources)):
                self.fail(found["dst"], f"a source with a tag cannot log in at the machines of {target}")
            if not target.startswith("autogroup:") and set(sources) != {target}:
                self.fail(found["dst"], f"only {target} can log in at the machines of {target}")
        users = self.each(found["users"], self._login_name)
        if not users:
            self.fail(found["users"], "who logs in needs a user: root, autogroup:nonroot, or a name")
        return SSHAccess(sources, targets, users, self.each(found.get("acceptEnv"), self.text))

    def _account(self, item: Item, autogroups: tuple[str, ...]) -> str:
        alias = self._alias(item, self.text(item), autogroups)
        if alias == "*" or alias in self._hosts or prefix_of(alias) is not None:
            self.fail(item, f"{alias!r} cannot stand here; users, groups (as a source) and tags can")
        if alias.startswith("group:") and "autogroup:self" in autogroups:
            self.fail(item, f"{alias!r} cannot be a target; autogroup:self, users and tags can")
        return alias

    def _login_name(self, item: Item) -> str:
        name = self.text(item)
        if name != NONROOT and not _LOGIN_NAME.fullmatch(name):
            self.fail(item, f"{name!r} is not supported here; root, {NONROOT} and names of users are")
        return name

    def _claim(self, item: Item) -> Claim:
        found = self.fields(item, ("src", "proto", "accept", "deny"))
        if "src" not in found:
            self.fail(item, "'src' is missing")
        protocols = self._protocol(found["proto"]) if "proto" in found else ()

        def target(item: Item) -> Target:
            named = self._target(item, protocols)
            if named.alias in ("autogroup:self", "autogroup:internet"):
                self.fail(item, f"{named.alias!r} cannot be tested; name a node, or an address")
            return named

        return Claim(
            f"{self._name}:{item.line}:{item.column}",
            self._source(found["src"]),
            protocols,
            self.each(found.get("accept"), target),
            self.each(found.get("deny"), target),
        )

    def _node_attributes(self, item: Item) -> NodeAttributes:
        found = self.fields(item, ("target", "attr", "app"))
        if "target" not in found:
            self.fail(item, "'target' is missing")
        attributes: Attributes = dict.fromkeys(self.each(found.get("attr"), self._attribute))
        for name, values in self.table(found.get("app")).items():
            attributes[name] = self.each(values, self._plain)
        return NodeAttributes(self.each(found["target"], self._source), attributes)

    def _attribute(self, item: Item) -> str:
        name = self.text(item)
        if name == "funnel":
            self.fail(item, "'funnel' is not supported here: there are no servers on the Internet to come in by")
        return name

    def _switch(self, item: Item) -> bool:
        if not isinstance(item.value, bool):
            self.fail(item, "true or false is expected here")
        return item.value

    def _plain(self, item: Item) -> Any:
        """A value without places, as a map can carry it."""
        value = item.value
        if isinstance(value, dict):
            return {name: self._plain(entry) for name, entry in value.items()}
        if isinstance(value, list):
            return [self._plain(entry) for entry in value]
        if (isinstance(value, int) and not -(2**63) <= value < 2**63) or (
            isinstance(value, float) and not isfinite(value)
        ):
            self.fail(item, "this number is too large; write it as a text")
        return value
