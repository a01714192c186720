"""A short turn of the data plane's fuzzer; `tests/fuzz/fuzz_plane.py` runs for as long as one likes."""

from __future__ import annotations

import pytest

from tests.fuzz.fuzz_plane import MARKER, run
from tests.unit.fast.planepair import pair


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_plane_hostile_traffic_is_accounted_for(seed: int) -> None:
    """No crash, no stall, no nonce twice, and whatever went in came out, became an event or was counted."""
    fuzzer = run(6000, seed)
    assert fuzzer.received > 100
    assert fuzzer.delivered > 100


def test_plane_empty_datagram_is_counted() -> None:
    with pair() as nodes:
        nodes.a.udp.sendto(b"", ("127.0.0.1", nodes.b.port))
        assert nodes.b.counted("in_runt") == 1
        nodes.a.udp.sendto(MARKER, ("127.0.0.1", nodes.b.port))
        assert nodes.b.event(1)[3] == MARKER
