"""Names of the network."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from meshd.core.meshnames import MeshNames, is_service_browsing, parents, reverse_address, via_address
from meshd.core.netmap import Netmap
from meshd.wire import dnsmessage as dns
from tests.unit.core.mapworld import joined, node, own, send

CONFIG = {
    "Proxied": True,
    "Domains": ["mesh.test"],
    "ExtraRecords": [{"Name": "Printer.mesh.test.", "Value": "10.0.0.9"}, {"Name": "bad.mesh.test", "Value": "x"}],
}


def world(*peers: dict[str, Any], config: dict[str, Any] | None = None, **self_fields: Any) -> Netmap:
    session = joined(*peers, DNSConfig=CONFIG if config is None else config)
    if self_fields:
        send(session, Node=own(**self_fields))
    assert session.netmap is not None
    return session.netmap


def addresses(netmap: Netmap | None, name: str, kind: int = dns.A) -> list[str] | None:
    found = MeshNames().records(netmap, name, kind)
    return None if found is None else [str(ip_address(record.data)) for record in found]


def test_names_of_nodes_are_answered_with_ipv4() -> None:
    """DN-01, DN-14: AAAA only where there is nothing else, or the network asks for it."""
    netmap = world(node(2))
    assert addresses(netmap, "n2.mesh.test") == ["100.64.0.2"]
    assert addresses(netmap, "n1.mesh.test") == ["100.64.0.1"], "ourselves"
    assert addresses(netmap, "n2.mesh.test", dns.AAAA) == []
    assert addresses(netmap, "n2.mesh.test", dns.ANY) == ["100.64.0.2"]
    both = world(node(2), CapMap={"magicdns-aaaa": None})
    assert addresses(both, "n2.mesh.test", dns.AAAA) == ["fd7a:115c:a1e0:ab12::2"]
    assert addresses(both, "n2.mesh.test", dns.ANY) == ["100.64.0.2", "fd7a:115c:a1e0:ab12::2"]
    only6 = world(node(2, Addresses=["fd7a:115c:a1e0:ab12::2/128"], AllowedIPs=["fd7a:115c:a1e0:ab12::2/128"]))
    assert addresses(only6, "n2.mesh.test", dns.AAAA) == ["fd7a:115c:a1e0:ab12::2"]
    assert addresses(only6, "n2.mesh.test", 16) == [], "a name that is there without records of a type"


def test_names_of_nodes_for_a_node_without_ipv4() -> None:
    """DN-01."""
    only6 = ["fd7a:115c:a1e0:ab12::1/128"]
    netmap = world(node(2), Addresses=only6, AllowedIPs=only6)
    assert addresses(netmap, "n2.mesh.test") == []
    assert addresses(netmap, "n2.mesh.test", dns.AAAA) == ["fd7a:115c:a1e0:ab12::2"]


def test_names_of_nodes_follow_the_netmap() -> None:
    """DN-01: nothing is built for names, so a change costs nothing and shows at once."""
    session = joined(node(2), DNSConfig=CONFIG)
    names = MeshNames()
    assert session.netmap is not None
    assert names.records(session.netmap, "n3.mesh.test", dns.A) is None
    send(session, PeersChanged=[node(3)], PeersRemoved=[2])
    found = names.records(session.netmap, "n3.mesh.test", dns.A)
    assert found == [dns.Record(dns.A, 5, bytes([100, 64, 0, 3]))]
    assert names.records(session.netmap, "n2.mesh.test", dns.A) is None
    send(session, DNSConfig=CONFIG | {"ExtraRecords": [{"Name": "new.mesh.test", "Value": "10.0.0.8"}]})
    assert names.records(session.netmap, "new.mesh.test", dns.A)
    assert names.records(session.netmap, "printer.mesh.test", dns.A) is None


def test_short_names_are_for_networks_with_names_of_their_own() -> None:
    """DN-12: without MagicDNS, full names alone."""
    assert addresses(world(node(2)), "n2") == ["100.64.0.2"]
    without = world(node(2), config=CONFIG | {"Proxied": False})
    assert addresses(without, "n2") is None
    assert addresses(without, "n2.mesh.test") == ["100.64.0.2"]


def test_names_of_shared_nodes_are_those_of_their_network() -> None:
    """DN-01."""
    netmap = world(node(2, Name="n2.other.test."))
    assert addresses(netmap, "n2.other.test") == ["100.64.0.2"]
    assert addresses(netmap, "n2") is None


def test_names_below_those_of_nodes_that_take_all() -> None:
    """DN-14: dns-subdomain-resolve, of peers and of ourselves."""
    netmap = world(node(2, CapMap={"dns-subdomain-resolve": None}), node(3))
    assert addresses(netmap, "a.b.n2.mesh.test") == ["100.64.0.2"]
    assert addresses(netmap, "a.n3.mesh.test") is None
    assert addresses(netmap, "a.n1.mesh.test") is None
    ourselves = world(CapMap={"dns-subdomain-resolve": None})
    assert addresses(ourselves, "a.n1.mesh.test") == ["100.64.0.1"]


def test_extra_records_are_added_to_those_of_nodes() -> None:
    """DN-01."""
    more = [{"Name": "n2.mesh.test", "Type": kind, "Value": f"10.0.0.{n}"} for n, kind in enumerate(("", "A", "TXT"))]
    netmap = world(node(2), config=CONFIG | {"ExtraRecords": more})
    assert addresses(netmap, "n2.mesh.test") == ["100.64.0.2", "10.0.0.0", "10.0.0.1"]


def test_extra_records_are_names_of_the_network() -> None:
    """DN-01."""
    netmap = world()
    assert addresses(netmap, "printer.mesh.test") == ["10.0.0.9"]
    assert addresses(netmap, "bad.mesh.test") is None


def test_other_names_are_not_ours() -> None:
    netmap = world(node(2))
    for name in ("nobody.mesh.test", "example.org", "", "org"):
        assert addresses(netmap, name) is None
    assert addresses(None, "n2.mesh.test") is None


def test_reverse_names() -> None:
    """DN-12."""
    names, netmap = MeshNames(), world(node(2))
    pointer = [dns.Record(dns.PTR, 5, dns.encode_name("n2.mesh.test."))]
    assert names.records(netmap, "2.0.64.100.in-addr.arpa", dns.PTR) == pointer
    v6 = ip_address("fd7a:115c:a1e0:ab12::2").reverse_pointer
    assert names.records(netmap, v6, dns.PTR) == names.records(netmap, v6, dns.ANY) == pointer
    assert names.records(netmap, v6, dns.A) == []
    assert names.records(netmap, "9.0.64.100.in-addr.arpa", dns.PTR) is None
    assert names.records(netmap, "1.1.1.10.in-addr.arpa", dns.PTR) is None


@pytest.mark.parametrize("name", ["m\u00fcller.mesh.test.", "a..mesh.test.", "x" * 64 + ".mesh.test."])
def test_reverse_name_of_a_node_whose_name_dns_cannot_carry_does_not_exist(name: str) -> None:
    assert MeshNames().records(world(node(2, Name=name)), "2.0.64.100.in-addr.arpa", dns.PTR) is None


def test_the_resolver_has_a_name_itself() -> None:
    """DN-12."""
    own_name = "magicdns.localhost-tailscale-daemon"
    found = MeshNames().records(None, "100.100.100.100.in-addr.arpa", dns.PTR)
    assert found == [dns.Record(dns.PTR, 5, dns.encode_name(own_name))]
    assert addresses(None, own_name) == ["100.100.100.100"]
    assert addresses(None, own_name, dns.AAAA) == ["fd7a:115c:a1e0::53"]


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("10-1-1-16-via-7", "fd7a:115c:a1e0:b1a:0:7:a01:110"),
        ("10-1-1-16-via-7.tail1.ts.net", "fd7a:115c:a1e0:b1a:0:7:a01:110"),
        ("10-1-1-16-via-0x1f.mesh.test", "fd7a:115c:a1e0:b1a:0:1f:a01:110"),
        ("10-1-1-16-via-4294967295", "fd7a:115c:a1e0:b1a:ffff:ffff:a01:110"),
        ("10.1.1.16.via-7", "fd7a:115c:a1e0:b1a:0:7:a01:110"),
        ("via-7.10.1.1.16", "fd7a:115c:a1e0:b1a:0:7:a01:110"),
        ("10-1-1-16-via-4294967296", None),
        ("10-1-1-16-via--7", None),
        ("10-1-1-16-via-+7", None),
        ("10-1-1-16-via- 7", None),
        ("10-1-1-16-via-1_0", None),
        ("10-1-1-16-via-7.example.org", None),
        ("10-1-1-256-via-7", None),
        ("10-1-1-via-7", None),
        ("x-via-y", None),
        ("via-7.example.org", None),
        ("example.via-7", None),
    ],
)
def test_names_of_addresses_behind_a_site(name: str, address: str | None) -> None:
    """DN-12: 4via6, also as such names were once written."""
    assert via_address(name, "mesh.test") == (ip_address(address) if address else None)


def test_names_of_addresses_behind_a_site_have_no_ipv4() -> None:
    """DN-12: they exist, so A is empty and not "no such name"."""
    assert addresses(world(), "10-1-1-16-via-7.mesh.test") == []
    assert addresses(world(), "10-1-1-16-via-7.mesh.test", dns.AAAA) == ["fd7a:115c:a1e0:b1a:0:7:a01:110"]


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("4.3.2.1.in-addr.arpa", "1.2.3.4"),
        ("1." + "0." * 31 + "ip6.arpa", "::1"),
        ("x.3.2.1.in-addr.arpa", None),
        ("zz." + "0." * 31 + "ip6.arpa", None),
        ("3.2.1.in-addr.arpa", None),
        ("5.4.3.2.1.in-addr.arpa", None),
        ("example.org", None),
    ],
)
def test_reverse_address(name: str, address: str | None) -> None:
    assert reverse_address(name) == (ip_address(address) if address else None)


def test_questions_for_services_of_a_domain_are_known() -> None:
    """DN-12, RFC 6763 11."""
    assert is_service_browsing("lb._dns-sd._udp.0.64.100.in-addr.arpa")
    assert is_service_browsing("b._dns-sd._udp.example.org")
    assert not is_service_browsing("x._dns-sd._udp.example.org")
    assert not is_service_browsing("b.example.org")


def test_parents_of_a_name() -> None:
    assert list(parents("a.b.c")) == ["b.c", "c"]
    assert list(parents("a")) == list(parents("")) == []
