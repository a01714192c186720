"""What a network check found, and which relay region follows from it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from meshd.base.addr import AddrPort
from meshd.core.relaymap import RelayMap

FULL_INTERVAL_S = 5 * 60.0
HISTORY_S = FULL_INTERVAL_S + 5.0  # of reports; the last full one stays while the next one runs
SPAN_S = 2.0  # checks in a row, as a program may ask for, are remembered as one
HOME_FRAME_S = 8.0  # a frame this recent proves that the home region is alive
HOME_FRAME_UNMEASURED_S = 120.0  # the same when nothing at all could be measured
HOME_ABSOLUTE_S = 0.010
HOME_RATIO = 2 / 3


class Report(msgspec.Struct):
    """One finished check. Latencies are seconds by region number; None means "not known"."""

    udp: bool = False
    ipv4: bool = False
    ipv6: bool = False
    ipv4_can_send: bool = False
    ipv6_can_send: bool = False
    os_has_ipv6: bool = False
    icmpv4: bool = False
    mapping_varies: bool | None = None
    upnp: bool | None = None
    pmp: bool | None = None
    pcp: bool | None = None
    captive_portal: bool | None = None
    preferred_derp: int = 0
    region_latency: dict[int, float] = msgspec.field(default_factory=dict)
    region_v4_latency: dict[int, float] = msgspec.field(default_factory=dict)
    region_v6_latency: dict[int, float] = msgspec.field(default_factory=dict)
    global_v4: AddrPort | None = None
    global_v6: AddrPort | None = None
    global_v4_counters: dict[AddrPort, int] = msgspec.field(default_factory=dict)
    global_v6_counters: dict[AddrPort, int] = msgspec.field(default_factory=dict)

    def add_latency(self, region: int, seconds: float) -> None:
        """Keep the lowest round trip of a region."""
        if seconds < self.region_latency.get(region, seconds + 1):
            self.region_latency[region] = seconds

    def material(self) -> tuple[object, ...]:
        """What control must hear about when it changes; latencies alone are not worth a message."""
        return (
            self.mapping_varies, self.udp, self.ipv6, self.os_has_ipv6, self.icmpv4,
            self.upnp, self.pmp, self.pcp, self.preferred_derp,
        )  # fmt: skip


class ReportHistory:
    """Recent reports and the home region they lead to."""

    def __init__(self) -> None:
        self._latencies: list[tuple[float, dict[int, float]]] = []  # from when on, and the lowest of each region
        self.last: Report | None = None
        self.last_full: float | None = None
        self.home = 0

    def recent(self) -> dict[int, float]:
        """The lowest latency of every region in the reports of the last minutes, of which most measure few regions."""
        best: dict[int, float] = {}
        for _, latencies in self._latencies:
            _keep_lowest(best, latencies)
        return best

    def want_full(self, now: float) -> bool:
        """Whether the next check must try every region."""
        last = self.last
        if last is None or self.last_full is None or now - self.last_full > FULL_INTERVAL_S:
            return True
        return not last.udp and last.captive_portal is True

    def forget(self) -> None:
        """After a change of network or relays: measure everything again."""
        self._latencies.clear()
        self.last = self.last_full = None

    def conclude(
        self, report: Report, now: float, *, started: float, full: bool, relays: RelayMap, home_frame_at: float
    ) -> Report:
        """Set ``report.preferred_derp`` and remember the report. ``home_frame_at`` is when the last frame
        came from the home relay (monotonic, 0 = never)."""
        self._latencies = [(since, best) for since, best in self._latencies if now - since <= HISTORY_S]
        if not self._latencies or now - self._latencies[-1][0] >= SPAN_S:
            self._latencies.append((now, {}))
        _keep_lowest(self._latencies[-1][1], report.region_latency)
        self.last = report
        if full:
            self.last_full = now
        allowed = set(relays.home_candidates())
        report.preferred_derp = self._choose(report, now, started, allowed, relays.home_score, home_frame_at)
        if report.preferred_derp:
            self.home = report.preferred_derp
        return report

    def _choose(
        self,
        report: Report,
        now: float,
        started: float,
        allowed: set[int],
        score: Mapping[int, float],
        home_frame_at: float,
    ) -> int:
        recent = self.recent()
        factor = {region: score[region] if score.get(region, 0) > 0 else 1.0 for region in report.region_latency}
        measured = {region: recent[region] * factor[region] for region in report.region_latency if region in allowed}
        home = self.home if self.home in allowed else 0
        heard = home_frame_at > 0 and (home_frame_at >= started or now - home_frame_at <= HOME_FRAME_S)
        if not measured:
            recently = home_frame_at > 0 and now - home_frame_at <= HOME_FRAME_UNMEASURED_S
            return home if home and recently else 0
        best = min(measured, key=lambda region: (measured[region], region))
        if not home or best == home:
            return best
        if home not in measured:
            return home if heard else best
        old = report.region_latency[home] * factor[home]  # as it is now: a region that became slow is left
        if old - measured[best] < HOME_ABSOLUTE_S or measured[best] > HOME_RATIO * old:
            return home
        return best


def _keep_lowest(best: dict[int, float], found: Mapping[int, float]) -> None:
    for region, latency in found.items():
        best[region] = min(latency, best.get(region, latency))
