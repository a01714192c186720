"""The longest-prefix map against its twin, and the cases a trie and a hash table get wrong by name."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd._fast.lpm import PrefixMap
from tests.reference import lpm as reference

# Few different bits, so that prefixes nest, collide and share paths.
ADDRESS4 = st.lists(st.sampled_from([0, 1, 2, 15, 16, 127, 128, 255]), min_size=4, max_size=4).map(bytes)
ADDRESS6 = st.lists(st.sampled_from([0, 0, 0, 1, 128, 255]), min_size=16, max_size=16).map(bytes)
PREFIX = st.one_of(
    st.tuples(ADDRESS4, st.one_of(st.integers(0, 32), st.just(32))),
    st.tuples(ADDRESS6, st.one_of(st.integers(0, 128), st.just(128))),
)
STEPS = st.lists(
    st.tuples(st.sampled_from(["insert", "insert", "remove"]), PREFIX, st.integers(0, 2**31 - 2)), max_size=80
)


def ip4(text: str) -> bytes:
    return bytes(map(int, text.split(".")))


@given(STEPS, st.lists(st.one_of(ADDRESS4, ADDRESS6), max_size=20))
def test_map_any_changes_agree_with_twin(steps: list[tuple[str, tuple[bytes, int], int]], probes: list[bytes]) -> None:
    fast, twin = PrefixMap(), reference.PrefixMap()
    touched = [address for _, (address, _), _ in steps]
    for verb, (address, bits), value in steps:
        if verb == "insert":
            assert fast.insert(address, bits, value) == twin.insert(address, bits, value)
        else:
            assert fast.remove(address, bits) == twin.remove(address, bits)
        assert fast.get(address, bits) == twin.get(address, bits)
        assert len(fast) == len(twin)
    for address in touched + probes:
        assert fast.lookup(address) == twin.lookup(address)
    for _, (address, bits), _ in steps:
        fast.remove(address, bits)
    assert len(fast) == 0
    assert all(fast.lookup(address) is None for address in touched + probes)


@pytest.mark.parametrize("size", [4, 16])
def test_map_thousands_of_hosts_and_subnets_agree_with_twin(size: int) -> None:
    """Growth, tombstones and rebuilds of the host table, with churn."""
    rng = random.Random(size)
    fast, twin = PrefixMap(), reference.PrefixMap()
    width = size * 8
    hosts = [rng.randbytes(size) for _ in range(3000)]
    for round_ in range(3):
        for number, host in enumerate(hosts):
            bits = width if number % 8 else rng.randrange(width)
            assert fast.insert(host, bits, number) == twin.insert(host, bits, number)
        for host in rng.sample(hosts, 2000):
            assert fast.remove(host, width) == twin.remove(host, width)
        hosts = hosts[1000:] + [rng.randbytes(size) for _ in range(1000)]
        assert len(fast) == len(twin)
        for host in hosts[:: 7 + round_]:
            assert fast.lookup(host) == twin.lookup(host)


def test_map_most_specific_prefix_wins_whatever_the_order() -> None:
    prefixes = [("0.0.0.0", 0), ("10.0.0.0", 7), ("10.0.0.0", 8), ("10.1.0.0", 16), ("10.1.2.0", 25), ("10.1.2.3", 32)]
    probes = {"10.1.2.3": 5, "10.1.2.4": 4, "10.1.2.128": 3, "10.2.0.0": 2, "11.0.0.0": 1, "12.0.0.0": 0}
    for seed in range(20):
        order = list(enumerate(prefixes))
        random.Random(seed).shuffle(order)
        table = PrefixMap()
        for value, (address, bits) in order:
            table.insert(ip4(address), bits, value)
        assert {text: table.lookup(ip4(text)) for text in probes} == probes


def test_map_families_are_apart() -> None:
    table = PrefixMap()
    table.insert(bytes(4), 0, 4)
    assert table.lookup(bytes(16)) is None
    table.insert(bytes(16), 0, 6)
    assert (table.lookup(bytes(4)), table.lookup(bytes(16))) == (4, 6)
    assert table.remove(bytes(4), 0)
    assert (table.lookup(bytes(4)), table.lookup(bytes(16))) == (None, 6)


def test_map_all_zero_and_all_one_hosts_are_ordinary() -> None:
    table = PrefixMap()
    for value, address in enumerate([bytes(4), b"\xff" * 4, bytes(16), b"\xff" * 16]):
        table.insert(address, len(address) * 8, value)
    for value, address in enumerate([bytes(4), b"\xff" * 4, bytes(16), b"\xff" * 16]):
        assert table.lookup(address) == value
        assert table.remove(address, len(address) * 8)
        assert table.lookup(address) is None


def test_map_insert_again_replaces_the_value() -> None:
    """Moving a prefix to another peer is one insert."""
    table = PrefixMap()
    for bits in (0, 8, 24, 32):
        assert table.insert(ip4("10.0.0.1"), bits, 1)
        assert not table.insert(ip4("10.0.0.1"), bits, 2)
        assert table.lookup(ip4("10.0.0.1")) == 2
    assert len(table) == 4


def test_map_host_bits_are_ignored() -> None:
    table = PrefixMap()
    table.insert(ip4("10.1.2.3"), 16, 1)
    assert table.get(ip4("10.1.0.0"), 16) == 1
    assert table.remove(ip4("10.1.255.255"), 16)


def test_map_remove_absent_changes_nothing() -> None:
    table = PrefixMap()
    table.insert(ip4("10.0.0.0"), 8, 1)
    assert not table.remove(ip4("10.0.0.0"), 9)
    assert not table.remove(ip4("10.0.0.0"), 7)
    assert not table.remove(ip4("10.0.0.0"), 32)
    assert not table.remove(ip4("11.0.0.0"), 8)
    assert not table.remove(bytes(16), 128)
    assert len(table) == 1


def test_map_memory_returns_after_removal() -> None:
    """Trie nodes go with their last prefix; churn of hosts does not grow the table."""
    table = PrefixMap()
    empty = table.allocated_bytes
    prefixes = [(bytes([10, i, j, 0]), 24) for i in range(16) for j in range(16)]
    for address, bits in prefixes:
        table.insert(address, bits, 1)
    assert table.allocated_bytes > empty
    for address, bits in prefixes:
        table.remove(address, bits)
    assert table.allocated_bytes == empty
    for size in (4, 16):
        for number in range(100):
            table.insert(number.to_bytes(size), size * 8, number)
        settled = table.allocated_bytes
        for number in range(100, 20_000):
            table.insert(number.to_bytes(size), size * 8, number)
            table.remove((number - 100).to_bytes(size), size * 8)
        assert table.allocated_bytes <= 2 * settled


@pytest.mark.parametrize(
    ("address", "bits", "value"),
    [(bytes(3), 8, 0), (bytes(0), 0, 0), (bytes(4), 33, 0), (bytes(4), -1, 0), (bytes(16), 129, 0), (bytes(4), 8, -1)],
)
def test_map_impossible_prefix_or_value_raises(address: bytes, bits: int, value: int) -> None:
    table = PrefixMap()
    with pytest.raises(ValueError):
        table.insert(address, bits, value)
    assert len(table) == 0


def test_map_value_beyond_31_bits_raises() -> None:
    with pytest.raises(ValueError):
        PrefixMap().insert(bytes(4), 8, 2**31 - 1)
    with pytest.raises(OverflowError):
        PrefixMap().insert(bytes(4), 8, 2**31)
