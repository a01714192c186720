"""Runs network checks: one at a time, over the node's own UDP sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Protocol

from meshd.base.addr import AddrPort, IPAddress
from meshd.base.clock import Clock
from meshd.base.errors import MeshdError, WireError
from meshd.base.log import get_logger, kv
from meshd.core.netcheck import (
    OVERALL_S,
    AddressFound,
    Effect,
    Finished,
    MeasureHttps,
    NetworkCheck,
    RegionAnswered,
    SendStun,
)
from meshd.core.netreport import Report, ReportHistory
from meshd.core.relaymap import RelayMap, RelayNode, RelayRegion
from meshd.io.driver import Driver
from meshd.io.relaydial import resolve
from meshd.wire import stun

DNS_MEMORY_S = 300.0
HTTPS_AT_ONCE = 8

_log = get_logger(__name__)


class Underlay(Protocol):
    """The UDP sockets."""

    @property
    def port_v4(self) -> int: ...

    @property
    def port_v6(self) -> int: ...

    def send(self, data: bytes, to: AddrPort) -> int: ...


class ProbeEvents(Protocol):
    """What a check tells while it runs. ``home`` and ``home_frame_at`` describe the relay in use."""

    def region_answered(self, region: int) -> None: ...

    def address_found(self, address: AddrPort) -> None: ...

    def check_finished(self, report: Report, started: float) -> None: ...

    def home_frame_at(self) -> float: ...


class NetProber:
    """Starts checks and feeds them.

    ``measure`` takes the latency of a region over HTTPS. ``history`` holds the reports and the preferred region.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        underlay: Callable[[], Underlay],
        events: ProbeEvents,
        *,
        random: Callable[[int], bytes],
        measure: Callable[[RelayRegion], Awaitable[float]],
    ) -> None:
        self.history = ReportHistory()
        self.started_at = 0.0
        """When the last check began (monotonic), 0 for never."""
        self._loop = loop
        self._clock = clock
        self._underlay = underlay
        self._events = events
        self._random = random
        self._measure_https = measure
        self._relays = RelayMap()
        self._check: NetworkCheck | None = None
        self._driver: Driver[Effect] | None = None
        self._again: bool | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._https_slots = asyncio.Semaphore(HTTPS_AT_ONCE)
        self._dns: dict[tuple[str, int], tuple[IPAddress, float]] = {}
        self._waiters: list[asyncio.Future[Report]] = []
        self._closed = False
        self._silent = False

    @property
    def running(self) -> bool:
        return self._check is not None

    def set_map(self, relays: RelayMap) -> None:
        """Check these relays from now on; a running check of the old ones is dropped."""
        self._relays = relays
        hosts = {node.host for region in relays.regions.values() for node in region.nodes}
        self._dns = {place: found for place, found in self._dns.items() if place[0] in hosts}
        self.history.forget()
        self.abort()

    def set_silent(self, silent: bool) -> None:
        """Whether checks do without UDP; the running one is dropped."""
        self._silent = silent
        self.abort()

    def abort(self) -> None:
        """Drop the running check without a report (new relays, new sockets)."""
        if self._driver is not None:
            self._driver.close()
        for task in self._tasks:
            task.cancel()
        self._check = self._driver = self._again = None

    def start(self, *, full: bool = False) -> None:
        """Begin a check, or another one as soon as the running one ends."""
        if self._closed:
            return
        if self._check is not None:
            self._again = full or bool(self._again)
            return
        now = self.started_at = self._clock.monotonic()
        underlay = self._underlay()
        self._check = NetworkCheck(
            self._relays,
            self._random,
            v4=bool(underlay.port_v4) and not self._silent,
            v6=bool(underlay.port_v6) and not self._silent,
            full=full or self.history.want_full(now),
            last=self.history.last,
            home=self.history.home,
        )
        self._driver = Driver(self._loop, self._clock, self._check, self._execute)
        self._check.start(now)
        self._driver.turn()

    async def report(self) -> Report:
        """A full check for a user; MeshdError when it does not end (it always does within 5 s)."""
        waiter: asyncio.Future[Report] = self._loop.create_future()
        self._waiters.append(waiter)
        self.start(full=True)
        try:
            async with asyncio.timeout(2 * OVERALL_S + 1):
                return await waiter
        except TimeoutError:
            raise MeshdError("the network check did not finish", code="timeout") from None
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def receive(self, datagram: bytes) -> bool:
        """A STUN datagram; False when it answers nothing of ours."""
        if self._check is None or self._driver is None:
            return False
        try:
            txid, address = stun.decode_response(datagram)
        except WireError:
            return False
        known = self._check.stun_received(txid, address, self._clock.monotonic())
        self._driver.turn()
        return known

    def close(self) -> None:
        """Drop everything; no check starts again."""
        self._closed = True
        self.abort()
        for waiter in self._waiters:
            waiter.cancel()

    # -- effects -------------------------------------------------------------------------------------

    def _execute(self, effect: Effect) -> None:
        match effect:
            case SendStun():
                self._send_stun(effect)
            case MeasureHttps(region=number):
                region = self._relays.regions.get(number)
                if region is not None and self._check is not None:
                    self._spawn(self._measure(self._check, region))
            case RegionAnswered(region=number):
                self._events.region_answered(number)
            case AddressFound(address=address):
                self._events.address_found(address)
            case Finished(report=report):
                self._finished(report)

    def _finished(self, report: Report) -> None:
        check, again = self._check, self._again
        assert check is not None
        if self._driver is not None:
            self._driver.close()
        self._check = self._driver = self._again = None
        now = self._clock.monotonic()
        self.history.conclude(
            report,
            now,
            started=check.started,
            full=check.full,
            relays=self._relays,
            home_frame_at=self._events.home_frame_at(),
        )
        _log.debug(
            "netcheck_finished",
            extra=kv(udp=report.udp, derp=report.preferred_derp, took_ms=round((now - check.started) * 1000)),
        )
        if again is None or check.full:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(report)
        self._events.check_finished(report, check.started)
        if again is not None:
            self.start(full=again)

    def _send_stun(self, effect: SendStun) -> None:
        address = effect.node.stun_address(effect.family) or self._remembered(effect.node, effect.family)
        if address is not None:
            self._transmit(effect, address)
        elif self._check is not None:
            self._spawn(self._resolve_and_send(self._check, effect))

    def _transmit(self, effect: SendStun, address: IPAddress) -> None:
        check = self._check
        if check is None:
            return
        port = effect.node.stun_port
        error = self._underlay().send(stun.encode_request(effect.txid), AddrPort(address, port))
        now = self._clock.monotonic()
        if error:
            check.stun_failed(effect.txid, now)
        else:
            check.stun_sent(effect.txid, now)

    async def _resolve_and_send(self, check: NetworkCheck, effect: SendStun) -> None:
        address = None if effect.node.stun_test_ip else await resolve(effect.node, effect.family)
        if check is not self._check or self._driver is None:
            return
        now = self._clock.monotonic()
        if address is None:
            check.stun_failed(effect.txid, now)
        else:
            self._dns[(effect.node.host, effect.family)] = (address, now)
            self._transmit(effect, address)
        self._driver.turn()

    def _remembered(self, node: RelayNode, family: int) -> IPAddress | None:
        known = self._dns.get((node.host, family))
        if known is None or self._clock.monotonic() - known[1] > DNS_MEMORY_S:
            return None
        return known[0]

    async def _measure(self, check: NetworkCheck, region: RelayRegion) -> None:
        latency: float | None = None
        async with self._https_slots:
            try:
                async with asyncio.timeout(OVERALL_S):
                    latency = await self._measure_https(region)
            except (OSError, MeshdError) as error:
                _log.debug("relay_not_measured", extra=kv(derp=region.id, reason=error))
        if check is self._check and self._driver is not None:
            check.https_measured(region.id, latency, self._clock.monotonic())
            self._driver.turn()

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
