from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd._fast.sourcelimit import BURST_MESSAGES, HANDSHAKE, HANDSHAKES_PER_S, OTHER, OTHERS_PER_S, SourceLimit
from tests.reference import sourcelimit as twin

SECOND = 10**9
A, B = bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2))


def taken(limit, address, kind, now, tries):
    return sum(limit.allow(address, kind, now) for _ in range(tries))


@pytest.mark.parametrize(("kind", "rate"), [(HANDSHAKE, HANDSHAKES_PER_S), (OTHER, OTHERS_PER_S)])
def test_source_limit_flood_is_held_to_burst_and_rate(kind, rate):
    limit = SourceLimit(1)
    assert taken(limit, A, kind, SECOND, 5000) == BURST_MESSAGES
    assert taken(limit, A, kind, 2 * SECOND, 5000) == rate if rate < BURST_MESSAGES else BURST_MESSAGES


def test_source_limit_other_sources_and_kinds_go_on_during_a_flood():
    limit = SourceLimit(2)
    taken(limit, A, HANDSHAKE, SECOND, 5000)
    assert taken(limit, B, HANDSHAKE, SECOND, 10) == 10
    assert taken(limit, A, OTHER, SECOND, 10) == 10


def test_source_limit_ipv6_neighbours_share_one_network():
    limit = SourceLimit(3)
    network = bytes.fromhex("20010db800000001")
    assert taken(limit, network + bytes(8), OTHER, SECOND, 5000) == BURST_MESSAGES
    assert not limit.allow(network + b"\xff" * 8, OTHER, SECOND)
    assert limit.allow(bytes.fromhex("20010db800000002") + bytes(8), OTHER, SECOND)


def test_source_limit_crowd_larger_than_the_table_still_lets_everybody_in():
    limit, random = SourceLimit(4), Random(4)
    assert all(limit.allow(random.randbytes(4), HANDSHAKE, SECOND) for _ in range(100_000))


@given(
    st.lists(
        st.tuples(st.sampled_from([A, B, A * 4, B * 4]), st.sampled_from([HANDSHAKE, OTHER]), st.integers(0, SECOND)),
        max_size=50,
    ),
    st.integers(1, 1500),
)
def test_source_limit_decides_as_its_twin(steps, repeat):
    limit, reference, now = SourceLimit(5), twin.SourceLimit(), SECOND
    for address, kind, pause in steps:
        now += pause
        for _ in range(repeat):
            assert limit.allow(address, kind, now) == reference.allow(address, kind, now)


@pytest.mark.parametrize(("address", "kind"), [(b"", HANDSHAKE), (bytes(5), OTHER), (A, 0), (A, 3)])
def test_source_limit_nonsense_is_refused(address, kind):
    with pytest.raises(ValueError, match=r"address|kind"):
        SourceLimit(1).allow(address, kind, 0)
