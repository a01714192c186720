"""Our nftables rules, as the JSON that ``nft -j -f -`` takes (libnftables-json(5)).

Everything is in one table of ours. Its verdicts concern nobody else's: an accept here does not overrule a drop
in another table.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from meshd.base.addr import IPPrefix
from meshd.base.ranges import CGNAT, CHROMEOS_VM, ULA
from meshd.core.firewall import ON, FirewallConfig

FAMILY = "inet"
FORWARDED_MARK, BYPASS_MARK, MARK_MASK = 0x40000, 0x80000, 0xFF0000
FIB, NAT, NAT6, CONNMARK = "fib", "nat", "nat6", "connmark"
FEATURES = (NAT6, NAT, CONNMARK, FIB)
"""What a kernel may lack, in the order in which to go without."""

_OTHERS = 0xFFFFFFFF ^ MARK_MASK

Expression = dict[str, Any]
_MARK: Expression = {"meta": {"key": "mark"}}
_FLOW_MARK: Expression = {"ct": {"key": "mark"}}
_SOURCE = {4: {"payload": {"protocol": "ip", "field": "saddr"}}, 6: {"payload": {"protocol": "ip6", "field": "saddr"}}}
_DROPS, _ASIDE = frozenset(("drop", "reject")), frozenset(("counter", "log"))
_ACCEPT, _DROP, _RETURN = {"accept": None}, {"drop": None}, {"return": None}


class Chain(msgspec.Struct, frozen=True):
    """``hook`` is type, hook and priority; None makes a chain that nothing leads to (``nodivert``)."""

    hook: tuple[str, str, int] | None
    rules: list[list[Expression]] = msgspec.field(default_factory=list)


def table_name(interface: str) -> str:
    """The table of the node whose tunnel interface this is."""
    return "meshd-" + "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "_" for c in interface)


def chains(
    config: FirewallConfig,
    interface: str,
    ports: Iterable[int],
    exempt: Iterable[IPPrefix],
    *,
    masquerade: bool,
    features: frozenset[str] = frozenset(FEATURES),
) -> dict[str, Chain]:
    """The table's content. ``ports`` are our UDP ports; ``exempt`` are networks of the host in 100.64.0.0/10.

    Only a source that the tunnel owns by our routes counts as spoofed: providers and clouds use parts of
    100.64.0.0/10 for services of their own, and those must go on working. A kernel that cannot look up routes
    here takes every such source for spoofed but the host's own networks.
    """
    hooked = config.mode == ON
    incoming, outgoing = _interface("iifname", interface), _interface("oifname", interface)
    outside = _interface("iifname", interface, "!=")
    cgnat = _source(CGNAT)

    # What there is most of comes first.
    input_rules = [[incoming, _ACCEPT]]
    input_rules += [[_match({"payload": {"protocol": "udp", "field": "dport"}}, p), _ACCEPT] for p in sorted(ports)]
    input_rules += [[_interface("iifname", "lo"), _match(_SOURCE[ip.version], str(ip)), _ACCEPT] for ip in config.own]
    if config.drop_spoofed:
        input_rules.append([outside, _source(CHROMEOS_VM), _RETURN])
        if FIB in features:
            owner = _match({"fib": {"result": "oifname", "flags": ["saddr", "mark"]}}, interface)
            input_rules += [[outside, _source(mesh), owner, _DROP] for mesh in (CGNAT, ULA)]
        else:
            input_rules += [[outside, _source(prefix), _RETURN] for prefix in exempt]
            input_rules.append([outside, cgnat, _DROP])

    marked = _match(_masked(_MARK), FORWARDED_MARK)
    forward_rules = [[incoming, _set_mark(_MARK, FORWARDED_MARK)], [marked, _ACCEPT], [outgoing, cgnat, _DROP]]
    if config.stateful:
        known = _match({"ct": {"key": "state"}}, {"set": ["established", "related"]}, "!=")
        forward_rules.append([outgoing, known, _DROP])
    forward_rules.append([outgoing, _ACCEPT])

    found = {
        "input": Chain(("filter", "input", 0) if hooked else None, input_rules),
        "forward": Chain(("filter", "forward", 0) if hooked else None, forward_rules),
    }
    if masquerade and NAT in features:
        only_v4 = [] if NAT6 in features else [_match({"meta": {"key": "nfproto"}}, "ipv4")]
        found["postrouting"] = Chain(
            ("nat", "postrouting", 100) if hooked else None, [[*only_v4, marked, {"masquerade": None}]]
        )
    if config.exit_node and CONNMARK in features:
        # Answers to our own packets carry the mark too, and so pass a strict reverse path check.
        ours = _match(_masked(_FLOW_MARK), BYPASS_MARK)
        found["prerouting"] = Chain(
            ("filter", "prerouting", -150) if hooked else None, [[ours, _set_mark(_MARK, BYPASS_MARK)]]
        )
        found["output"] = Chain(
            ("filter", "output", -150) if hooked else None,
            [
                [
                    _match(_masked(_MARK), BYPASS_MARK),
                    _match(_masked(_FLOW_MARK), BYPASS_MARK, "!="),
                    _set_mark(_FLOW_MARK, BYPASS_MARK),
                ]
            ],
        )
    return found


def batch(table: str, before: dict[str, Chain] | None, after: dict[str, Chain]) -> dict[str, Any]:
    """One transaction from ``before``, None for whatever a table of our name holds, to ``after``.

    Chains that stay are refilled, not replaced: what an administrator made to lead to them goes on leading there.
    """
    commands: list[dict[str, Any]] = [{"add": _table(table)}]
    if before is None:
        commands += [{"delete": _table(table)}, {"add": _table(table)}]
    held = before or {}
    for name, chain in held.items():
        if name not in after or after[name].hook != chain.hook:
            commands += [{"flush": _chain(table, name)}, {"delete": _chain(table, name)}]
    for name, chain in after.items():
        if held.get(name) == chain:
            continue
        wanted = _chain(table, name)
        if chain.hook is not None:
            kind, hook, priority = chain.hook
            wanted["chain"] |= {"type": kind, "hook": hook, "prio": priority, "policy": "accept"}
        commands.append({"add": wanted})
        if name in held and held[name].hook == chain.hook:
            commands.append({"flush": _chain(table, name)})
        commands += [
            {"add": {"rule": {"family": FAMILY, "table": table, "chain": name, "expr": rule}}} for rule in chain.rules
        ]
    return {"nftables": commands}


def removal(table: str) -> dict[str, Any]:
    """One transaction that leaves no table, whether there is one or not."""
    return {"nftables": [{"add": _table(table)}, {"delete": _table(table)}]}


class ForeignChain(NamedTuple):
    """A chain of somebody else that sees what comes in or is forwarded; ``drops`` by its policy what no rule of its own
    lets pass."""

    family: str
    table: str
    chain: str
    hook: str
    drops: bool


def foreign_chains(listed: dict[str, Any]) -> list[ForeignChain]:
    """Those among the chains that ``nft -j list chains`` shows."""
    entries = [entry["chain"] for entry in listed.get("nftables", []) if "chain" in entry]
    return [
        ForeignChain(c["family"], c["table"], c["name"], c["hook"], c.get("policy") == "drop")
        for c in entries
        if c.get("hook") in ("forward", "input")
        and c["family"] in ("ip", "ip6", "inet")
        and not c["table"].startswith("meshd-")
    ]


def ends_in_drop(listed: dict[str, Any]) -> bool:
    """Whether a chain, as ``nft -j list chain`` shows it, drops or rejects by a rule of its own whatever the rules
    before it left over: firewalld's accept by their policy and end so."""
    return any(_drops_all(entry["rule"].get("expr", [])) for entry in listed.get("nftables", []) if "rule" in entry)


