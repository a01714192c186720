"""Filter rules as control sends them, to filter programs."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd._fast.filter import ACCEPT, DROP_NOT_LOCAL, DROP_RULES, FlowTable
from meshd._fast.ipprefix import parse_address
from meshd.base.addr import IPPrefix
from meshd.core.filterprogram import (
    DEFAULT_PROTOCOLS,
    CompiledRule,
    FilterPlanner,
    FilterProgram,
    local_networks,
    parse_addresses,
    plan_filter,
)
from meshd.wire.control import FilterRule, NetPortRange, PortRange
from tests.unit.fast.packets import ip, tcp

OWN: list[IPPrefix] = [ip_network("100.64.0.2/32"), ip_network("fd7a:115c:a1e0::2/128")]
EVERY_PORT = PortRange(first=0, last=65535)


def to(ip: str, first: int = 0, last: int = 65535) -> NetPortRange:
    return NetPortRange(ip=ip, ports=PortRange(first=first, last=last))


def rule(*sources: str, dst: tuple[NetPortRange, ...] = (to("*"),), proto: tuple[int, ...] = ()) -> FilterRule:
    return FilterRule(src_ips=sources, dst_ports=dst, ip_proto=proto)


def syn(src: str, dst: str, port: int) -> bytes:
    return ip(6, tcp(1, port), parse_address(src), parse_address(dst))


def networks(*local: str, attached: tuple[str, ...] = (), host: tuple[str, ...] = ()) -> list[str]:
    return [
        str(prefix)
        for prefix in local_networks(map(ip_network, local), map(ip_network, attached), map(ip_address, host))
    ]


def test_program_wildcard_rule_accepts_both_families() -> None:
    """PF-07: `*` stands for every IPv4 and IPv6 address."""
    program, flows = plan_filter([rule("*")], OWN).compile(), FlowTable()
    assert program.check_in(syn("100.64.0.1", "100.64.0.2", 80), flows) == ACCEPT
    assert program.check_in(syn("fd7a:115c:a1e0::1", "fd7a:115c:a1e0::2", 80), flows) == ACCEPT
    assert program.check_in(syn("100.64.0.1", "100.64.0.3", 80), flows) == DROP_NOT_LOCAL


def test_program_ports_and_protocols_kept() -> None:
    """PF-13."""
    planned = plan_filter([rule("100.64.0.1", dst=(to("100.64.0.2", 22, 23),), proto=(6, 256, -1))], OWN)
    a, b = parse_address("100.64.0.1"), parse_address("100.64.0.2")
    assert planned.rules == ((((a, a),), ((b, b, 22, 23),), (6,)),)
    assert planned.refused == ()


def test_program_without_protocols_means_tcp_udp_icmp() -> None:
    assert plan_filter([rule("*")], OWN).rules[0][2] == DEFAULT_PROTOCOLS


def test_program_shields_up_has_local_networks_but_no_rules() -> None:
    """PF-06."""
    planned = plan_filter([rule("*")], OWN, shields_up=True)
    assert planned.rules == ()
    assert planned.local
    assert planned.compile().check_in(syn("100.64.0.1", "100.64.0.2", 80), FlowTable()) == DROP_RULES


def test_program_capability_source_is_the_addresses_of_its_holders() -> None:
    """PF-10."""
    asked: list[str] = []

    def holders(capability: str) -> list[IPPrefix]:
        asked.append(capability)
        return [ip_network("100.64.0.9/32"), ip_network("fd7a:115c:a1e0::9/128")]

    program = plan_filter([rule("cap:example.com/cap/x")], OWN, cap_sources=holders).compile()
    assert asked == ["example.com/cap/x"]
    assert program.check_in(syn("100.64.0.9", "100.64.0.2", 80), FlowTable()) == ACCEPT
    assert program.check_in(syn("100.64.0.1", "100.64.0.2", 80), FlowTable()) == DROP_RULES


def test_program_capability_nobody_holds_matches_nothing() -> None:
    assert plan_filter([rule("cap:x")], OWN).rules == ()


@pytest.mark.parametrize(
    "text",
    ["", "cap:", "100.64.0.1/24", "100.64.0.1/33", "nonsense", "100.64.0.5-100.64.0.1", "100.64.0.1-::1", "1-2-3",
     "100.64.0.1-", "-", "*4", "fe80::1%eth0", "10.0.0.0/8/8", "::/129"],
)  # fmt: skip
def test_program_malformed_source_dropped_with_reason(text: str) -> None:
    planned = plan_filter([rule(text, "100.64.0.7"), rule(text)], OWN)
    seven = parse_address("100.64.0.7")
    assert [sources for sources, _, _ in planned.rules] == [((seven, seven),)]
    assert planned.refused[0].startswith("rule 0: source ")
    assert len(planned.refused) == 2


@pytest.mark.parametrize(
    "bad", [to("cap:x"), to(""), to("100.64.0.2/24"), NetPortRange(ip="*", ports=PortRange(first=9, last=8))]
)
def test_program_malformed_destination_dropped_with_reason(bad: NetPortRange) -> None:
    planned = plan_filter([rule("*", dst=(bad, to("100.64.0.2", 1, 2)))], OWN)
    two = parse_address("100.64.0.2")
    assert planned.rules[0][1] == ((two, two, 1, 2),)
    assert planned.refused[0].startswith("rule 0: destination ")


@pytest.mark.parametrize(
    "bad",
    [
        FilterRule(src_ips=("*",), src_bits=(32,), dst_ports=(to("*"),)),
        FilterRule(src_ips=("*",), dst_ports=(NetPortRange(ip="*", bits=0, ports=EVERY_PORT),)),
    ],
)
def test_program_with_length_fields_refused_whole(bad: FilterRule) -> None:
    """Rules of a form this capability version does not have let nothing in, not even through other rules."""
    planned = plan_filter([rule("*"), bad], OWN)
    assert planned.rules == ()
    assert "whole filter refused" in planned.refused[0]
    assert planned.local


def test_program_capability_grant_alone_opens_nothing() -> None:
    assert plan_filter([FilterRule(src_ips=("*",))], OWN).rules == ()


def test_program_equal_rules_compare_equal() -> None:
    """PF-01: an unchanged filter is recognised."""
    assert plan_filter([rule("*")], OWN) == plan_filter([rule("*")], OWN)
    assert plan_filter([rule("*")], OWN) != plan_filter([rule("10.0.0.0/8")], OWN)
    assert FilterProgram() == FilterProgram()


@given(st.text(max_size=30))
def test_parse_addresses_any_text_gives_ranges_or_value_error(text: str) -> None:
    try:
        ranges = parse_addresses(text)
    except ValueError:
        return
    assert all(len(low) == len(high) and low <= high for low, high in ranges)


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("100.64.0.1", "100.64.0.1", "100.64.0.1"),
        ("10.0.0.0/8", "10.0.0.0", "10.255.255.255"),
        ("10.0.0.5-10.0.1.7", "10.0.0.5", "10.0.1.7"),
        ("2eff::1-2eff::800", "2eff::1", "2eff::800"),
        ("::/0", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ],
)
def test_parse_addresses_forms(text: str, first: str, last: str) -> None:
    assert parse_addresses(text) == ((parse_address(first), parse_address(last)),)


def test_local_networks_are_addresses_and_routes() -> None:
    """PF-02."""
    assert networks("100.64.0.2/32", "192.168.7.0/24") == ["100.64.0.2/32", "192.168.7.0/24"]


def test_local_networks_never_hold_the_service_addresses() -> None:
    """DN-12: peers do not reach this node's resolver, whatever it advertises."""
    found = local_networks(map(ip_network, ("100.100.100.96/29", "fd7a:115c:a1e0::/124", "fd7a:115c:a1e0::50/124")))
    assert list(map(str, found)) == [
        "100.100.100.96/30",
        "100.100.100.101/32",
        "100.100.100.102/31",
        "fd7a:115c:a1e0::/124",
        "fd7a:115c:a1e0::50/127",
        "fd7a:115c:a1e0::52/128",
        "fd7a:115c:a1e0::54/126",
        "fd7a:115c:a1e0::58/125",
    ]


