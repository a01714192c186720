"""The quick ways of making addresses and prefixes agree with ``ipaddress``."""

from __future__ import annotations

import copy
import pickle
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.base.addr import AddrPort, IPAddress, format_ip, host_prefix, parse_ip, parse_prefix

ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
TEXTS = st.one_of(
    ADDRESSES.map(str),
    ADDRESSES.map(lambda a: a.exploded),
    st.text(alphabet="0123456789abcdefABCDEF:./%", max_size=20),
    st.ip_addresses(v=4).map(lambda a: f"::ffff:{a}"),
)


@given(TEXTS)
def test_parse_ip_any_text_agrees_with_ipaddress(text: str) -> None:
    try:
        expected = ip_address(text)
    except ValueError:
        with pytest.raises(ValueError, match=r"."):
            parse_ip(text)
        return
    if isinstance(expected, IPv6Address):
        if expected.scope_id is not None:
            with pytest.raises(ValueError, match="zone"):
                parse_ip(text)
            return
        expected = expected.ipv4_mapped or expected
    assert parse_ip(text) == expected


@given(TEXTS, st.integers(0, 129))
def test_parse_prefix_any_text_agrees_with_ipaddress(host: str, bits: int) -> None:
    text = f"{host}/{bits}"
    try:
        expected = ip_network(text)
    except ValueError:
        with pytest.raises(ValueError, match=r"."):
            parse_prefix(text)
        return
    assert parse_prefix(text) == expected


@given(ADDRESSES)
def test_host_prefix_is_the_plain_network_in_every_respect(address: IPAddress) -> None:
    plain = ip_network(address)
    host = host_prefix(address)
    assert host == plain
    assert plain == host
    assert host == host_prefix(address)
    assert hash(host) == hash(plain)
    assert {plain: 1}[host] == 1
    assert str(host) == str(ip_network(str(plain)))
    assert repr(host) == repr(ip_network(str(plain)))
    assert (host.prefixlen, host.max_prefixlen, host.version) == (plain.prefixlen, plain.max_prefixlen, plain.version)
    assert (host.broadcast_address, host.hostmask, host.netmask) == (
        plain.broadcast_address,
        plain.hostmask,
        plain.netmask,
    )
    assert list(host.hosts()) == [address]
    assert host.supernet() == plain.supernet()
    assert host.supernet() != host
    assert type(host.supernet()) in (IPv4Network, IPv6Network)
    assert pickle.loads(pickle.dumps(host)) == plain
    assert copy.deepcopy(host) == plain
    assert str(parse_ip(format_ip(address))) == str(parse_ip(str(address)))


def test_host_prefix_other_address_or_length_differs() -> None:
    one = host_prefix(IPv4Address("10.0.0.1"))
    assert one != host_prefix(IPv4Address("10.0.0.2"))
    assert one != IPv4Network("10.0.0.1/32").supernet()
    assert one != host_prefix(IPv6Address("::a00:1"))
    assert host_prefix(IPv6Address("::1")) != host_prefix(IPv6Address("::2"))
    assert one < host_prefix(IPv4Address("10.0.0.2"))
    assert one.subnet_of(IPv4Network("10.0.0.0/8"))  # type: ignore[arg-type]


@given(ADDRESSES, st.integers(0, 65535))
def test_addrport_text_survives_a_round_trip(address: IPAddress, port: int) -> None:
    pair = AddrPort(parse_ip(str(address)), port)
    assert AddrPort.parse(str(pair)) == pair
