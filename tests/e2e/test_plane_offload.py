"""The kernels on both ends leave segmentation and merging to the data plane."""

from __future__ import annotations

import json
import shutil

import pytest

from perf.path.plane_pair import ends, iperf, network

pytestmark = pytest.mark.netns


@pytest.mark.skipif(shutil.which("iperf3") is None, reason="iperf3 is not on PATH")
def test_super_packets_cross_in_few_system_calls() -> None:
    """Segmentation and merging are left to us by both kernels, and to the kernels by us."""
    with network(), ends(None) as programs:
        result = iperf(programs, 1)
        programs[0].terminate()
        counts = json.loads(programs[0].communicate(timeout=10)[0])
    packets = result["gbit_s"] * 1e9 / 8 / 1280
    assert counts["tun_reads"] < packets / 5
    assert counts["udp_writes"] < packets / 5
