"""Our engine and data plane against Debian's wireguard-go, each in a network namespace with a real TUN device."""

from __future__ import annotations

import subprocess
import time

import pytest

from tests.interop.wireguardlab import NEEDED, WireGuardLab, assert_counters_agree

pytestmark = NEEDED


@pytest.fixture
def lab(tmp_path):
    lab = WireGuardLab(tmp_path)
    try:
        lab.start_wireguard()
        lab.start_node()
        yield lab
    finally:
        lab.close()


@pytest.mark.parametrize("initiator", ["us", "wireguard-go"])
def test_wireguard_go_pings_both_ways_whoever_starts(lab, initiator):
    sides = [(lab.us, "100.64.0.2"), (lab.go, "100.64.0.1")]
    for side, target in sides if initiator == "us" else reversed(sides):
        assert lab.ping(side, target, "-c", "10", "-i", "0.02", "-s", "1200") == 0
        assert lab.ping(side, target, "-c", "5", "-i", "0.02", "-s", "5000") == 0
    assert lab.ask("status")["sessions"] == 1
    assert_counters_agree(lab)


def test_wireguard_go_answers_our_own_ping_without_the_host_seeing_it(lab):
    assert lab.ask("ping") < 1.0
    assert lab.ask("ping") < 0.2


def test_wireguard_go_rekeys_under_traffic_without_loss(lab):
    assert lab.ping(lab.us, "100.64.0.2", "-c", "1") == 0
    first = lab.ask("status")["sessions"]
    pings = subprocess.Popen(
        ["ip", "netns", "exec", lab.go, "ping", "-n", "-q", "-i", "0.01", "-c", "700", "100.64.0.1"],
        stdout=subprocess.PIPE,
        text=True,
    )
    time.sleep(5.1)
    lab.ask("rekey")
    output = pings.communicate(timeout=30)[0]
    assert " 0% packet loss" in output
    assert lab.ask("status")["sessions"] == first + 1
    assert_counters_agree(lab)


def test_wireguard_go_that_restarts_is_believed_at_once(lab):
    assert lab.ping(lab.us, "100.64.0.2", "-c", "1") == 0
    lab.stop_wireguard()
    lab.start_wireguard()
    assert lab.ping(lab.go, "100.64.0.1", "-c", "3", "-i", "0.2") == 0
    assert lab.ping(lab.us, "100.64.0.2", "-c", "3", "-i", "0.2") == 0


def test_wireguard_go_many_odd_sized_packets_arrive(lab):
    """Padding that is cut off again, batches, and the replay window."""
    assert lab.ping(lab.go, "100.64.0.1", "-c", "2000", "-i", "0.001", "-s", "41") <= 0.5
