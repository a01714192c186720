"""The replay window against its twin, and its edges by name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd._fast.replay import REJECT_AFTER_MESSAGES, WINDOW, Window
from tests.reference import replay as reference

# Steps that stay in the window, leave it, and jump whole windows.
STEPS = st.lists(
    st.one_of(st.integers(-70, 70), st.integers(-8200, 8200), st.integers(-20000, 20000), st.integers(-(2**40), 2**40)),
    max_size=200,
)


@given(STEPS, st.sampled_from([0, 63, 64, 8127, 8128, 8129, 2**32, REJECT_AFTER_MESSAGES - 300]))
def test_window_any_counters_agrees_with_twin(steps: list[int], start: int) -> None:
    fast, twin = Window(), reference.Window()
    counter = start
    for step in steps:
        assert fast.accept(counter) == twin.accept(counter)
        assert fast.last == twin.last
        counter = min(max(counter + step, 0), 2**64 - 1)


def test_window_counter_zero_accepted_once() -> None:
    window = Window()
    assert window.accept(0)
    assert not window.accept(0)


def test_window_size_is_8128() -> None:
    """Counters up to 8128 behind the newest are taken, later ones are not (WireGuard paper 5.4.6, RFC 6479)."""
    window = Window()
    assert window.accept(10_000)
    assert window.accept(10_000 - WINDOW)
    assert not window.accept(10_000 - WINDOW - 1)
    assert WINDOW == 8128


def test_window_jump_clears_what_was_skipped() -> None:
    window = Window()
    for counter in range(300):
        assert window.accept(counter)
    assert window.accept(300 + 128 * 64)
    assert all(window.accept(300 + 128 * 64 - i) for i in range(1, WINDOW + 1))


@pytest.mark.parametrize("counter", [REJECT_AFTER_MESSAGES, 2**64 - 1])
def test_window_exhausted_counter_rejected(counter: int) -> None:
    window = Window()
    assert not window.accept(counter)
    assert window.last == 0
    assert window.accept(REJECT_AFTER_MESSAGES - 1)


@pytest.mark.parametrize("counter", [-1, 2**64])
def test_window_number_beyond_u64_raises(counter: int) -> None:
    with pytest.raises(OverflowError):
        Window().accept(counter)
