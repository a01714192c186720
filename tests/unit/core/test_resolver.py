"""What becomes of questions."""

from __future__ import annotations

import random
from typing import Any

import pytest

from meshd.core.dnscompile import ResolverConfig
from meshd.core.mapsession import MapSession
from meshd.core.meshnames import MeshNames
from meshd.core.resolver import Answer, Forward, ResolverDecision, ResolverTable
from meshd.wire import dnsmessage as dns
from meshd.wire.control import Resolver
from tests.unit.core.mapworld import joined, node, send

ALL, CORP, DEEP = (Resolver(addr=f"10.0.0.{n}") for n in (1, 2, 3))
CONFIG = ResolverConfig(
    routes={"": (ALL,), "corp.test": (CORP,), "deep.corp.test": (DEEP,), "out.mesh.test": (CORP,), "void.test": ()},
    local_domains=("mesh.test", "64.100.in-addr.arpa", "mine.corp.test"),
)
DNS = {"Proxied": True, "Domains": ["mesh.test"]}


def decided(name: str, kind: int = dns.A, *, config: ResolverConfig = CONFIG, **fields: Any) -> Answer | Forward:
    decision = ResolverDecision()
    decision.configure(config)
    query = dns.decode_query(dns.encode_query(1, name, kind))
    return decision.decide(joined(node(2), DNSConfig=DNS).netmap, query._replace(**fields))


def code(found: Answer | Forward) -> int:
    assert isinstance(found, Answer)
    return found.code


def test_resolver_names_of_ours_that_nobody_has_do_not_exist() -> None:
    """DN-04, DN-12: and it is said for how long that may be remembered."""
    assert decided("n2.mesh.test") == Answer(dns.SUCCESS, [dns.Record(dns.A, 5, bytes([100, 64, 0, 2]))], own=True)
    assert decided("n9.mesh.test") == Answer(dns.NAME_ERROR, (), "mesh.test", own=True)
    assert decided("N9.Mesh.TEST") == Answer(dns.NAME_ERROR, (), "mesh.test", own=True)
    assert decided("9.0.64.100.in-addr.arpa", dns.PTR) == Answer(dns.NAME_ERROR, (), "64.100.in-addr.arpa", own=True)


def test_resolver_names_of_ours_without_such_records_are_empty() -> None:
    """DN-12: NXDOMAIN would say that the name has no records of any type."""
    for name, kind in (("n2.mesh.test", dns.AAAA), ("n2.mesh.test", 33), ("n2.mesh.test", dns.SOA)):
        assert decided(name, kind) == Answer(dns.SUCCESS, (), "mesh.test", own=True)
    assert decided("mesh.test", 2) == Answer(dns.SUCCESS, (), "mesh.test", own=True), "it has names below it"


def test_resolver_other_names_go_to_whoever_is_in_charge() -> None:
    """DN-07: the longest suffix."""
    assert decided("example.org") == Forward((ALL,))
    assert decided("corp.test") == decided("a.corp.test") == Forward((CORP,))
    assert decided("a.b.deep.corp.test") == Forward((DEEP,))
    assert decided("notcorp.test") == Forward((ALL,))
    assert decided("") == Forward((ALL,))


def test_resolver_longest_suffix_decides_between_us_and_others() -> None:
    """DN-07."""
    assert decided("x.out.mesh.test") == Forward((CORP,))
    assert code(decided("x.mine.corp.test")) == dns.NAME_ERROR
    assert code(decided("x.void.test")) == dns.NAME_ERROR, "a suffix without resolvers is ours"


def test_resolver_without_anybody_to_ask_says_so() -> None:
    config = ResolverConfig(routes={"corp.test": (CORP,)})
    assert decided("example.org", config=config) == Answer(dns.SERVER_FAILURE)
    assert decided("n2.mesh.test", config=ResolverConfig()) == decided("n2.mesh.test")


def test_resolver_names_that_must_not_leave_the_host() -> None:
    """DN-12: onion names (RFC 7686), browsing for services."""
    for name in ("onion", "x.onion", "lb._dns-sd._udp.0.0.168.192.in-addr.arpa", "b._dns-sd._udp.example.org"):
        assert code(decided(name, dns.PTR)) == dns.NAME_ERROR


def test_resolver_requests_that_are_no_questions_for_names() -> None:
    assert code(decided("n2.mesh.test", flags=5 << 11)) == dns.NOT_IMPLEMENTED
    assert code(decided("example.org", 252)) == dns.NOT_IMPLEMENTED
    assert code(decided("version.bind", 16, rrclass=3)) == dns.REFUSED
    assert code(decided("n2.mesh.test", edns_version=1)) == dns.BAD_VERSION


def test_resolver_answer_is_encoded_with_its_zone() -> None:
    query = dns.decode_query(dns.encode_query(3, "no.mesh.test", dns.A))
    message = pytest.importorskip("dns.message")
    parsed = message.from_wire(Answer(dns.NAME_ERROR, (), "mesh.test", own=True).encode(query))
    assert str(parsed.authority[0]).startswith("mesh.test. 10 IN SOA")
    assert parsed.flags & 0x0400
    assert not message.from_wire(Answer(dns.SERVER_FAILURE).encode(query)).flags & 0x0400


def test_resolver_finds_the_suffix_that_a_scan_finds() -> None:
    """Against the obvious way to do it, over random names and zones."""
    rng = random.Random(7)

    def name(most: int) -> str:
        return ".".join(rng.choice("ab") for _ in range(rng.randint(1, most)))

    for _ in range(300):
        routes = {name(4): (Resolver(addr=str(n)),) for n in range(4)}
        zones = tuple({name(4) for _ in range(3)} - set(routes))
        table = ResolverTable(ResolverConfig(routes=routes, local_domains=zones))
        wanted = name(6)
        found = [s for s in (*routes, *zones) if wanted == s or wanted.endswith("." + s)]
        longest = max(found, key=len, default=None)
        expected = () if longest is None else routes.get(longest, longest)
        assert table.find(wanted) == expected


class Counting(dict[Any, Any]):
    """A dictionary that tells when all of it is looked at."""

    scans = 0

    def __iter__(self) -> Any:
        Counting.scans += 1
        return super().__iter__()

    values = items = keys = __iter__  # type: ignore[assignment]


def test_resolver_large_network_costs_no_scan() -> None:
    """DN-01: 10 000 nodes; neither a question nor a change looks at all of them."""

    def many(number: int) -> dict[str, Any]:
        text = [f"100.{64 + (number >> 16)}.{number >> 8 & 255}.{number & 255}/32"]
        return node(number, Addresses=text, AllowedIPs=text)

    session: MapSession = joined(*(many(number) for number in range(2, 10_002)), DNSConfig=DNS)
    netmap = session.netmap
    assert netmap is not None
    netmap.peers, netmap.by_name, netmap.by_ip = map(Counting, (netmap.peers, netmap.by_name, netmap.by_ip))
    names = MeshNames()
    assert names.records(netmap, "n9999.mesh.test", dns.A) == [dns.Record(dns.A, 5, bytes([100, 64, 39, 15]))]
    assert names.records(netmap, "15.39.64.100.in-addr.arpa", dns.PTR)
    assert names.records(netmap, "n10002.mesh.test", dns.A) is None
    assert names.records(netmap, "a.b.n5.mesh.test", dns.A) is None
    send(session, PeersChanged=[many(10_002)])
    assert names.records(netmap, "n10002.mesh.test", dns.A)
    assert Counting.scans == 0
