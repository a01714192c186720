"""The length limit of HTTP/2 frames."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshd.io.http.h2frames import MAX_FRAME_BYTES, PREFACE_BYTES, FrameGuard


def _frame(length: int) -> bytes:
    return length.to_bytes(3, "big") + bytes(6 + length)


@given(st.lists(st.integers(0, 600), max_size=8), st.booleans(), st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_frame_guard_judges_the_same_however_the_bytes_are_cut(lengths, oversized, cuts):
    data = bytes(PREFACE_BYTES) + b"".join(_frame(length) for length in lengths)
    if oversized:
        data += (MAX_FRAME_BYTES + 1).to_bytes(3, "big") + bytes(6)
    guard, allowed, at, turn = FrameGuard(), True, 0, 0
    while at < len(data) and allowed:
        step = cuts[turn % len(cuts)]
        allowed = guard.allows(data[at : at + step])
        at += step
        turn += 1
    assert allowed is not oversized


def test_frame_guard_largest_frame_is_allowed():
    assert FrameGuard().allows(bytes(PREFACE_BYTES) + _frame(MAX_FRAME_BYTES) + _frame(0))
