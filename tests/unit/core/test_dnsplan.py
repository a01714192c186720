"""Who is asked about which names."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from meshd.core.dnscompile import compile_dns
from meshd.core.dnsplan import DNSPlan, dns_plan, may_be_asked_for_others, own_zones, peer_api_base
from meshd.core.netmap import Netmap
from meshd.core.prefs import from_json
from tests.unit.core.mapworld import joined, node, own, send

CONFIG: dict[str, Any] = {
    "Proxied": True,
    "Domains": ["mesh.test", "Corp.Test."],
    "Routes": {"corp.test": [{"Addr": "10.0.0.1"}], "Deep.corp.test.": [{"Addr": "10.0.0.2"}], "empty.test": []},
    "ExtraRecords": [{"Name": "Printer.mesh.test.", "Value": "10.0.0.9"}, {"Name": "bad.test", "Value": "x"}],
    "FallbackResolvers": [{"Addr": "1.1.1.1"}],
}
API = {"Services": [{"Proto": "peerapi4", "Port": 4000}, {"Proto": "peerapi6", "Port": 6000}]}


def world(*peers: dict[str, Any], self_fields: dict[str, Any] | None = None, **changes: Any) -> Netmap:
    session = joined(*peers, DNSConfig=CONFIG | changes)
    if self_fields:
        send(session, Node=own(**self_fields))
    assert session.netmap is not None
    return session.netmap


def plan(netmap: Netmap, **prefs: Any) -> DNSPlan:
    return dns_plan(netmap, from_json(prefs))


def asked(found: DNSPlan) -> dict[str, list[str]]:
    zones = {suffix: [r.addr for r in chosen] for suffix, chosen in found.routes.items() if "arpa" not in suffix}
    return {**zones, ".": [r.addr for r in found.defaults]}


def test_plan_of_a_network_with_split_names() -> None:
    """DN-03, DN-04, DN-07: an entry without resolvers stays."""
    found = plan(world())
    assert asked(found) == {
        "mesh.test": [], "corp.test": ["10.0.0.1"], "deep.corp.test": ["10.0.0.2"], "empty.test": [], ".": [],
    }  # fmt: skip
    assert found.search == ("mesh.test", "corp.test")
    assert found.accepted


@pytest.mark.parametrize(
    "name", ["x\nnameserver 192.0.2.6", "a b", "x\x1b[2J", "a..b", "x" * 64, "a." * 127 + "a", "\u00e9.test"]
)
def test_plan_name_that_is_none_is_told_to_nobody(name: str) -> None:
    """The host's resolver reads what it is told line by line, and word by word."""
    found = plan(world(Domains=[name, "ok.test"], Routes={name: [{"Addr": "10.0.0.1"}], "corp.test": []}))
    assert found.search == ("ok.test",)
    assert asked(found).keys() == {"mesh.test", "corp.test", "."}
    records = {"Domains": [], "Routes": {}, "ExtraRecords": [{"Name": name, "Value": "10.0.0.9"}]}
    beside = plan(world(**records))
    _, system = compile_dns(beside, beside.records, can_split=True, base=None)
    assert all(domain.isascii() and domain.isprintable() and " " not in domain for domain in system.match_domains)
    odd = {"Name": "me.sp ace."}
    assert "sp ace" not in (*own_zones(world(self_fields=odd)), plan(world(self_fields=odd, Proxied=False)).unrouted)


def test_plan_own_zones_are_the_suffix_and_all_reverse_zones() -> None:
    """DN-04."""
    zones = own_zones(world())
    assert zones[:3] == ("mesh.test", "0.e.1.a.c.5.1.1.a.7.d.f.ip6.arpa", "64.100.in-addr.arpa")
    assert zones[-1] == "127.100.in-addr.arpa"
    assert len(zones) == 2 + 64
    assert set(zones) <= set(plan(world()).routes)
    assert "mesh.test" not in plan(world(Proxied=False)).routes
    assert (plan(world()).unrouted, plan(world(Proxied=False)).unrouted) == ("", "mesh.test")
    assert plan(world(Proxied=False), CorpDNS=False).unrouted == ""
    assert own_zones(world(self_fields={"Name": "alone."})) == ()


def test_plan_additional_names() -> None:
    """DN-01."""
    found = plan(world())
    assert found.records == {"printer.mesh.test": (ip_address("10.0.0.9"),)}
    assert not found.only_ipv6
    only6 = ["fd7a:115c:a1e0:ab12::1/128"]
    assert plan(world(self_fields={"Addresses": only6, "AllowedIPs": only6})).only_ipv6


def test_plan_of_a_user_who_wants_no_dns_has_names_only() -> None:
    """DN-02."""
    found = plan(world(Resolvers=[{"Addr": "8.8.8.8"}]), CorpDNS=False)
    assert (found.routes, found.defaults, found.search, found.accepted) == ({}, (), (), False)
    assert found.records


