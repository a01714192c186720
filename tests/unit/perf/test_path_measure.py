"""The search for the highest rate, against links whose capacity is known, and the reading of iperf3's answer."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from perf.path import measure

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