def test_local_networks_default_route_leaves_private_ranges_out() -> None:
    """PF-04: an exit node offers the Internet, not its neighbourhood."""
    offered = local_networks(map(ip_network, ("0.0.0.0/0", "::/0")))
    reachable = {text for text in ("8.8.8.8", "1.1.1.1", "2001:db8::1") if covered(offered, text)}
    assert reachable == {"8.8.8.8", "1.1.1.1", "2001:db8::1"}
    for text in ("10.1.1.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "224.0.0.1", "100.64.0.1", "fe80::1",
                 "ff02::1", "fd7a:115c:a1e0::1"):  # fmt: skip
        assert not covered(offered, text)


def test_local_networks_default_route_leaves_attached_networks_out_but_own_addresses_in() -> None:
    offered = local_networks(
        [ip_network("0.0.0.0/0")],
        [ip_network("203.0.113.0/24"), ip_network("198.51.100.7/32"), ip_network("100.64.0.0/10")],
        [ip_address("203.0.113.5"), ip_address("10.0.0.1"), ip_address("2001:db8::5")],
    )
    assert covered(offered, "203.0.113.5")
    assert not covered(offered, "203.0.113.6")
    assert covered(offered, "198.51.100.7")
    assert not covered(offered, "10.0.0.1")
    assert not covered(offered, "2001:db8::5")


