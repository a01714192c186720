"""Prefix arithmetic against the standard library, and text that is no address by name."""

from __future__ import annotations

import pickle
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd._fast.ipprefix import Prefix, format_address, parse_address, summarize
from tests.reference import ipprefix as reference

# Nearly equal addresses, so that prefixes nest and touch.
ADDRESS4 = st.one_of(st.binary(min_size=4, max_size=4), st.sampled_from([bytes(4), b"\xff" * 4, bytes([10, 0, 0, 1])]))
ADDRESS6 = st.one_of(st.binary(min_size=16, max_size=16), st.sampled_from([bytes(16), b"\xff" * 16, bytes(15) + b"\1"]))
PAIRS = st.one_of(
    st.tuples(ADDRESS4, st.integers(0, 32), ADDRESS4, st.integers(0, 32)),
    st.tuples(ADDRESS6, st.integers(0, 128), ADDRESS6, st.integers(0, 128)),
    st.tuples(ADDRESS4, st.integers(0, 32), ADDRESS6, st.integers(0, 128)),
    ADDRESS4.flatmap(lambda a: st.tuples(st.just(a), st.integers(0, 32), st.just(a), st.integers(0, 32))),
    ADDRESS6.flatmap(lambda a: st.tuples(st.just(a), st.integers(0, 128), st.just(a), st.integers(0, 128))),
)


def pair(prefix: Prefix) -> tuple[bytes, int]:
    return prefix.address, prefix.bits


@given(PAIRS)
def test_prefix_any_pair_agrees_with_twin(given_: tuple[bytes, int, bytes, int]) -> None:
    a, b = Prefix.masked(*given_[:2]), Prefix.masked(*given_[2:])
    x, y = reference.network(*given_[:2]), reference.network(*given_[2:])
    assert pair(a) == reference.pair(x)
    assert a.last == x.broadcast_address.packed
    assert a.contains(b) == reference.contains(x, y)
    assert a.overlaps(b) == reference.overlaps(x, y)
    assert (given_[2] in a) == (y.version == x.version and ip_address(given_[2]) in x)
    assert [pair(p) for p in a.subtract(b)] == reference.subtract(x, y)
    assert (a == b) == (x == y)
    if a == b:
        assert hash(a) == hash(b)
    assert str(a) == str(x)
    assert Prefix.parse(str(x)) == a
    if x.version == y.version:
        assert (a < b) == (x < y)


@given(st.one_of(st.tuples(ADDRESS4, ADDRESS4), st.tuples(ADDRESS6, ADDRESS6)))
def test_summarize_any_range_agrees_with_twin(ends: tuple[bytes, bytes]) -> None:
    first, last = sorted(ends)
    assert [pair(p) for p in summarize(first, last)] == reference.summarize(first, last)


@given(st.one_of(ADDRESS4, ADDRESS6))
def test_address_text_agrees_with_standard_library(packed: bytes) -> None:
    assert ip_address(format_address(packed)).packed == packed
    assert parse_address(str(ip_address(packed))) == packed


def test_supernet_lengths() -> None:
    prefix = Prefix.parse("10.1.2.0/24")
    assert str(prefix.supernet(9)) == "10.0.0.0/9"
    assert prefix.supernet(24) == prefix
    assert str(prefix.supernet(0)) == "0.0.0.0/0"
    for bits in (25, -1):
        with pytest.raises(ValueError, match="supernet"):
            prefix.supernet(bits)


def test_prefix_host_bits_raise() -> None:
    with pytest.raises(ValueError, match="bits beyond"):
        Prefix(bytes([10, 0, 0, 1]), 8)
    with pytest.raises(ValueError, match="bits beyond"):
        Prefix.parse("fd00::1/64")


def test_prefix_single_address_is_host() -> None:
    assert Prefix.parse("10.0.0.1").is_host
    assert Prefix.parse("::1").bits == 128
    assert not Prefix.parse("10.0.0.0/31").is_host


@pytest.mark.parametrize(
    "text",
    ["", "1.2.3", "1.2.3.4.5", "01.2.3.4", "1.2.3.256", "1.2.3.4 ", " 1.2.3.4", "fe80::1%eth0", ":", ":::", "1::2::3",
     "12345::", "::1.2.3", "1.2.3.4\0", "1,2,3,4", "٣.1.1.1", "0x1.2.3.4", "g::", "1" * 500],
)  # fmt: skip
def test_parse_address_malformed_raises(text: str) -> None:
    with pytest.raises(ValueError, match="not an IP address"):
        parse_address(text)


@pytest.mark.parametrize(
    "text", ["10.0.0.0/", "10.0.0.0/33", "10.0.0.0/08", "10.0.0.0/-1", "10.0.0.0/+8", "10.0.0.0/8/8", "/8", "::/129",
             "10.0.0.0/٨", "10.0.0.0/1000", "10.0.0.0/ 8"]
)  # fmt: skip
def test_parse_prefix_malformed_raises(text: str) -> None:
    with pytest.raises(ValueError):
        Prefix.parse(text)


@pytest.mark.parametrize(
    ("first", "last"), [(b"\1" * 4, bytes(4)), (bytes(4), bytes(16)), (bytes(3), bytes(3)), (bytes(4), bytes(3))]
)
def test_summarize_impossible_range_raises(first: bytes, last: bytes) -> None:
    with pytest.raises(ValueError):
        summarize(first, last)


def test_prefix_is_immutable_and_pickles() -> None:
    prefix = Prefix.parse("10.0.0.0/8")
    with pytest.raises(TypeError):
        prefix.__init__(bytes(4), 0)  # type: ignore[misc]
    with pytest.raises(AttributeError):
        prefix.bits = 3
    assert pickle.loads(pickle.dumps(prefix)) == prefix
    assert prefix != "10.0.0.0/8"
