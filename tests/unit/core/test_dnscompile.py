"""What a DNS plan means for our resolver and the operating system (DN-11)."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.base.errors import MeshdError
from meshd.base.ranges import SERVICE_V4, SERVICE_V6
from meshd.core.dnscompile import BASE_UNKNOWN, MAX_LOOSE, OSConfig, ResolverConfig, compile_dns, plain_addresses
from meshd.core.dnsplan import DNSPlan, within
from meshd.wire.control import Resolver


def resolvers(*addresses: str) -> tuple[Resolver, ...]:
    return tuple(Resolver(addr=address) for address in addresses)


BASE = OSConfig((ip_address("192.168.1.1"),), ("lan.test", "mesh.test"))
MESH: dict[str, tuple[Resolver, ...]] = {"mesh.test": (), "64.100.in-addr.arpa": ()}
NAMES = st.sampled_from(["mesh.test", "corp.test", "a.corp.test", "100.in-addr.arpa", "x.test"])
RESOLVERS = st.lists(
    st.sampled_from(["10.0.0.1", "10.0.0.1:53", "[fd00::1]:53", "10.0.0.2:5353", "https://dns.test/dns-query"]),
    min_size=1, max_size=3,
).map(lambda found: resolvers(*found))  # fmt: skip
PLANS = st.builds(
    DNSPlan,
    routes=st.dictionaries(NAMES, st.one_of(st.just(()), RESOLVERS), max_size=4),
    defaults=st.one_of(st.just(()), RESOLVERS),
    search=st.lists(NAMES, max_size=2, unique=True).map(tuple),
    unrouted=st.sampled_from(["", "mesh.test", "a.corp.test", "other.test"]),
    accepted=st.just(True),
    only_ipv6=st.booleans(),
)
BASES = st.one_of(st.none(), st.just(OSConfig()), st.just(BASE))
HOSTS = st.lists(st.sampled_from(["n.mesh.test", "other.example", ""]), max_size=3)


def test_nothing_to_resolve_only_search_domains() -> None:
    """DN-11: (2)."""
    ours, system = compile_dns(DNSPlan(search=("mesh.test",)), ["n.mesh.test"], can_split=False, base=None)
    assert (ours, system) == (ResolverConfig(), OSConfig(search_domains=("mesh.test",)))


def test_empty_plan_leaves_the_system_alone() -> None:
    """DN-02: with --accept-dns=false there is a plan with nothing but records."""
    plan = DNSPlan(records={"a.test": (ip_address("100.64.0.1"),)})
    assert compile_dns(plan, (), can_split=False, base=None)[1].is_empty


def test_plain_defaults_alone_go_to_the_system() -> None:
    """DN-11: (3)."""
    plan = DNSPlan(defaults=resolvers("10.0.0.1", "[fd00::1]:53"), search=("a.test",))
    ours, system = compile_dns(plan, (), can_split=False, base=None)
    assert system == OSConfig((ip_address("10.0.0.1"), ip_address("fd00::1")), ("a.test",))
    assert ours.routes == {}


@pytest.mark.parametrize("defaults", [("https://dns.test/dns-query",), ("10.0.0.1:54",), ("10.0.0.1", "nonsense")])
def test_other_defaults_go_through_us(defaults: tuple[str, ...]) -> None:
    """DN-11: (4)."""
    ours, system = compile_dns(DNSPlan(defaults=resolvers(*defaults)), (), can_split=True, base=None)
    assert system == OSConfig((SERVICE_V4,))
    assert ours.routes == {"": resolvers(*defaults)}


def test_defaults_with_a_host_that_no_route_covers_go_through_us() -> None:
    """DN-11: (3) wants every host covered."""
    _, system = compile_dns(DNSPlan(defaults=resolvers("10.0.0.1")), ["n.test"], can_split=True, base=None)
    assert system.nameservers == (SERVICE_V4,)


def test_defaults_beside_routes_go_through_us() -> None:
    """DN-11: (4), with local domains by (1)."""
    plan = DNSPlan(routes={**MESH, "corp.test": resolvers("10.0.0.9")}, defaults=resolvers("10.0.0.1"), only_ipv6=True)
    ours, system = compile_dns(plan, ["n.mesh.test"], can_split=True, base=None)
    assert system == OSConfig((SERVICE_V6,))
    assert ours.routes == {"": resolvers("10.0.0.1"), "corp.test": resolvers("10.0.0.9")}
    assert ours.local_domains == ("64.100.in-addr.arpa", "mesh.test")
    assert ours.only_ipv6


def test_one_plain_set_for_all_routes_goes_to_a_system_that_splits() -> None:
    """DN-11: (5)."""
    plan = DNSPlan(routes={"b.test": resolvers("10.0.0.9"), "a.test": resolvers("10.0.0.9")})
    ours, system = compile_dns(plan, (), can_split=True, base=None)
    assert system == OSConfig((ip_address("10.0.0.9"),), (), ("a.test", "b.test"))
    assert ours.routes == {}


def test_one_plain_set_goes_through_us_without_split() -> None:
    """DN-11: (5) is for systems that can split."""
    plan = DNSPlan(routes={"a.test": resolvers("10.0.0.9")})
    ours, system = compile_dns(plan, (), can_split=False, base=BASE)
    assert system.nameservers == (SERVICE_V4,)
    assert ours.routes == {"a.test": resolvers("10.0.0.9"), "": resolvers("192.168.1.1")}


def test_magic_dns_with_a_system_that_splits() -> None:
    """DN-11: (6), the whole way of most nodes beside systemd-resolved."""
    ours, system = compile_dns(DNSPlan(routes=MESH, search=("mesh.test",)), ["n.mesh.test"], can_split=True, base=None)
    assert system == OSConfig((SERVICE_V4,), ("mesh.test",), ("64.100.in-addr.arpa", "mesh.test"))
    assert ours == ResolverConfig({}, ("64.100.in-addr.arpa", "mesh.test"))


def test_magic_dns_without_split_sends_other_names_to_the_base() -> None:
    """DN-11: (6), the whole way of most nodes with a plain resolv.conf."""
    ours, system = compile_dns(DNSPlan(routes=MESH, search=("mesh.test",)), (), can_split=False, base=BASE)
    assert system == OSConfig((SERVICE_V4,), ("mesh.test", "lan.test"))
    assert ours.routes == {"": resolvers("192.168.1.1")}


def test_records_beyond_the_routes_are_matched_by_name() -> None:
    _, system = compile_dns(DNSPlan(routes=MESH), ["db.example", "n.mesh.test"], can_split=True, base=None)
    assert system.match_domains == ("64.100.in-addr.arpa", "db.example", "mesh.test")


def test_records_alone_are_asked_of_us() -> None:
    """DN-01: with MagicDNS off and no resolvers, the additional names are all that the network has to say."""
    plan = DNSPlan(records={"db.example": (ip_address("10.0.0.9"),)}, unrouted="mesh.test", accepted=True)
    ours, system = compile_dns(plan, ["db.example"], can_split=True, base=BASE)
    assert system == OSConfig((SERVICE_V4,), (), ("db.example",))
    assert ours.routes == {"db.example": resolvers("192.168.1.1")}  # www.db.example is no name of ours
    ours, system = compile_dns(plan, ["db.example"], can_split=False, base=BASE)
    assert system == OSConfig((SERVICE_V4,), ("lan.test", "mesh.test"))
    assert ours.routes == {"": resolvers("192.168.1.1")}
    with pytest.raises(MeshdError):
        compile_dns(plan, ["db.example"], can_split=False, base=None)


def test_very_many_names_beyond_the_routes_are_not_told_one_by_one() -> None:
    """DN-11: systemd-resolved would take none of them."""
    names = [f"n{number}.example" for number in range(MAX_LOOSE + 1)]
    assert compile_dns(DNSPlan(routes=MESH), names[1:], can_split=True, base=BASE)[1].match_domains
    ours, system = compile_dns(DNSPlan(routes=MESH), names, can_split=True, base=BASE)
    assert system == OSConfig((SERVICE_V4,), BASE.search_domains)
    assert ours.routes == {"": resolvers("192.168.1.1")}


def test_resolvers_that_answer_https_alone_are_asked_by_us() -> None:
    """DN-11: programs of the host would ask them in plain DNS."""
    for address in ("2a07:a8c0::ab:cdef", "45.90.28.7", "76.76.2.22", "[2606:1a40::ab]:53", "185.71.138.138"):
        _, system = compile_dns(DNSPlan(defaults=resolvers("10.0.0.1", address)), (), can_split=True, base=None)
        assert system == OSConfig((SERVICE_V4,))
    assert plain_addresses(resolvers("76.76.2.0", "9.9.9.9", "45.90.29.1"))


def test_defaults_without_magic_dns_go_through_us() -> None:
    """DN-11: the names of nodes are ours to answer, and resolvers outside know nothing of them."""
    plan = DNSPlan(defaults=resolvers("10.0.0.1"), unrouted="mesh.test")
    ours, system = compile_dns(plan, (), can_split=True, base=None)
    assert system == OSConfig((SERVICE_V4,))
    assert ours.routes == {"": resolvers("10.0.0.1")}


@pytest.mark.parametrize("base", [BASE, OSConfig(), None])
def test_split_without_magic_dns_matches_the_suffix_of_the_nodes(base: OSConfig | None) -> None:
    """DN-11: other names below it are asked of the host's resolvers, where these are known."""
    plan = DNSPlan(routes={"corp.test": resolvers("10.0.0.9")}, unrouted="mesh.test")
    ours, system = compile_dns(plan, ["n.other.test"], can_split=True, base=base)
    assert system == OSConfig((SERVICE_V4,), (), ("corp.test", "mesh.test", "n.other.test"))
    others = dict.fromkeys(("mesh.test", "n.other.test"), resolvers("192.168.1.1")) if base is BASE else {}
    assert ours.routes == {"corp.test": resolvers("10.0.0.9"), **others}


