"""Lock-free readers beside a writer: every answer is right at every moment."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from meshd._fast.flow import FlowTable
from meshd._fast.lpm import PrefixMap
from meshd._fast.viaflow import ViaFlows
from perf.micro.native import load

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def race() -> Any:
    return load(Path("tests/native/race.pyx"))


def test_lpm_readers_beside_a_writer_see_stable_prefixes(race: Any) -> None:
    """Growth, rebuilds, splits and pruning never hide or change a prefix that stays."""
    table, gate, count = PrefixMap(), race.Race(), 500
    race.lpm_fill(table, count)
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            gate.reset()
            readers = [pool.submit(race.lpm_read, gate, table, count, seed) for seed in range(3)]
            pool.submit(race.lpm_write, gate, table, count, 150_000, 3).result(60)
            results = [reader.result(60) for reader in readers]
            assert [wrong for _, wrong in results] == [0, 0, 0]
            assert sum(looked for looked, _ in results) > 1000
            assert race.lpm_reclaim(table) > 0


def test_flow_table_readers_beside_writers_see_no_mixture(race: Any) -> None:
    """No flow is ever made of two others, and one in constant use is never evicted."""
    flows, gate = FlowTable(seed=5), race.Race()
    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(race.flow_read, gate, flows, 2) for _ in range(2)]
        writers = [pool.submit(race.flow_write, gate, flows, 100_000, 2, kind) for kind in (10, 20)]
        for writer in writers:
            writer.result(60)
        for reader in readers:
            looked, invented, gone = reader.result(60)
            assert looked > 1000
            assert (invented, gone) == (0, 0)


def test_via_flows_readers_beside_writers_see_no_mixture(race: Any) -> None:
    """RT-08: an answer goes to whoever began the flow, while the table overflows."""
    flows, gate = ViaFlows(seed=5), race.Race()
    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(race.via_read, gate, flows, 2, seed) for seed in (1, 500_000)]
        writers = [pool.submit(race.via_write, gate, flows, 1_000_000, 2, seed) for seed in (1, 500_000)]
        for writer in writers:
            writer.result(60)
        for reader in readers:
            found, invented = reader.result(60)
            assert found > 1000
            assert invented == 0