def test_plan_is_empty_without_network_and_after_key_expiry() -> None:
    assert dns_plan(None, from_json({})) == DNSPlan()


def test_plan_defaults_are_the_networks() -> None:
    """DN-06."""
    assert asked(plan(world(Resolvers=[{"Addr": "8.8.8.8"}])))["."] == ["8.8.8.8"]


def test_plan_of_a_wireguard_only_exit_node_has_its_resolvers() -> None:
    """DN-06, EX-06."""
    peer = node(2, IsWireGuardOnly=True, ExitNodeDNSResolvers=[{"Addr": "10.64.0.1"}])
    assert asked(plan(world(peer), ExitNodeID="s2"))["."] == ["10.64.0.1"]
    assert asked(plan(world(peer, Resolvers=[{"Addr": "8.8.8.8"}]), ExitNodeID="s2"))["."] == ["8.8.8.8"]


def test_plan_fallback_is_for_exit_nodes_that_answer_nothing() -> None:
    """DN-08."""
    assert asked(plan(world(node(2, Cap=1)), ExitNodeID="s2"))["."] == ["1.1.1.1"]
    assert asked(plan(world(node(2, Cap=1))))["."] == []
    assert asked(plan(world(), ExitNodeID="gone"))["."] == ["1.1.1.1"]


@pytest.mark.parametrize(
    ("fields", "able"),
    [
        ({"Cap": 26}, True),
        ({"Cap": 25}, False),
        ({"Cap": 25, "Hostinfo": {"Services": [*API["Services"], {"Proto": "peerapi-dns-proxy", "Port": 1}]}}, True),
        ({"Cap": 25, "Hostinfo": {"Services": [*API["Services"], {"Proto": "peerapi-dns-proxy", "Port": 0}]}}, False),
        ({"Cap": 100, "Hostinfo": {}}, False),
    ],
)
def test_plan_exit_node_answers_everything(fields: dict[str, Any], able: bool) -> None:
    """DN-05."""
    found = asked(plan(world(node(2, **{"Hostinfo": API, **fields})), ExitNodeID="s2"))
    assert found["."] == (["http://100.64.0.2:4000/dns-query"] if able else ["1.1.1.1"])
    assert ("corp.test" in found) is not able, "no split names beside it"
    assert found["mesh.test"] == found["empty.test"] == []


def test_plan_resolvers_meant_for_use_with_an_exit_node_are_asked() -> None:
    """DN-05, DN-14."""
    routes = {"corp.test": [{"Addr": "10.0.0.1"}, {"Addr": "10.0.0.3", "UseWithExitNode": True}]}
    resolvers = [{"Addr": "8.8.8.8"}, {"Addr": "9.9.9.9", "UseWithExitNode": True}]
    found = asked(plan(world(node(2, Cap=100, Hostinfo=API), Routes=routes, Resolvers=resolvers), ExitNodeID="s2"))
    assert (found["."], found["corp.test"]) == (["9.9.9.9"], ["10.0.0.3"])


def test_resolvers_longest_suffix_then_network_then_system() -> None:
    """DN-07."""
    found = plan(world())

    def chosen(plan: DNSPlan, name: str) -> list[str]:
        return [r.addr for r in plan.resolvers_for(name, ["9.9.9.9"])]

    assert chosen(found, "a.Deep.corp.test.") == ["10.0.0.2"]
    assert chosen(found, "corp.test") == ["10.0.0.1"]
    assert chosen(found, "xcorp.test") == ["9.9.9.9"]
    assert chosen(plan(world(Resolvers=[{"Addr": "8.8.8.8"}])), "example.org") == ["8.8.8.8"]
    assert chosen(DNSPlan(), "example.org") == ["9.9.9.9"]


def test_peer_api_base_is_of_a_kind_that_both_have() -> None:
    netmap = world(node(2, Hostinfo=API))
    (peer,) = netmap.peers.values()
    assert peer_api_base(netmap.self_node, peer) == "http://100.64.0.2:4000"
    only6 = ["fd7a:115c:a1e0:ab12::1/128"]
    six = world(node(2, Hostinfo=API), self_fields={"Addresses": only6, "AllowedIPs": only6})
    assert peer_api_base(six.self_node, peer) == "http://[fd7a:115c:a1e0:ab12::2]:6000"


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("example.org", True),
        ("exact.test", False),
        ("EXACT.test.", False),
        ("sub.exact.test", True),
        ("a.suffix.test", False),
        ("xsuffix.test", True),
    ],
)
def test_names_that_are_not_answered_for_others(name: str, allowed: bool) -> None:
    """DN-10."""
    dns = world(ExitNodeFilteredSet=["", "exact.test", ".suffix.test"]).dns
    assert may_be_asked_for_others(dns, name) is allowed
    assert not may_be_asked_for_others(None, name)
