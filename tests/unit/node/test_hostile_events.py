"""Whatever peers, relays and strangers say: engine and paths count it, and no exception comes of it.

`python -m tests.fuzz.campaign engine` runs for as long as one likes.
"""

from __future__ import annotations

import pytest

from tests.fuzz.fuzz_engine import run

ROUNDS = 4000


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_hostile_events_raise_nothing(seed: int) -> None:
    fuzzer = run(ROUNDS, seed)
    counters = {**fuzzer.victim.engine.counters(), **fuzzer.victim.magic.disco_drops()}
    assert len(counters) > 5, counters
    asked = fuzzer.resolver.counters
    assert min(asked[name] for name in ("dns_questions", "dns_malformed", "service_dropped", "service_malformed")) > 5