def test_local_networks_listed_prefix_counts_beside_a_default_route() -> None:
    offered = local_networks(map(ip_network, ("0.0.0.0/0", "192.168.1.0/24", "100.64.0.2/32")))
    assert covered(offered, "192.168.1.9")
    assert not covered(offered, "192.168.2.9")
    assert covered(offered, "100.64.0.2")


def covered(prefixes: list[object], text: str) -> bool:
    return any(parse_address(text) in prefix for prefix in prefixes)  # type: ignore[operator]


# --- rules that come again --------------------------------------------------------------------------------------

_TEXTS = st.sampled_from(
    ["100.64.0.1", "100.64.0.2", "100.64.0.3", "fd7a::1", "10.0.0.0/8", "10.0.0.1-10.0.0.9", "*", "nonsense", "cap:x"]
)
_RULES = st.lists(
    st.builds(
        FilterRule,
        src_ips=st.lists(_TEXTS, max_size=6).map(tuple),
        src_bits=st.sampled_from([(), (), (), (), (), (32,)]),
        dst_ports=st.lists(st.sampled_from([to("*"), to("100.64.0.9", 1, 2), to("bad")]), max_size=2).map(tuple),
        ip_proto=st.sampled_from([(), (6,), (6, 17, 300)]),
    ),
    max_size=5,
)
_EDIT = st.tuples(st.integers(0, 4), st.integers(0, 5), st.lists(_TEXTS, max_size=2).map(tuple))


def _edited(rules: list[FilterRule], edit: tuple[int, int, tuple[str, ...]]) -> list[FilterRule]:
    """One rule with some sources more and one less, the others the same objects."""
    place, at, texts = edit
    if place >= len(rules):
        return rules
    old = rules[place].src_ips
    changed = msgspec.structs.replace(rules[place], src_ips=old[:at] + texts + old[at + 1 :])
    return [*rules[:place], changed, *rules[place + 1 :]]


@given(st.lists(st.tuples(st.one_of(_RULES, _EDIT), st.booleans(), st.booleans()), max_size=8))
def test_planner_any_sequence_plans_like_a_new_one(steps: list[tuple[Any, bool, bool]]) -> None:
    planner = FilterPlanner()
    rules: list[FilterRule] = []
    for given_rules, shields_up, held in steps:
        rules = given_rules if isinstance(given_rules, list) else _edited(rules, given_rules)
        holders = [ip_network("100.64.0.7/32")] if held else []
        expected = plan_filter(rules, OWN, shields_up=shields_up, cap_sources=lambda cap: holders)  # noqa: B023
        assert planner.plan(rules, OWN, shields_up=shields_up, cap_sources=lambda cap: holders) == expected  # noqa: B023


def test_planner_rules_that_stay_are_the_same_objects_and_a_changed_one_shares_its_sources() -> None:
    planner = FilterPlanner()
    hosts = tuple(f"100.64.1.{n}" for n in range(200))
    rules = [rule(*hosts), rule("*"), rule(*hosts, dst=(to("100.64.0.2", 1, 2),))]
    before = planner.plan(rules, OWN).rules
    changed = rule(*hosts[:100], "100.64.2.1", *hosts[100:])
    after = planner.plan([changed, *rules[1:]], OWN).rules
    assert after[1] is before[1]
    assert after[2] is before[2]
    assert after[2][0] is before[0][0]
    assert after[0] == plan_filter([changed], OWN).rules[0]
    assert after[0][0][0] is before[0][0][0]
    assert after[0][0][-1] is before[0][0][-1]


def test_planner_asks_once_for_the_holders_of_a_capability_and_keeps_rules_whose_holders_stay() -> None:
    """PF-10: all peers are looked at for it, and a filter may name it in any number of rules."""
    planner, holders = FilterPlanner(), [ip_network("100.64.0.7/32")]
    asked: list[str] = []

    def cap_sources(capability: str) -> list[IPPrefix]:
        asked.append(capability)
        return list(holders)

    def plan(rules: list[FilterRule]) -> tuple[CompiledRule, ...]:
        asked.clear()
        return planner.plan(rules, OWN, cap_sources=cap_sources).rules

    rules = [rule("cap:a", f"100.64.1.{n}", "cap:b") for n in range(20)]
    before = plan(rules)
    assert sorted(asked) == ["a", "b"]
    after = plan([*rules, rule("*")])
    assert sorted(asked) == ["a", "b"]
    assert all(new is old for new, old in zip(after, before, strict=False))
    holders.append(ip_network("100.64.0.8/32"))
    assert plan(rules) == plan_filter(rules, OWN, cap_sources=lambda cap: holders).rules
