"""The network check: plan, run, report, preferred region."""

from __future__ import annotations

from itertools import count

import pytest

from meshd.base.addr import AddrPort
from meshd.core.netcheck import (
    AddressFound,
    Finished,
    MeasureHttps,
    NetworkCheck,
    RegionAnswered,
    SendStun,
)
from meshd.core.netplan import full_plan, incremental_plan
from meshd.core.netreport import Report, ReportHistory
from meshd.core.relaymap import RelayMap, RelayNode, RelayRegion

ME = AddrPort.parse("203.0.113.5:7000")
T0 = 1000.0


def region(number, nodes=1, **changes):
    servers = tuple(
        RelayNode(name=f"{number}{n}", region=number, host=f"r{number}n{n}.test", ipv4=f"192.0.2.{number}", **changes)
        for n in range(nodes)
    )
    return RelayRegion(number, f"r{number}", f"Region {number}", servers)


def relays(*numbers, **changes):
    return RelayMap({n: region(n, **changes) for n in numbers})


def counting():
    numbers = count(1)
    return lambda size: next(numbers).to_bytes(size, "big")


class Run:
    """Drives a check: ``rtt`` says how quickly a region answers by UDP, ``https`` by TLS; absent never."""

    def __init__(self, check, rtt=None, https=None, seen_as=ME):
        self.check, self.rtt, self.https, self.seen_as = check, rtt or {}, https or {}, seen_as
        self.effects, self.report, self.finished_at = [], None, None
        self.now, self.due = T0, []

    def go(self):
        self.check.start(self.now)
        self._effects()
        while self.report is None:
            deadlines = [entry[0] for entry in self.due]
            if (timer := self.check.next_timer()) is not None:
                deadlines.append(timer)
            self.now = max(self.now, min(deadlines))
            ready = [entry for entry in self.due if entry[0] <= self.now]
            self.due = [entry for entry in self.due if entry[0] > self.now]
            for _, act in ready:
                act()
            self.check.handle_timer(self.now)
            self._effects()
        return self

    def _effects(self):
        for effect in self.check.drain():
            self.effects.append((self.now, effect))
            if isinstance(effect, SendStun):
                self._stun(effect)
            elif isinstance(effect, MeasureHttps):
                latency = self.https.get(effect.region)
                if latency is None:
                    self.due.append((self.now + 1, lambda r=effect.region: self._https(r, None)))
                else:
                    self.due.append((self.now + 3 * latency, lambda r=effect.region, s=latency: self._https(r, s)))
            elif isinstance(effect, Finished):
                self.report, self.finished_at = effect.report, self.now

    def _https(self, number, latency):
        self.check.https_measured(number, latency, self.now)

    def _stun(self, effect):
        self.check.stun_sent(effect.txid, self.now)
        rtt = self.rtt.get((effect.node.region, effect.family), self.rtt.get(effect.node.region))
        if rtt is not None:
            seen = self.seen_as(effect) if callable(self.seen_as) else self.seen_as
            when = self.now + rtt
            self.due.append((when, lambda: self.check.stun_received(effect.txid, seen, self.now)))

    def of(self, kind):
        return [e for _, e in self.effects if isinstance(e, kind)]


def check(relay_map, **changes):
    return NetworkCheck(relay_map, counting(), **({"v4": True, "v6": False} | changes))


def test_full_plan_three_tries_100_ms_apart_over_the_nodes():
    plan = full_plan(relays(1, nodes=2), v4=True, v6=True)
    assert [(s.region, s.family) for s in plan] == [(1, 4), (1, 6)]
    assert [(p.delay_s, p.node.name) for p in plan[0].probes] == [(0.0, "10"), (0.1, "11"), (0.2, "10")]


def test_full_plan_skips_servers_without_stun_and_unused_families():
    assert full_plan(relays(1, stun_port=-1), v4=True, v6=True) == []
    assert [s.family for s in full_plan(relays(1, ipv6="none"), v4=True, v6=True)] == [4]


def test_incremental_plan_three_fastest_regions_home_most_persistent():
    last = Report(region_latency={1: 0.050, 2: 0.020, 3: 0.030, 4: 0.090}, region_v4_latency={2: 0.020})
    plan = incremental_plan(relays(1, 2, 3, 4), last, home=3, v4=True, v6=False)
    assert [(s.region, len(s.probes)) for s in plan] == [(2, 2), (3, 4), (1, 1)]
    assert [p.delay_s for p in plan[0].probes] == pytest.approx([0.0, 0.024])
    assert [p.delay_s for p in plan[1].probes] == pytest.approx([0.0, 0.2, 0.5, 0.75])