def test_split_without_magic_dns_below_a_route_asks_its_resolvers() -> None:
    plan = DNSPlan(routes={"test": resolvers("10.0.0.9")}, unrouted="mesh.test")
    ours, system = compile_dns(plan, (), can_split=True, base=BASE)
    assert system == OSConfig((SERVICE_V4,), (), ("test",))
    assert ours.routes == {"test": resolvers("10.0.0.9")}


@given(plan=PLANS, hosts=HOSTS, can_split=st.booleans(), base=BASES)
def test_compile_any_plan_keeps_what_it_promises(
    plan: DNSPlan, hosts: list[str], can_split: bool, base: OSConfig | None
) -> None:
    """DN-11: (1), and that no name is lost on the way."""
    try:
        ours, system = compile_dns(plan, hosts, can_split=can_split, base=base)
    except MeshdError as error:
        assert error.code == BASE_UNKNOWN
        assert base is None
        assert not can_split
        assert plan.routes
        assert not plan.defaults
        return
    assert ours.local_domains == tuple(sorted(s for s, chosen in plan.routes.items() if not chosen))
    assert system.search_domains[: len(plan.search)] == plan.search
    assert len(set(system.search_domains)) == len(system.search_domains)
    through_us = system.nameservers in ((SERVICE_V4,), (SERVICE_V6,))
    if plan.routes or plan.defaults:
        assert system.nameservers
        # Every suffix with a meaning of its own reaches whoever is in charge of it.
        for suffix, chosen in plan.routes.items():
            assert not system.match_domains or any(within(suffix, domain) for domain in system.match_domains)
            assert (through_us and ours.routes.get(suffix, ()) == chosen) or (
                system.nameservers == plain_addresses(chosen)
            )
        assert through_us or not plan.unrouted
        covered = not system.match_domains or any(within(plan.unrouted, name) for name in system.match_domains)
        assert covered or not plan.unrouted
        for host in filter(None, hosts):
            assert through_us or any(within(host, suffix) for suffix in plan.routes)
    else:
        assert system.nameservers == ()
    if plan.defaults:
        assert ours.routes.get("", plan.defaults) == plan.defaults
        assert system.match_domains == ()
    if through_us:
        assert system.nameservers == ((SERVICE_V6,) if plan.only_ipv6 else (SERVICE_V4,))
        # All names come to us: then we must know whom to ask about those that are not ours.
        if not system.match_domains and not plan.defaults and base is not None:
            assert [r.addr for r in ours.routes.get("", ())] == [str(ip) for ip in base.nameservers]
    assert SERVICE_V4.compressed not in [r.addr for chosen in ours.routes.values() for r in chosen]
