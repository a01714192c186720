"""In which order resolvers are asked."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from meshd.base.addr import AddrPort
from meshd.base.ranges import SERVICE_V4, SERVICE_V6
from meshd.core.dnsattempts import MAX_ATTEMPTS, Attempt, Way, plan_attempts, resolver_address
from meshd.core.publicdns import _BY_URL, doh_addresses, doh_url
from meshd.wire.control import Resolver


def planned(*texts: str, doubtful: tuple[str, ...] = ()) -> list[tuple[float, Way, str]]:
    attempts = plan_attempts(
        [Resolver(addr=text) for text in texts],
        lambda ip: ip in (SERVICE_V4, SERVICE_V6),
        lambda server: str(server) in doubtful,
    )
    return [(round(a.after_s, 3), a.way, a.name) for a in attempts]


def test_attempts_at_plain_resolvers_follow_each_other() -> None:
    """DN-12: staggered, so that a resolver that answers at once is the only one that is asked."""
    assert planned("10.0.0.1", "10.0.0.2:5353", "fd00::1", "10.0.0.1") == [
        (0.0, Way.PLAIN, "10.0.0.1:53"),
        (0.2, Way.PLAIN, "10.0.0.2:5353"),
        (0.4, Way.PLAIN, "[fd00::1]:53"),
    ]
    assert [name for _, _, name in planned("10.0.0.1", "10.0.0.2", doubtful=("10.0.0.1:53",))] == [
        "10.0.0.2:53",
        "10.0.0.1:53",
    ]


def test_attempts_never_lead_back_to_ourselves() -> None:
    assert planned("100.100.100.100", "fd7a:115c:a1e0::53", "100.100.100.100:53", "http://100.100.100.100:53/x") == []
    assert planned("100.100.100.100", "10.0.0.1") == [(0.0, Way.PLAIN, "10.0.0.1:53")]


def test_attempts_at_public_resolvers_go_over_https_first() -> None:
    """DN-12: one connection for all addresses of a provider, and a head start before anything goes in the clear."""
    assert planned("8.8.8.8", "8.8.4.4", "2001:4860:4860::8888") == [
        (0.0, Way.HTTPS, "https://dns.google/dns-query"),
        (0.5, Way.PLAIN, "8.8.8.8:53"),
        (0.5, Way.PLAIN, "[2001:4860:4860::8888]:53"),
        (0.7, Way.PLAIN, "8.8.4.4:53"),
    ]
    assert planned("8.8.8.8:5353") == [(0.0, Way.PLAIN, "8.8.8.8:5353")], "another service at that address"


def test_attempts_at_resolvers_that_speak_https_only() -> None:
    """DN-12."""
    assert planned("2a07:a8c0::c3:a884") == [(0.0, Way.HTTPS, "https://dns.nextdns.io/c3a884")]


def test_attempts_by_url() -> None:
    """DN-05, DN-12."""
    peer = "http://100.64.0.2:43210/dns-query"
    assert planned(peer) == [(0.0, Way.PEER, peer)]
    for bad in ("http://example.org/dns-query", "https://example.org/dns-query", "tls://1.1.1.1", "", "x", "1.2.3.4:x"):
        assert planned(bad) == []
    where = ("192.0.2.1",)
    for bad in (
        "https://[x/",
        "https://a:99999/",
        "https://a/ b",
        "https://\u00e9/",
        "https://a/\n",
        "http://192.0.2.1:80/ b",
    ):
        assert plan_attempts([Resolver(addr=bad, bootstrap_resolution=where)], lambda _: False) == []
    [elsewhere] = plan_attempts([Resolver(addr="https://a:8443/q", bootstrap_resolution=where)], lambda _: False)
    assert elsewhere.addresses == (AddrPort(ip_address("192.0.2.1"), 8443),)
    own = Resolver(addr="https://dns.example.org/q", bootstrap_resolution=("192.0.2.1", "nonsense"))
    assert plan_attempts([own], lambda _: False) == [
        Attempt(0.0, Way.HTTPS, (AddrPort(ip_address("192.0.2.1"), 443),), own.addr)
    ]


def test_attempts_of_one_question_are_bounded() -> None:
    assert len(planned(*(f"10.0.0.{n}" for n in range(1, 200)))) == MAX_ATTEMPTS


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.1", "10.0.0.1:53"),
        ("[::1]:54", "[::1]:54"),
        ("::1", "[::1]:53"),
        ("a:53", None),
        ("fe80::1%eth0", "[fe80::1%eth0]:53"),
        ("10.0.0.1%eth0", None),
    ],
)
def test_resolver_address(text: str, address: str | None) -> None:
    found = resolver_address(text)
    assert (str(found) if found else None) == address


def test_public_resolvers_are_found_both_ways() -> None:
    """DN-12."""
    assert len(_BY_URL) == 22
    for url, addresses in _BY_URL.items():
        assert doh_addresses(url) == addresses
        assert {doh_url(address) for address in addresses} == {(url, False)}
    assert sum(len(addresses) for addresses in _BY_URL.values()) == 74, "no address stands for two"
    assert doh_url(ip_address("10.0.0.1")) is None
    assert doh_url(ip_address("2001:db8::1")) is None


def test_public_resolvers_of_customers() -> None:
    """DN-12."""
    assert doh_url(ip_address("2a07:a8c1::1:2")) == ("https://dns.nextdns.io/010002", True)
    found = doh_addresses("https://dns.nextdns.io/c3a884/device?x")
    assert list(map(str, found)) == ["45.90.28.0", "45.90.30.0", "2a07:a8c0::c3:a884", "2a07:a8c1::c3:a884"]
    for bad in ("", "xyz", "c3 a8 84", "00" * 13):
        assert doh_addresses(f"https://dns.nextdns.io/{bad}") == ()
    assert len(doh_addresses("https://dns.controld.com/abc")) == 4
    assert doh_addresses("https://example.org/dns-query") == ()