def _drops_all(rule: list[Expression]) -> bool:
    if not rule or any(not _ASIDE.issuperset(expression) for expression in rule[:-1]):
        return False
    target = rule[-1].get("xt") or {}
    return not _DROPS.isdisjoint(rule[-1]) or (target.get("type"), target.get("name")) == ("target", "REJECT")


def _table(name: str) -> dict[str, Any]:
    return {"table": {"family": FAMILY, "name": name}}


def _chain(table: str, name: str) -> dict[str, Any]:
    return {"chain": {"family": FAMILY, "table": table, "name": name}}


def _match(left: Expression, right: object, op: str = "==") -> Expression:
    return {"match": {"op": op, "left": left, "right": right}}


def _interface(key: str, name: str, op: str = "==") -> Expression:
    return _match({"meta": {"key": key}}, name, op)


def _source(prefix: IPPrefix) -> Expression:
    return _match(_SOURCE[prefix.version], {"prefix": {"addr": str(prefix.network_address), "len": prefix.prefixlen}})


def _masked(mark: Expression) -> Expression:
    return {"&": [mark, MARK_MASK]}


def _set_mark(mark: Expression, value: int) -> Expression:
    """Set our bits of a mark, others' stay."""
    return {"mangle": {"key": mark, "value": {"|": [{"&": [mark, _OTHERS]}, value]}}}
