"""The search for the highest rate, against links of known capacity; how iperf3 is read; what a run needs."""

from __future__ import annotations

import argparse
import os
import shutil
from types import SimpleNamespace

import pytest

from perf.path import measure
from perf.path.hosts import only_run
from perf.path.peers import available, chosen

PAIR = SimpleNamespace(name="simulated")


class Link:
    """Carries ``capacity`` thousand packets a second from a sender that reaches ``sender``."""

    def __init__(self, capacity, sender=200.0, hiccups=()):
        self.capacity, self.sender, self.hiccups = capacity, sender, set(hiccups)
        self.runs = 0

    def iperf(self, pair, seconds, *options):
        self.runs += 1
        size, rate = int(options[options.index("-l") + 1]), float(options[options.index("-b") + 1])
        sent = min(self.sender, rate / size / 8e3) if rate else self.sender
        carried = min(sent, self.capacity)
        lost = 100 * (1 - carried / sent)
        if self.runs in self.hiccups:
            lost = 30.0
        return {"sent_kpps": sent, "kpps": carried, "lost_percent": lost, "gbit_s": 0.0}


def search(monkeypatch, link):
    monkeypatch.setattr(measure, "iperf", link.iperf)
    return measure.udp_capacity(PAIR, 64)["kpps"]


@pytest.mark.parametrize("capacity", [150.0, 80.0, 55.5, 12.0])
def test_udp_capacity_finds_the_limit_within_the_step(monkeypatch, capacity):
    link = Link(capacity)
    assert capacity / measure.STEP**2 <= search(monkeypatch, link) <= capacity * 1.011
    assert link.runs < 20


def test_udp_capacity_sender_is_the_limit_needs_one_run(monkeypatch):
    link = Link(500.0)
    assert search(monkeypatch, link) == 200.0
    assert link.runs == 1


def test_udp_capacity_one_hiccup_does_not_lower_the_result(monkeypatch):
    assert search(monkeypatch, Link(100.0, hiccups={2})) == search(monkeypatch, Link(100.0))


def test_udp_capacity_flood_that_starves_everything_lowers_the_floor(monkeypatch):
    link = Link(10.0)

    def starving(pair, seconds, *options):
        found = link.iperf(pair, seconds, *options)
        if found["sent_kpps"] == link.sender:
            found["kpps"] = 100.0  # what came through at first says nothing about what can be kept up
        return found

    monkeypatch.setattr(measure, "iperf", starving)
    assert 8.0 < measure.udp_capacity(PAIR, 64)["kpps"] < 10.2


def test_udp_capacity_dead_link_ends_with_zero(monkeypatch):
    assert search(monkeypatch, Link(0.0)) == 0.0


def test_figures_of_datagrams_count_only_what_arrived():
    total = {"bytes": 1_000_000, "bits_per_second": 8e6, "packets": 1000, "lost_packets": 500, "lost_percent": 50.0}
    found = measure._figures({"end": {"sum": total}}, [0.5, 1.0], 1, True)
    assert found["kpps"] == 0.5
    assert found["sent_kpps"] == 1.0
    assert found["cpu_s_per_million"] == [1000.0, 2000.0]
    assert found["cpu_s_per_gb"] == [1000.0, 2000.0]


def test_figures_of_a_flow_are_per_gigabyte_received():
    end = {"sum_received": {"bytes": 2e9, "bits_per_second": 4e9}, "sum_sent": {"retransmits": 3}}
    found = measure._figures({"end": end}, [1.0, 3.0, 5.0], 4, False)
    assert found == {"gbit_s": 4.0, "retransmits": 3, "cpu_s_per_gb": [0.5, 1.5, 2.5]}


def test_figures_of_datagrams_do_not_count_loss_twice():
    """iperf3 tells the bytes that arrived itself, if it is not an old one."""
    total = {"bytes": 1_000_000, "bits_per_second": 8e6, "packets": 1000, "lost_packets": 500, "lost_percent": 50.0}
    end = {"sum": total, "sum_received": {**total, "bytes": 500_000, "bits_per_second": 4e6}}
    found = measure._figures({"end": end}, [0.5, 1.0], 1, True)
    assert found["gbit_s"] == 0.004
    assert found["cpu_s_per_gb"] == [1000.0, 2000.0]


@pytest.mark.parametrize("lacking", ["ip", "iperf3"])
def test_run_without_a_program_it_needs_says_which(monkeypatch, lacking):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: None if name == lacking else f"/usr/bin/{name}")
    with pytest.raises(SystemExit, match=rf"^perf.x: not on PATH: {lacking} \("), only_run("perf.x", "iperf3"):
        raise AssertionError("it began")


def test_pairs_that_cannot_be_made_are_not_offered(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None if name in ("cc", "wg") else f"/usr/bin/{name}")
    assert list(available("mesh-coord", relayed=False)) == ["meshd", "tailscaled"]


def test_names_that_are_not_there_end_the_run(capsys):
    parser = argparse.ArgumentParser()
    assert chosen(parser, "", ["meshd", "other"]) == ["meshd", "other"]
    assert chosen(parser, "other", ["meshd", "other"]) == ["other"]
    with pytest.raises(SystemExit):
        chosen(parser, "meshd,mehsd", ["meshd", "other"])
    assert "not here: mehsd; there are meshd, other" in capsys.readouterr().err
