from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from meshd.core.tai64n import TimestampSource, encode_step, step_of

VECTOR = json.loads((Path(__file__).parents[2] / "vectors" / "wireguard.json").read_text())["tai64n"]


def test_encode_step_matches_vector():
    wall = VECTOR["unix"] + VECTOR["nanos"] / 1e9
    assert encode_step(step_of(wall)).hex() == VECTOR["wire"]


def test_source_within_one_step_still_increases():
    """Two initiations inside 16.8 ms must not look like a replay."""
    source = TimestampSource()
    stamps = [source.next(b"peer", 1000.0) for _ in range(100)]
    assert stamps == sorted(set(stamps))


def test_source_survives_a_clock_step_back_even_for_a_peer_that_comes_back():
    source = TimestampSource()
    before = source.next(b"peer", 5000.0)
    for number in range(200):
        source.next(number.to_bytes(2, "big"), 6000.0)
    assert source.next(b"peer", 1000.0) > before


def test_source_forgets_peers_that_no_longer_matter():
    source = TimestampSource()
    for number in range(10_000):
        source.next(number.to_bytes(4, "big"), 1000.0 + number)
    assert len(source._last) < 200


@given(st.lists(st.floats(0, 4e9), min_size=2, max_size=30))
def test_source_is_strictly_monotone_for_any_clock(walls):
    source = TimestampSource()
    stamps = [source.next(b"peer", wall) for wall in walls]
    assert stamps == sorted(set(stamps))
    assert all(stamp[9:] == bytes(3) for stamp in stamps)