@pytest.mark.parametrize("latency", [{1: 0.05, 2: 0.02, 3: 0.03, 4: 0.04}, {2: 0.02, 3: 0.03, 4: 0.04}])
def test_incremental_plan_home_is_asked_even_if_it_was_slow_or_silent_last_time(latency):
    plan = incremental_plan(relays(1, 2, 3, 4, 5), Report(region_latency=latency), home=1, v4=True, v6=True)
    assert [(s.region, len(s.probes)) for s in plan if s.family == 4 and s.region in (1, 2)] == [(2, 2), (1, 4)]
    assert {s.region for s in plan} == {1, 2, 3, 4}
    assert [s.family for s in plan if s.region == 1] == [4, 6]


def test_preferred_stays_through_one_bad_measurement_of_home():
    history, now = ReportHistory(), T0
    everything = {1: 0.02, 2: 0.05, 3: 0.06, 4: 0.07}
    conclude(history, everything)
    assert conclude(history, {**everything, 1: 0.09}, now + 300, frame=now + 290) == 1
    incremental = check(relays(1, 2, 3, 4), full=False, last=history.last, home=1)
    measured = Run(incremental, everything).go().report.region_latency
    assert conclude(history, measured, now + 325, frame=now + 290, full=False) == 1


def test_incremental_plan_third_region_one_family_on_dual_stack():
    last = Report(region_latency={1: 0.01, 2: 0.02, 3: 0.03})
    plan = incremental_plan(relays(1, 2, 3), last, home=1, v4=True, v6=True)
    assert [s.region for s in plan].count(3) == 1


def test_check_single_region_answers_and_ends_quickly():
    run = Run(check(relays(900)), rtt={900: 0.010}).go()
    assert run.report.udp
    assert run.report.ipv4
    assert run.report.global_v4 == ME
    assert run.report.region_latency == {900: pytest.approx(0.010)}
    assert run.of(RegionAnswered) == [RegionAnswered(900)]
    assert run.of(AddressFound) == [AddressFound(ME)]
    assert run.finished_at - T0 < 0.2


def test_check_v6_silence_does_not_hold_up_the_report():
    run = Run(check(relays(900), v6=True), rtt={(900, 4): 0.010}).go()
    assert run.finished_at - T0 < 0.2
    assert not run.report.ipv6
    assert run.report.os_has_ipv6


def test_check_second_address_means_varying_mapping():
    addresses = iter([ME, AddrPort(ME.ip, 7001), ME])
    run = Run(check(relays(1, 2)), rtt={1: 0.01, 2: 0.02}, seen_as=lambda _: next(addresses)).go()
    assert run.report.mapping_varies is True


def test_check_equal_addresses_mean_stable_mapping():
    run = Run(check(relays(1, 2)), rtt={1: 0.01, 2: 0.02}).go()
    assert run.report.mapping_varies is False
    assert run.report.global_v4_counters == {ME: 2}


def test_check_three_regions_are_enough():
    rtt = {1: 0.010, 2: 0.020, 3: 0.150, 4: 2.0}
    run = Run(check(relays(1, 2, 3, 4)), rtt=rtt).go()
    assert run.finished_at - T0 == pytest.approx(0.150 * 3, abs=0.02)
    assert set(run.report.region_latency) == {1, 2, 3}


def test_check_udp_blocked_measures_https_after_500_ms():
    """UDP blocked: the home relay is known as soon as the first one answers over TLS."""
    run = Run(check(relays(1, 2)), https={1: 0.050, 2: 0.020}).go()
    first = next(t for t, e in run.effects if isinstance(e, RegionAnswered))
    assert first - T0 == pytest.approx(0.5 + 0.06)
    assert run.of(RegionAnswered) == [RegionAnswered(2)]
    assert not run.report.udp
    assert run.report.region_latency == {1: 0.050, 2: 0.020}
    assert run.finished_at - T0 == pytest.approx(3.0)


def test_check_udp_that_answers_late_does_not_wait_for_https():
    rtt = {1: 0.70, 2: 0.72, 3: 0.74}
    run = Run(check(relays(1, 2, 3, 4)), rtt=rtt, https=dict.fromkeys((1, 2, 3, 4), 10.0)).go()
    assert len(run.of(MeasureHttps)) == 4
    assert run.finished_at - T0 == pytest.approx(3 * 0.74)


