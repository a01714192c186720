"""The quick readers of texts accept nothing that the careful ones refuse, and read the same."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_address, ip_network

import msgspec
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meshd._fast.addresstext import (
    TextForms,
    endpoint_of,
    host_of,
    host_texts,
    key_of,
    quoted_plain,
    utc_of,
    utc_text,
)
from meshd.base.addr import AddrPort, host_prefix, usual_node_prefixes
from meshd.base.errors import WireError
from meshd.base.gotime import format_time
from meshd.wire.control import Node, decode
from meshd.wire.control.values import AddrPortText, NodeKeyText, PrefixText, TimeText

ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6), st.ip_addresses(v=4).map(lambda a: f"::ffff:{a}"))
NOISE = st.text(alphabet="0123456789abcdefABCDEF:./%[]-TZtz+ \0é", max_size=30)
PREFIXES = st.one_of(NOISE, st.builds("{}/{}".format, st.one_of(ADDRESSES, NOISE), st.sampled_from(range(140))))
PORTS = st.one_of(st.integers(0, 70000).map(str), NOISE)
ENDPOINTS = st.one_of(
    NOISE,
    st.builds("{}:{}".format, ADDRESSES, PORTS),
    st.builds("[{}]:{}".format, st.one_of(ADDRESSES, NOISE), PORTS),
)
TWO = st.integers(0, 99).map("{:02}".format)
TIMES = st.one_of(
    NOISE,
    st.builds("{:04}-{}-{}T{}:{}:{}Z".format, st.integers(0, 9999), *([TWO] * 5)),
    st.floats(0, 2e11).map(int).map(format_time),
)
KEYS = st.one_of(NOISE, st.binary(min_size=31, max_size=33).map(lambda raw: f"nodekey:{raw.hex()}"))


def allowed(kind: object, text: str) -> bool:
    try:
        msgspec.convert(text, kind)
    except msgspec.ValidationError:
        return False
    return True


@pytest.mark.parametrize(
    ("form", "kind", "texts"),
    [
        ("prefix", PrefixText, PREFIXES),
        ("endpoint", AddrPortText, ENDPOINTS),
        ("time", TimeText, TIMES),
        ("nodekey", NodeKeyText, KEYS),
    ],
)
def test_textforms_usual_text_is_one_that_the_pattern_allows(form: str, kind: object, texts: st.SearchStrategy) -> None:
    forms = TextForms([("value", form, None)])

    class Holder:
        value: object = None

    @given(texts)
    def check(text: str) -> None:
        holder = Holder()
        for holder.value in (text, (text,)):
            if forms.unusual(holder) is None:
                assert allowed(kind, text), text

    check()


@given(st.one_of(PREFIXES, ADDRESSES.map(lambda a: f"{a}/{ip_address(str(a)).max_prefixlen}")))
def test_host_of_any_text_is_the_address_of_a_single_one(text: str) -> None:
    host = host_of(text)
    if host is not None:
        network = ip_network(text)
        assert network.num_addresses == 1
        assert type(host) is type(network.network_address)
        assert (host, hash(host), str(host)) == (
            network.network_address,
            hash(network.network_address),
            str(network.network_address),
        )
        assert host.packed == network.network_address.packed


@given(ADDRESSES)
def test_host_of_single_address_is_read(address: object) -> None:
    plain = ip_address(str(address))
    assert host_of(f"{address}/{plain.max_prefixlen}") == plain
    assert host_of(f"{address}/{plain.max_prefixlen - 1}") is None


@given(ENDPOINTS)
def test_endpoint_of_any_text_is_address_and_port(text: str) -> None:
    found = endpoint_of(text)
    if found is not None:
        host, _, port = text.rpartition(":")
        expected = ip_address(host.strip("[]"))
        assert found == (getattr(expected, "ipv4_mapped", None) or expected, int(port))


@given(st.floats(0, 2e11).map(int))
def test_utc_of_written_time_is_read(wall: int) -> None:
    assert utc_of(format_time(wall)) == wall


@pytest.mark.parametrize("text", ["2023-02-29T00:00:00Z", "2100-02-29T00:00:00Z", "2024-04-31T00:00:00Z"])
def test_utc_of_day_that_does_not_exist_is_refused(text: str) -> None:
    assert utc_of(text) is None
    assert utc_of("2024-02-29T00:00:00Z") == 1709164800


@given(st.binary(min_size=32, max_size=32))
def test_key_of_hex_in_any_case_is_read(raw: bytes) -> None:
    assert key_of(f"mkey:{raw.hex()}", "mkey") == key_of(f"mkey:{raw.hex().upper()}", "mkey") == raw
    assert key_of(f"mkey:{raw.hex()}", "nodekey") is None
    assert key_of(f"mkey:{raw.hex()[1:]}g", "mkey") is None


def test_node_unusual_text_is_taken_and_wrong_text_is_named() -> None:
    assert decode(Node, b'{"ID":1,"Created":"2024-01-01T00:00:00.5+01:00"}').created.endswith("+01:00")
    with pytest.raises(WireError, match=r"Node: AllowedIPs\[1\] is malformed, expected address/bits"):
        decode(Node, b'{"ID":1,"AllowedIPs":["10.0.0.0/8","10.0.0.0/33"]}')


def test_textforms_unknown_form_is_refused() -> None:
    with pytest.raises(ValueError, match="no form"):
        TextForms([("value", "colour", None)])


HOSTS = st.lists(
    st.one_of(
        st.ip_addresses(network="100.64.0.0/10").map(lambda ip: f"{ip}/32"),
        st.ip_addresses(network="fd7a:115c:a1e0::/48").map(lambda ip: f"{ip}/128"),
        st.ip_addresses().map(lambda ip: f"{ip}/{ip.max_prefixlen}"),
        st.sampled_from(["100.100.100.100/32", "fd7a:115c:a1e0::53/128", "100.64.0.0/31", "::ffff:100.64.0.1/128"]),
        PREFIXES,
    ),
    max_size=3,
)


@given(HOSTS)
@example(["100.64.0.1/32", "100.64.0.1/32"])
@example(["fd7a:115c:a1e0::1/128", "fd7a:115c:a1e0:0::1/128"])
def test_usual_node_prefixes_are_those_of_nodes_and_of_no_service(texts: list[str]) -> None:
    found = usual_node_prefixes(tuple(texts))
    nodes = [ip_network("100.64.0.0/10"), ip_network("fd7a:115c:a1e0::/48")]
    services = ("100.100.100.100/32", "fd7a:115c:a1e0::53/128")
    if found is None:
        hosts = [host_of(text) for text in texts]
        assert len(set(hosts)) < len(hosts) or any(
            host is None or not any(host in net for net in nodes) or host.packed[-8:] in SERVICES for host in hosts
        )
    else:
        assert len(set(found)) == len(found)
        assert found == tuple(host_prefix(ip_network(text).network_address) for text in texts)
        assert all(any(prefix.subnet_of(net) for net in nodes if net.version == prefix.version) for prefix in found)
        assert not any(str(prefix) in services for prefix in found)


SERVICES = (bytes([100, 100, 100, 100]), bytes(7) + b"\x53")


@given(st.lists(ENDPOINTS, max_size=3))
def test_usual_endpoints_can_all_be_sent_to(texts: list[str]) -> None:
    found = AddrPort.usual(tuple(texts))
    one_by_one = [endpoint_of(text) for text in texts]
    fit = [e is not None and e[1] and not e[0].is_multicast and not e[0].is_unspecified for e in one_by_one]
    assert found == (tuple(one_by_one) if all(fit) else None)
    assert found is None or all(type(one) is AddrPort for one in found)


@given(st.one_of(st.integers(-(2**31), 2**39).map(float), st.floats(allow_nan=True)))
def test_utc_text_writes_the_whole_seconds_of_four_digit_years(wall: float) -> None:
    text = utc_text(wall)
    if 0 <= wall < 253402300800 and wall == wall // 1:
        assert text == datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        assert text is not None
        assert utc_of(text) == wall
    else:
        assert text is None


@given(st.lists(st.one_of(st.ip_addresses(), ADDRESSES.map(ip_address)), max_size=3))
def test_host_texts_are_those_of_ipaddress(addresses: list) -> None:
    prefixes = tuple(host_prefix(address) for address in addresses)
    assert host_texts(prefixes) == [str(address) for address in addresses]


@given(st.text(max_size=20))
def test_quoted_plain_is_json_or_none(text: str) -> None:
    quoted = quoted_plain(text)
    assert quoted in (None, orjson.dumps(text).decode())
    assert quoted is not None or not text.isascii() or not text.isalnum()
