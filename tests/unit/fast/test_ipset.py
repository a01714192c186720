"""Address sets against their twin."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd._fast.ipprefix import Prefix, summarize
from meshd._fast.ipset import IPSet
from tests.reference import ipset as reference

Ranges = list[tuple[int, int]]


def spans(width: int) -> st.SearchStrategy[Ranges]:
    near_zero, near_top = st.integers(0, 40), st.integers(0, 40).map(lambda n: (1 << width) - 1 - n)
    number = st.one_of(near_zero, near_zero, near_top, st.integers(0, (1 << width) - 1))
    return st.lists(st.tuples(number, number).map(lambda ends: (min(ends), max(ends))), max_size=8)


SETS = st.sampled_from([32, 128]).flatmap(lambda w: st.tuples(st.just(w), spans(w), spans(w)))


def build(width: int, ranges: Ranges) -> IPSet:
    return IPSet([(first.to_bytes(width // 8), last.to_bytes(width // 8)) for first, last in ranges])


def numbers(addresses: IPSet) -> Ranges:
    return [(int.from_bytes(first), int.from_bytes(last)) for first, last in addresses.ranges()]


@given(SETS)
def test_sets_any_operation_agrees_with_twin(given_: tuple[int, Ranges, Ranges]) -> None:
    width, one, two = given_
    a, b = build(width, one), build(width, two)
    x, y = reference.normalise(one), reference.normalise(two)
    assert numbers(a) == x
    assert numbers(a | b) == reference.normalise(x + y)
    assert numbers(a - b) == reference.subtract(x, y)
    assert numbers(a & b) == reference.intersect(x, y)
    assert bool(a) == bool(x)
    assert (a == b) == (x == y)
    assert build(width, x[::-1]) == a
    assert hash(build(width, x)) == hash(a)
    for number in {n + d for pair in x + y for n in pair for d in (-1, 0, 1)}:
        if 0 <= number < 1 << width:
            assert (number.to_bytes(width // 8) in a) == reference.contains(x, number)


@given(SETS)
def test_prefixes_of_any_set_rebuild_it(given_: tuple[int, Ranges, Ranges]) -> None:
    addresses = build(given_[0], given_[1])
    prefixes = addresses.prefixes()
    assert IPSet(prefixes=prefixes) == addresses
    assert prefixes == [prefix for first, last in addresses.ranges() for prefix in summarize(first, last)]
    assert all(a < b and not a.overlaps(b) for a, b in pairwise(prefixes))


@given(SETS)
def test_covers_and_overlaps_agree_with_subtraction(given_: tuple[int, Ranges, Ranges]) -> None:
    addresses = build(given_[0], given_[1])
    for prefix in build(given_[0], given_[2]).prefixes():
        alone = IPSet(prefixes=[prefix])
        assert addresses.covers(prefix) == (not alone - addresses)
        assert addresses.overlaps(prefix) == bool(alone & addresses)


def test_set_mixes_families_without_confusing_them() -> None:
    addresses = IPSet(prefixes=[Prefix.parse("0.0.0.0/0")])
    assert bytes(4) in addresses
    assert bytes(16) not in addresses
    assert [str(p) for p in (addresses | IPSet(prefixes=[Prefix.parse("::/0")])).prefixes()] == ["0.0.0.0/0", "::/0"]


def test_set_neighbours_join() -> None:
    addresses = IPSet(prefixes=[Prefix.parse("10.0.0.0/9"), Prefix.parse("10.128.0.0/9")])
    assert [str(p) for p in addresses.prefixes()] == ["10.0.0.0/8"]


def test_empty_set() -> None:
    assert not IPSet()
    assert IPSet().prefixes() == []
    assert bytes(4) not in IPSet()
    assert IPSet() == IPSet() - IPSet()


@pytest.mark.parametrize("ends", [(b"\1" * 4, bytes(4)), (bytes(4), bytes(16)), (bytes(5), bytes(5))])
def test_impossible_range_raises(ends: tuple[bytes, bytes]) -> None:
    with pytest.raises(ValueError):
        IPSet([ends])


def test_address_of_another_size_raises() -> None:
    with pytest.raises(ValueError, match="4 or 16"):
        _ = bytes(5) in IPSet()


def test_set_is_immutable() -> None:
    addresses = IPSet(prefixes=[Prefix.parse("10.0.0.0/8")])
    with pytest.raises(TypeError):
        addresses.__init__()  # type: ignore[misc]