def test_check_probe_due_after_the_udp_phase_is_not_waited_for():
    """While HTTPS is measured the check goes on; a deadline in the past would keep a processor busy."""
    last = Report(region_latency={1: 0.9}, region_v4_latency={1: 0.9})
    machine = check(relays(1), full=False, last=last, home=1)
    machine.start(now := T0)
    while not machine.finished:
        for effect in machine.drain():
            if isinstance(effect, SendStun):
                machine.stun_sent(effect.txid, now)
        due = machine.next_timer()
        assert due > now
        machine.handle_timer(now := due)
    assert now == T0 + 5.0


def test_check_that_stood_still_over_the_udp_phase_sends_no_late_probes():
    machine = check(relays(1))
    machine.start(T0)
    machine.drain()
    machine.handle_timer(T0 + 3.2)
    assert machine.drain() == [MeasureHttps(1)]
    assert machine.next_timer() == T0 + 5.0


def test_check_nothing_answers_ends_within_5_s():
    run = Run(check(relays(1))).go()
    assert run.finished_at - T0 <= 5.0
    assert run.report.region_latency == {}


def test_check_without_relays_ends_at_once():
    run = Run(check(RelayMap())).go()
    assert run.finished_at == T0


def test_check_region_that_must_not_be_measured_is_left_alone():
    shy = RelayRegion(2, "r2", "", region(2).nodes, may_be_home=False)
    both = RelayMap({1: region(1), 2: shy})
    assert {probes.region for probes in full_plan(both, v4=True, v6=True)} == {1}
    run = Run(check(both), {}, {1: 0.03, 2: 0.01}).go()
    assert run.report.region_latency == {1: pytest.approx(0.03)}


def test_check_unsendable_probes_lead_to_https_without_waiting():
    machine = check(relays(1))
    machine.start(T0)
    now, asked = T0, []
    while not asked:
        while effects := machine.drain():
            for effect in effects:
                if isinstance(effect, SendStun):
                    machine.stun_failed(effect.txid, now)
                elif isinstance(effect, MeasureHttps):
                    asked.append((now, effect.region))
        if not asked:
            now = machine.next_timer()
            machine.handle_timer(now)
    assert asked == [(pytest.approx(T0 + 0.2), 1)]
    assert not machine.report.ipv4_can_send
    machine.https_measured(1, 0.03, T0 + 0.7)
    assert [type(e) for e in machine.drain()] == [RegionAnswered, Finished]


def test_check_unknown_transaction_ignored():
    machine = check(relays(1))
    machine.start(T0)
    assert not machine.stun_received(b"?" * 12, ME, T0)


@pytest.mark.parametrize(
    "address", ["[2001:db8::1]:5", "192.0.2.1:0", "224.0.0.1:5", "0.0.0.0:5"], ids=["family", "port", "group", "none"]
)
def test_check_address_that_cannot_be_ours_ignored(address):
    """Peers would be told to send there."""
    machine = check(relays(1))
    machine.start(T0)
    (probe, *_) = machine.drain()
    assert not machine.stun_received(probe.txid, AddrPort.parse(address), T0 + 0.01)
    assert not machine.report.udp
    assert machine.stun_received(probe.txid, ME, T0 + 0.02)


def test_check_after_one_that_nobody_answered_asks_all_by_udp_again():
    """The network was away for a while: how we are seen must not stay unknown until the next full check."""
    run = Run(check(relays(1, 2), full=False, last=Report(udp=False), home=1), {1: 0.02, 2: 0.03}).go()
    assert run.report.udp
    assert run.report.global_v4 == ME
    assert sorted(run.report.region_latency) == [1, 2]


def test_check_incremental_without_udp_measures_few_regions_by_https():
    last = Report(region_latency={n: n / 100 for n in range(1, 9)})
    machine = check(relays(*range(1, 9)), full=False, last=last, home=5)
    run = Run(machine, https={n: 0.01 for n in range(1, 9)}).go()
    assert {e.region for e in run.of(MeasureHttps)} == {5, 1, 2}


def conclude(history, latencies, now=T0, *, relay_map=None, frame=0.0, full=True):
    report = Report(udp=True, region_latency=dict(latencies))
    return history.conclude(
        report, now, started=now - 1, full=full, relays=relay_map or relays(1, 2, 3), home_frame_at=frame
    ).preferred_derp


def test_preferred_first_is_the_fastest():
    assert conclude(ReportHistory(), {1: 0.03, 2: 0.02}) == 2


