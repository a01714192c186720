"""A short turn of the data plane's fuzzer; `python -m tests.fuzz.campaign plane` runs for as long as one likes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fuzz import campaign
from tests.fuzz.fuzz_plane import MARKER, Imbalance, PlaneFuzzer, run
from tests.unit.fast.planepair import pair


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_plane_hostile_traffic_is_accounted_for(seed: int) -> None:
    """No crash, no stall, no nonce twice, and whatever went in came out, became an event or was counted."""
    fuzzer = run(6000, seed)
    assert fuzzer.received > 100
    assert fuzzer.delivered > 100


def test_campaign_of_planes_keeps_the_seed_of_a_finding_and_goes_on(tmp_path: Path, monkeypatch) -> None:
    def turn(self: PlaneFuzzer) -> None:
        self.executions += 100
        if self.seed == 1:
            raise Imbalance("planted")

    monkeypatch.setattr(PlaneFuzzer, "turn", turn)
    assert campaign.run(["plane"], 500, 1, tmp_path, 60.0) == 1
    [kept] = (tmp_path / "plane" / "findings").glob("*.bin")
    assert kept.read_bytes() == b"1"
    state = json.loads((tmp_path / "plane" / "state.json").read_text())
    assert (state["executions"], [*state["findings"].values()]) == (501, [1])


def test_plane_empty_datagram_is_counted() -> None:
    with pair() as nodes:
        nodes.a.udp.sendto(b"", ("127.0.0.1", nodes.b.port))
        assert nodes.b.counted("in_runt") == 1
        nodes.a.udp.sendto(MARKER, ("127.0.0.1", nodes.b.port))
        assert nodes.b.event(1)[3] == MARKER
