"""The event ring against a deque."""

from __future__ import annotations

import os
import select
from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from meshd._fast.ring import Ring

HEADER = 40


def readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


@given(st.lists(st.none() | st.tuples(st.integers(0, 65534), st.binary(max_size=1500)), max_size=200))
def test_ring_any_order_agrees_with_deque(steps: list[tuple[int, bytes] | None]) -> None:
    ring, twin, lost = Ring(4096), deque[tuple[int, bytes]](), 0
    for step in steps:
        if step is None:
            assert ring.take() == (twin.popleft() if twin else None)
            continue
        room = sum(HEADER + len(data) + 7 for _, data in twin) + HEADER + len(step[1]) + 7
        if ring.put(*step):
            twin.append(step)
        else:
            lost += 1
            assert room > 4096 - 1600  # full but for the rest that a record could not be wrapped into
        assert ring.dropped == lost
    while twin:
        assert ring.take() == twin.popleft()
    assert ring.take() is None


def test_ring_full_drops_and_counts() -> None:
    ring = Ring(4096)
    taken = sum(ring.put(1, bytes(100)) for _ in range(100))
    assert 0 < taken < 100
    assert ring.dropped == 100 - taken
    assert all(ring.take() == (1, bytes(100)) for _ in range(taken))
    assert ring.take() is None
    assert ring.put(2, b"again")


def test_ring_record_larger_than_ring_refused() -> None:
    ring = Ring(4096)
    assert not ring.put(1, bytes(5000))
    assert ring.take() is None


def test_ring_bell_readable_until_empty() -> None:
    ring = Ring(4096)
    assert not readable(ring.event_fd)
    ring.put(1, b"a")
    ring.put(1, b"b")
    assert os.eventfd_read(ring.event_fd) == 1  # one system call for both
    os.eventfd_write(ring.event_fd, 1)
    assert ring.take() == (1, b"a")
    assert readable(ring.event_fd)
    assert ring.take() == (1, b"b")
    assert ring.take() is None
    assert not readable(ring.event_fd)
    ring.put(1, b"c")
    assert readable(ring.event_fd)
