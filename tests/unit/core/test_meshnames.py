"""Names of the network."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from meshd.core.meshnames import answer, resolvers_for, reverse_address
from meshd.core.netmap import Netmap
from meshd.wire import dnsmessage as dns
from tests.unit.core.mapworld import joined, node, own

CONFIG = {
    "Proxied": True,
    "Domains": ["mesh.test"],
    "Routes": {"100.in-addr.arpa": [], "corp.test": [{"Addr": "10.0.0.1"}], "deep.corp.test": [{"Addr": "10.0.0.2"}]},
    "ExtraRecords": [{"Name": "printer.mesh.test.", "Value": "10.0.0.9"}, {"Name": "bad.mesh.test", "Value": "x"}],
}


def world(*peers: dict[str, Any], config: dict[str, Any] | None = None, **self_fields: Any) -> Netmap:
    from tests.unit.core.mapworld import send

    session = joined(*peers, DNSConfig=CONFIG if config is None else config)
    if self_fields:
        send(session, Node=own(**self_fields))
    assert session.netmap is not None
    return session.netmap


def addresses(found: tuple[int, list[dns.Record]] | None) -> list[str]:
    assert found is not None
    assert found[0] == dns.SUCCESS
    return [str(ip_address(record.data)) for record in found[1]]


def test_names_of_nodes_are_answered_with_ipv4() -> None:
    """MagicDNS: AAAA only where there is nothing else, or the network asks for it."""
    netmap = world(node(2))
    assert addresses(answer(netmap, "N2.mesh.test.", dns.A)) == ["100.64.0.2"]
    assert addresses(answer(netmap, "n1.mesh.test", dns.A)) == ["100.64.0.1"]
    assert addresses(answer(netmap, "n2.mesh.test", dns.AAAA)) == []
    both = world(node(2), CapMap={"magicdns-aaaa": None})
    assert addresses(answer(both, "n2.mesh.test", dns.AAAA)) == ["fd7a:115c:a1e0:ab12::2"]
    only6 = world(node(2, Addresses=["fd7a:115c:a1e0:ab12::2/128"], AllowedIPs=["fd7a:115c:a1e0:ab12::2/128"]))
    assert addresses(answer(only6, "n2.mesh.test", dns.AAAA)) == ["fd7a:115c:a1e0:ab12::2"]


def test_extra_records_are_names_of_the_network() -> None:
    netmap = world()
    assert addresses(answer(netmap, "printer.mesh.test", dns.A)) == ["10.0.0.9"]
    assert addresses(answer(netmap, "bad.mesh.test", dns.A)) == []


def test_unknown_names_of_our_zone_do_not_exist_and_others_are_not_ours() -> None:
    netmap = world(node(2))
    assert answer(netmap, "nobody.mesh.test", dns.A) == (dns.NAME_ERROR, [])
    assert answer(netmap, "example.org", dns.A) is None
    assert answer(netmap, "n2", dns.A) is None, "short names are completed by whoever asks"
    assert answer(netmap, "", dns.A) is None
    assert answer(world(node(2), config=CONFIG | {"Proxied": False}), "n2.mesh.test", dns.A) is None


def test_reverse_names() -> None:
    netmap = world(node(2))
    found = answer(netmap, "2.0.64.100.in-addr.arpa.", dns.PTR)
    assert found == (dns.SUCCESS, [dns.Record(dns.PTR, 5, dns.encode_name("n2.mesh.test."))])
    assert answer(netmap, "9.0.64.100.in-addr.arpa.", dns.PTR) == (dns.NAME_ERROR, [])
    assert answer(netmap, "1.1.1.10.in-addr.arpa.", dns.PTR) is None


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("4.3.2.1.in-addr.arpa", "1.2.3.4"),
        ("1." + "0." * 31 + "ip6.arpa", "::1"),
        ("x.3.2.1.in-addr.arpa", None),
        ("zz." + "0." * 31 + "ip6.arpa", None),
        ("3.2.1.in-addr.arpa", None),
        ("example.org", None),
    ],
)
def test_reverse_address(name: str, address: str | None) -> None:
    assert reverse_address(name) == (ip_address(address) if address else None)


def test_resolvers_longest_suffix_then_network_then_system() -> None:
    dns_config = world().dns
    asked = lambda name: [r.addr for r in resolvers_for(dns_config, name, ["9.9.9.9"])]  # noqa: E731
    assert asked("a.deep.corp.test.") == ["10.0.0.2"]
    assert asked("corp.test") == ["10.0.0.1"]
    assert asked("xcorp.test") == ["9.9.9.9"]
    network = world(config=CONFIG | {"Resolvers": [{"Addr": "8.8.8.8"}]}).dns
    assert [r.addr for r in resolvers_for(network, "example.org", ["9.9.9.9"])] == ["8.8.8.8"]
    assert [r.addr for r in resolvers_for(None, "example.org", ["9.9.9.9"])] == ["9.9.9.9"]
