"""The relay connections of a node: one permanent to the home region, others while they are needed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from meshd.base.clock import Clock
from meshd.base.keys import NodePrivate
from meshd.base.log import get_logger, kv
from meshd.core.derpclient import HealthChanged, PacketsReceived, PeerGone
from meshd.core.relaymap import RelayMap
from meshd.node.derplink import RelayLink

IDLE_CLOSE_S = 60.0  # a connection that is not home closes after this long without a write
IDLE_CHECK_S = 15.0

_log = get_logger(__name__)


class RelayEvents(Protocol):
    """What the owner of the connections is told, and what it provides."""

    def relay_packets(self, region: int, packets: PacketsReceived) -> None:
        """Packets came in, in order."""

    def relay_peer_gone(self, region: int, gone: PeerGone) -> None:
        """The relay does not reach a peer (any more)."""

    def relay_changed(self, region: int, is_open: bool) -> None:
        """A connection was opened or lost."""

    def relay_failed(self, region: int) -> None:
        """Another attempt to connect was in vain."""

    def relay_health_changed(self) -> None:
        """A relay reports another problem about itself, or none any more: see ``health``."""

    def take_relayed(self, region: int, limit: int = 0) -> bytes:
        """SendPacket frames that wait for the region; with a limit about so many bytes, until there are none."""


class RelayLinks:
    """All connections of one node. Nothing is opened before ``set_key`` and ``set_map``."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        events: RelayEvents,
        *,
        random: Callable[[int], bytes],
        mark: bool = True,
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._events = events
        self._random = random
        self._mark = mark
        self._key: NodePrivate | None = None
        self._map = RelayMap()
        self._home = 0
        self._links: dict[int, RelayLink] = {}
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False
        self.prefer_v6 = False
        """Give IPv6 a head start when dialling, because it is known to work."""
        self.health: dict[int, str] = {}
        """Problems that relays report about us, by region."""

    # -- configuration -------------------------------------------------------------------------------

    def set_key(self, key: NodePrivate | None) -> None:
        """Relays know us by this key: a new one replaces every connection."""
        if key == self._key:
            return
        self._key = key
        self._close_links(list(self._links))
        self._want_home()

    def set_map(self, relays: RelayMap) -> None:
        """Connections to regions whose servers changed are made again."""
        changed = [r for r in self._links if relays.regions.get(r) != self._map.regions.get(r)]
        self._map = relays
        self._close_links(changed)
        self._want_home()

    def set_home(self, region: int) -> None:
        """The one region to stay connected to, 0 for none."""
        self._home = region
        for link in self._links.values():
            link.set_home(link.region.id == region)
        self._want_home()
        self._arm_sweep()

    def _want_home(self) -> None:
        if self._home:
            self._ensure(self._home)

    # -- packets -------------------------------------------------------------------------------------

    def send(self, region: int, destination: bytes, packet: bytes) -> bool:
        """Send, or keep for a moment while connecting. False when there is no such region or no room."""
        link = self._ensure(region)
        return link is not None and link.send(destination, packet)

    def wake(self, region: int) -> None:
        """``take_relayed(region)`` has something."""
        link = self._ensure(region)
        if link is None:
            self._events.take_relayed(region)  # nowhere to go
        else:
            link.flush()

    # -- state ---------------------------------------------------------------------------------------

    def is_open(self, region: int) -> bool:
        link = self._links.get(region)
        return link is not None and link.is_open

    def open_regions(self) -> list[int]:
        return [region for region, link in self._links.items() if link.is_open]

    def last_frame_at(self, region: int) -> float:
        """When the relay was last heard (monotonic), 0 when it is not connected."""
        link = self._links.get(region)
        return link.last_received if link is not None and link.is_open else 0.0

    def last_error(self, region: int) -> str:
        """Why the last attempt failed, empty when connected."""
        link = self._links.get(region)
        return link.last_error if link is not None and not link.is_open else ""

    def tls_errors(self) -> dict[str, str]:
        """Why TLS to relays failed, by host name."""
        return {
            link.region.derp_nodes[0].host: link.last_error
            for link in self._links.values()
            if link.tls_failed and link.region.derp_nodes
        }

    def link_changed(self) -> None:
        """The network changed: connections whose local address is gone close, the others are probed."""
        for link in list(self._links.values()):
            link.network_changed()

    def break_all(self) -> None:
        """Cut every connection, as a broken network would."""
        for link in self._links.values():
            link.cut()

    def close(self) -> None:
        """Close everything; nothing is opened again."""
        self._closed = True
        self._close_links(list(self._links))
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None

    # -- parts ---------------------------------------------------------------------------------------

    def _ensure(self, region: int) -> RelayLink | None:
        link = self._links.get(region)
        if link is not None:
            link.wanted(self._clock.monotonic())
            return link
        found = self._map.regions.get(region)
        if found is None or not found.derp_nodes or self._key is None or self._closed:
            return None
        link = self._links[region] = RelayLink(
            self._loop, self._clock, found, self._key, self, random=self._random, mark=self._mark
        )
        link.set_home(region == self._home)
        link.wanted(self._clock.monotonic())
        link.start()
        self._arm_sweep()
        return link

    def _arm_sweep(self) -> None:
        if self._sweep is None and any(region != self._home for region in self._links):
            self._sweep = self._loop.call_later(IDLE_CHECK_S, self._close_idle)

    def _close_idle(self) -> None:
        self._sweep = None
        now = self._clock.monotonic()
        idle = [
            region
            for region, link in self._links.items()
            if region != self._home and now - link.last_wanted >= IDLE_CLOSE_S
        ]
        if idle:
            _log.debug("relay_idle_closed", extra=kv(derp=",".join(map(str, idle))))
        self._close_links(idle)
        self._arm_sweep()

    def _close_links(self, regions: list[int]) -> None:
        for region in regions:
            link = self._links.pop(region)
            self.health.pop(region, None)
            was_open = link.is_open
            link.close()
            self._events.take_relayed(region)  # frames left behind would never be announced again
            if was_open:
                self._events.relay_changed(region, False)

    # -- called by a link ----------------------------------------------------------------------------

    def link_packets(self, region: int, packets: PacketsReceived) -> None:
        self._events.relay_packets(region, packets)

    def link_peer_gone(self, region: int, gone: PeerGone) -> None:
        self._events.relay_peer_gone(region, gone)

    def link_health(self, region: int, change: HealthChanged) -> None:
        if change.text:
            self.health[region] = change.text
            _log.warning("relay_reports_problem", extra=kv(derp=region, reason=change.text))
        elif self.health.pop(region, None) is not None:
            _log.info("relay_reports_healthy", extra=kv(derp=region))
        self._events.relay_health_changed()

    def link_changed_state(self, region: int, is_open: bool) -> None:
        if not is_open:
            self.health.pop(region, None)
        self._events.relay_changed(region, is_open)

    def link_failed(self, region: int) -> None:
        self._events.relay_failed(region)

    def link_take(self, region: int, limit: int = 0) -> bytes:
        return self._events.take_relayed(region, limit)