def test_preferred_keeps_home_within_10_ms():
    history = ReportHistory()
    conclude(history, {1: 0.020})
    assert conclude(history, {1: 0.020, 2: 0.0101}) == 1


def test_preferred_keeps_home_when_best_is_over_two_thirds():
    history = ReportHistory()
    conclude(history, {1: 0.100})
    assert conclude(history, {1: 0.100, 2: 0.070}) == 1
    assert conclude(history, {1: 0.100, 2: 0.060}) == 2


def test_preferred_uses_best_of_five_minutes():
    history = ReportHistory()
    conclude(history, {1: 0.020})
    assert conclude(history, {1: 0.500, 2: 0.030}, T0 + 100) == 1
    assert conclude(history, {1: 0.500, 2: 0.030}, T0 + 600) == 2


def test_preferred_leaves_a_home_that_became_slow():
    history = ReportHistory()
    assert conclude(history, {1: 0.060, 2: 0.070}) == 1
    assert conclude(history, {1: 0.400, 2: 0.055}, T0 + 30, frame=T0 + 29) == 2


def test_preferred_score_scales_what_home_takes_now():
    scored = RelayMap({n: region(n) for n in (1, 2)}, {1: 0.5})
    history = ReportHistory()
    assert conclude(history, {1: 0.100}, relay_map=scored) == 1
    assert conclude(history, {1: 0.100, 2: 0.040}, T0 + 30, relay_map=scored) == 1


def test_history_keeps_the_full_report_until_the_next_one_ends():
    history = ReportHistory()
    conclude(history, {1: 0.020, 9: 0.200})
    conclude(history, {1: 0.030}, T0 + 304, full=False)
    assert history.recent() == {1: 0.020, 9: 0.200}
    conclude(history, {1: 0.030}, T0 + 306, full=False)
    assert history.recent() == {1: 0.030}
    history.forget()
    assert history.recent() == {}


def test_history_of_checks_one_after_the_other_stays_small():
    """A program may ask for thousands of checks within the five minutes that their results are of interest."""
    history = ReportHistory()
    conclude(history, {1: 0.020, 9: 0.200})
    for number in range(1, 3001):
        conclude(history, {1: 0.030, 2: 0.001 * number}, T0 + number / 100, full=False)
    assert history.recent() == {1: 0.020, 2: 0.001, 9: 0.200}
    assert len(history._latencies) <= 16
    conclude(history, {1: 0.030}, T0 + 307, full=False)
    assert history.recent() == {1: 0.030, 2: pytest.approx(0.200)}, "what was found in the first two seconds is old"


def test_preferred_leaves_an_unmeasured_home_unless_it_was_heard():
    silent, heard = ReportHistory(), ReportHistory()
    for history in (silent, heard):
        conclude(history, {1: 0.020})
    assert conclude(silent, {2: 0.050}, T0 + 30) == 2
    assert conclude(heard, {2: 0.050}, T0 + 30, frame=T0 + 25) == 1
    assert conclude(heard, {2: 0.050}, T0 + 600, frame=T0 + 595) == 1, "also when no report knows it any more"


def test_preferred_nothing_measured_keeps_a_home_heard_within_120_s():
    history = ReportHistory()
    conclude(history, {1: 0.020})
    assert conclude(history, {}, T0 + 100, frame=T0 + 1) == 1
    assert conclude(history, {}, T0 + 200, frame=T0 + 1) == 0


def test_preferred_score_scales_latency():
    scored = RelayMap({n: region(n) for n in (1, 2)}, {2: 0.5})
    assert conclude(ReportHistory(), {1: 0.020, 2: 0.030}, relay_map=scored) == 2


def test_preferred_region_not_for_homes_is_never_chosen():
    shy = RelayRegion(2, "r2", "", region(2).nodes, may_be_home=False)
    assert conclude(ReportHistory(), {1: 0.5, 2: 0.001}, relay_map=RelayMap({1: region(1), 2: shy})) == 1


def test_history_wants_full_every_five_minutes():
    history = ReportHistory()
    assert history.want_full(T0)
    conclude(history, {1: 0.01})
    assert not history.want_full(T0 + 300)
    assert history.want_full(T0 + 300.1)


def test_report_latency_is_not_material():
    a, b = Report(udp=True, region_latency={1: 1.0}), Report(udp=True, region_latency={1: 2.0})
    assert a.material() == b.material()
    assert a.material() != Report(udp=False).material()
