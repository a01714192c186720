"""One network check as a machine: STUN to relays, HTTPS where UDP is silent, then a report.

Drive it like every machine: ``start``, inputs, ``drain()``, ``next_timer()``, ``handle_timer(now)``. The
last effect is ``Finished``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from meshd.base.addr import AddrPort
from meshd.core.netplan import Probe, ProbeSet, full_plan, incremental_plan
from meshd.core.netreport import Report
from meshd.core.relaymap import RelayMap, RelayNode

OVERALL_S = 5.0
STUN_PHASE_S = 3.0
HTTPS_AFTER_S = 0.5  # how long UDP may stay silent before HTTPS is measured beside it
ENOUGH_REGIONS = 3
SETTLE_S = 0.100  # after enough answers, at least this long for the other family and the second server
UNUSED_HTTPS_REGIONS = 3  # HTTPS measurements of a check that follows one without UDP


class SendStun(NamedTuple):
    """Send a request to a server; report back with ``stun_sent`` or ``stun_failed``."""

    txid: bytes
    node: RelayNode
    family: int


class MeasureHttps(NamedTuple):
    """Measure a region over TLS; report back with ``https_measured``."""

    region: int


class RegionAnswered(NamedTuple):
    """The first answer of the check came from this region: good enough to connect to at once."""

    region: int


class AddressFound(NamedTuple):
    """A STUN server saw us at an address not seen before in this check."""

    address: AddrPort


class Finished(NamedTuple):
    """The report, without a preferred region yet."""

    report: Report


Effect = SendStun | MeasureHttps | RegionAnswered | AddressFound | Finished


class _Set:
    __slots__ = ("done", "next", "plan")

    def __init__(self, plan: ProbeSet) -> None:
        self.plan = plan
        self.next = 0
        self.done = False


class _Sent(NamedTuple):
    set: _Set
    node: RelayNode
    at: float


class NetworkCheck:
    """A single run. ``v4`` and ``v6`` say which sockets exist; ``last`` is the previous report."""

    def __init__(
        self,
        relays: RelayMap,
        random: Callable[[int], bytes],
        *,
        v4: bool,
        v6: bool,
        full: bool = True,
        last: Report | None = None,
        home: int = 0,
    ) -> None:
        self.report = Report(os_has_ipv6=v6)
        self.full = full or last is None
        self.started = 0.0
        self._relays = relays
        self._random = random
        self._last = last
        self._home = home
        if self.full or last is None or not last.region_latency:  # after a check that no relay answered, too
            plan = full_plan(relays, v4=v4, v6=v6)
        else:
            plan = incremental_plan(relays, last, home, v4=v4, v6=v6)
        self._sets = [_Set(entry) for entry in plan]
        self._sent: dict[bytes, _Sent] = {}
        self._https: set[int] | None = None
        self._stop_at = 0.0
        self._answered = False
        self._finished = False
        self._outbox: list[Effect] = []

    @property
    def finished(self) -> bool:
        return self._finished

    def drain(self) -> list[Effect]:
        """The effects since the last call, in order."""
        effects, self._outbox = self._outbox, []
        return effects

    def start(self, now: float) -> None:
        """Send the first probes."""
        self.started = now
        self._stop_at = now + STUN_PHASE_S
        self.handle_timer(now)

    def next_timer(self) -> float | None:
        """When ``handle_timer`` wants to be called, None when finished."""
        if self._finished:
            return None
        waits_for_https = bool(self._https) and not self.report.udp
        deadlines = [self.started + OVERALL_S if waits_for_https else self._stop_at]
        probes = [self.started + s.plan.probes[s.next].delay_s for s in self._open_sets()]
        deadlines += [due for due in probes if due < self._stop_at]
        if self._https is None and not self.report.udp:
            deadlines.append(self.started + HTTPS_AFTER_S)
        return min(deadlines)

    def handle_timer(self, now: float) -> None:
        """Send the probes that are due, begin HTTPS, finish."""
        if self._finished:
            return
        for probe_set in self._open_sets():
            if now < self._stop_at:
                self._send_due(probe_set, now)
            else:
                probe_set.next = len(probe_set.plan.probes)  # too late, and never due again
        silent = self._https is None and not self.report.udp
        if silent and (now >= self.started + HTTPS_AFTER_S or not self._sets):
            self._begin_https()
        self._maybe_finish(now)

    def stun_sent(self, txid: bytes, now: float) -> None:
        """The request left; its round trip counts from now."""
        sent = self._sent.get(txid)
        if sent is None:
            return
        self._sent[txid] = sent._replace(at=now)
        if sent.set.plan.family == 4:
            self.report.ipv4_can_send = True
        else:
            self.report.ipv6_can_send = True

    def stun_failed(self, txid: bytes, now: float) -> None:
        """It could not be sent: no route, no address, forbidden."""
        sent = self._sent.pop(txid, None)
        if sent is None:
            return
        waiting = any(other.set is sent.set for other in self._sent.values())
        if sent.set.next >= len(sent.set.plan.probes) and not waiting:
            sent.set.done = True
        if self._https is None and not self.report.udp and all(s.done for s in self._sets):
            self._begin_https()
        self._maybe_finish(now)

    def stun_received(self, txid: bytes, seen_as: AddrPort, now: float) -> bool:
        """A response; False when the transaction is not ours, or the address cannot be."""
        sent = self._sent.get(txid)
        if sent is None or self._finished or not _believable(seen_as, sent.set.plan.family):
            return False
        del self._sent[txid]
        report, region = self.report, sent.set.plan.region
        latency = now - sent.at
        sent.set.done = True
        report.udp = True
        report.add_latency(region, latency)
        if sent.set.plan.family == 4:
            self._seen_v4(seen_as)
            report.ipv4 = True
            report.region_v4_latency[region] = min(latency, report.region_v4_latency.get(region, latency))
        else:
            self._seen_v6(seen_as)
            report.ipv6 = True
            report.region_v6_latency[region] = min(latency, report.region_v6_latency.get(region, latency))
        self._answer_from(region)
        if len(report.region_latency) >= min(ENOUGH_REGIONS, self._region_count()):
            slowest = max(report.region_latency.values())
            settle = max(slowest * (2 if self.full else 1), SETTLE_S)
            self._stop_at = min(self._stop_at, now + settle)
        self._maybe_finish(now)
        return True

    def https_measured(self, region: int, latency_s: float | None, now: float) -> None:
        """The result of ``MeasureHttps``: seconds, or None when the relay was not reached."""
        if self._finished or self._https is None or region not in self._https:
            return
        self._https.discard(region)
        if latency_s is not None:
            self.report.add_latency(region, latency_s)
            self._answer_from(region)
        self._maybe_finish(now)

    def _seen_v4(self, address: AddrPort) -> None:
        report = self.report
        count = report.global_v4_counters.get(address, 0)
        report.global_v4_counters[address] = count + 1
        if report.global_v4 is None:
            report.global_v4 = address
        elif address != report.global_v4:
            report.mapping_varies = True
        elif report.mapping_varies is None:
            report.mapping_varies = False
        if not count:
            self._outbox.append(AddressFound(address))

    def _seen_v6(self, address: AddrPort) -> None:
        report = self.report
        count = report.global_v6_counters.get(address, 0)
        report.global_v6_counters[address] = count + 1
        if report.global_v6 is None:
            report.global_v6 = address
        if not count:
            self._outbox.append(AddressFound(address))

    def _answer_from(self, region: int) -> None:
        found = self._relays.regions.get(region)
        if not self._answered and found is not None and found.may_be_home and found.derp_nodes:
            self._answered = True
            self._outbox.append(RegionAnswered(region))

    def _useful(self, probe: Probe) -> bool:
        """A known region is asked again only for a missing IPv6 answer or a second IPv4 one."""
        if probe.node.region not in self.report.region_latency:
            return True
        if probe.family == 6:
            return not self.report.ipv6
        return sum(self.report.global_v4_counters.values()) < 2

    def _send_due(self, probe_set: _Set, now: float) -> None:
        probes = probe_set.plan.probes
        while probe_set.next < len(probes) and now >= self.started + probes[probe_set.next].delay_s:
            probe = probes[probe_set.next]
            probe_set.next += 1
            if self._useful(probe):
                self._send(probe_set, probe)

    def _send(self, probe_set: _Set, probe: Probe) -> None:
        txid = self._random(12)
        self._sent[txid] = _Sent(probe_set, probe.node, self.started + probe.delay_s)
        self._outbox.append(SendStun(txid, probe.node, probe.family))

    def _begin_https(self) -> None:
        regions = [r.id for r in self._relays.regions.values() if r.may_be_home and r.derp_nodes]
        if not self.full and self._last is not None:
            known = self._last.region_latency
            regions.sort(key=lambda r: (r != self._home, known.get(r, OVERALL_S), r))
            regions = regions[:UNUSED_HTTPS_REGIONS]
        self._https = set(regions)
        self._outbox.extend(MeasureHttps(region) for region in regions)

    def _open_sets(self) -> list[_Set]:
        return [s for s in self._sets if not s.done and s.next < len(s.plan.probes)]

    def _region_count(self) -> int:
        return len({s.plan.region for s in self._sets}) or 1

    def _maybe_finish(self, now: float) -> None:
        if self._finished:
            return
        stun_over = now >= self._stop_at or all(s.done for s in self._sets)
        https_over = self.report.udp or (self._https is not None and not self._https)
        if (stun_over and https_over) or now >= self.started + OVERALL_S:
            self._finished = True
            self._outbox.append(Finished(self.report))


def _believable(address: AddrPort, family: int) -> bool:
    """Whether a server can have seen us there: of the family it was asked over, and fit to be sent to."""
    ip = address.ip
    return bool(address.port) and ip.version == family and not ip.is_multicast and not ip.is_unspecified
