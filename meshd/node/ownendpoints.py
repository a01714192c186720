"""Our endpoints as told to control: collected from STUN and interfaces, published when they change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from meshd.base.addr import AddrPort, IPAddress
from meshd.base.clock import Clock
from meshd.base.log import get_logger, kv
from meshd.core.endpoints import FRESH_ENOUGH_S, Endpoint, EndpointList, StunFindings
from meshd.core.netreport import Report
from meshd.node.netprobe import Underlay

FIRST_WAIT_S = 0.100  # how long the first list waits for a STUN answer
SETTLE_S = 0.020  # several STUN answers make one update

_log = get_logger(__name__)


class OwnEndpoints:
    """``publish`` is called with the whole list whenever its set changed."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        underlay: Callable[[], Underlay],
        local_addresses: Callable[[], Iterable[IPAddress]],
        publish: Callable[[list[Endpoint]], None],
        *,
        fixed_port: int,
    ) -> None:
        self.current: list[Endpoint] = []
        self.checked_at = 0.0
        """When a check last told the truth about our addresses (monotonic)."""
        self._loop = loop
        self._clock = clock
        self._underlay = underlay
        self._local_addresses = local_addresses
        self._publish = publish
        self.fixed_port = fixed_port
        """The port that the user chose and we have; 0 when it is any."""
        self._configured: tuple[AddrPort, ...] = ()
        self._list = EndpointList()
        self._local: list[IPAddress] = []
        self._stun = StunFindings()
        self._published: frozenset[Endpoint] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def fresh(self) -> bool:
        """Whether the list may go into a CallMeMaybe without asking STUN again."""
        return bool(self.checked_at) and self._clock.monotonic() - self.checked_at <= FRESH_ENOUGH_S

    @property
    def addresses(self) -> tuple[AddrPort, ...]:
        return tuple(endpoint.addr for endpoint in self.current)

    def schedule(self, delay_s: float = FIRST_WAIT_S) -> None:
        """Publish after a moment, or with the next STUN answer."""
        if self._timer is None:
            self._timer = self._loop.call_later(delay_s, self.refresh)

    def set_configured(self, addresses: tuple[AddrPort, ...]) -> None:
        """Addresses that the configuration file names, besides those that are found."""
        if addresses != self._configured:
            self._configured = addresses
            self._list.forget()
            self.schedule(SETTLE_S)

    def found(self, address: AddrPort) -> None:
        """A STUN server sees us at ``address``."""
        self.checked_at = self._clock.monotonic()
        known = self._stun.v4 if address.ip.version == 4 else self._stun.v6
        if address in known:
            return
        if address.ip.version == 4:
            self._stun = self._stun._replace(v4=(address, *known[:1]))
        else:
            self._stun = self._stun._replace(v6=(address, *known[:1]))
        self._cancel()
        self.schedule(SETTLE_S)

    def checked(self, report: Report) -> None:
        """A check ended: its findings replace the earlier ones."""
        self.checked_at = self._clock.monotonic()
        self._stun = StunFindings(
            v4=_seen(report.global_v4, report.global_v4_counters),
            v6=_seen(report.global_v6, report.global_v6_counters),
            mapping_varies=report.mapping_varies is True,
        )
        self.refresh()

    def network_changed(self) -> None:
        """Nothing found so far is true any more."""
        self._list.forget()
        self._stun = StunFindings()
        self.checked_at = 0.0

    def refresh(self) -> None:
        """Build the list and publish it when it differs from the last one."""
        self._cancel()
        underlay = self._underlay()
        try:
            self._local = list(self._local_addresses())
        except OSError as error:  # no descriptor left, for one: what was true a moment ago has to do
            _log.warning("local_addresses_unknown", extra=kv(reason=error))
        self.current = self._list.build(
            self._clock.monotonic(),
            stun=self._stun,
            local=self._local,
            port_v4=underlay.port_v4,
            port_v6=underlay.port_v6,
            fixed_port=self.fixed_port,
            configured=self._configured,
        )
        if frozenset(self.current) != self._published:
            self._published = frozenset(self.current)
            self._publish(list(self.current))

    def untold(self) -> None:
        """Whoever is told next knows nothing yet."""
        self._cancel()
        self._published = None

    def close(self) -> None:
        self._cancel()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _seen(best: AddrPort | None, counters: dict[AddrPort, int]) -> tuple[AddrPort, ...]:
    if best is None:
        return ()
    return (best, *(address for address, count in counters.items() if count > 1 and address != best))
