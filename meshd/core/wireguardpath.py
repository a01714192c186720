"""The path to a peer that speaks WireGuard and nothing else: no pings, no relay, only the addresses control gives.

A message of the peer that came from an address proves it, as always with WireGuard: it may roam. While none has, every
initiation goes to all addresses: the peer answers the first copy and drops the others as repetitions, so that the
quickest way wins.
"""

from __future__ import annotations

from meshd.base.addr import AddrPort
from meshd.base.keys import DiscoPublic, NodePublic
from meshd.core.candidate import Candidate, Quality, usable
from meshd.core.path import TRUST_S, PathSet, Random

PATIENCE_S = 15.0  # an initiation unanswered for so long goes to all addresses again


class WireGuardOnlyPath(PathSet):
    """A ``PathSet`` that never pings. ``best`` is some address until the peer has shown which one is right."""

    __slots__ = ("_asked_at", "_proven")

    def __init__(
        self, node_key: NodePublic, endpoints: tuple[AddrPort, ...], random: Random, *, change_limit: int = 64
    ) -> None:
        super().__init__(node_key, DiscoPublic.zero(), endpoints, 0, random, change_limit=change_limit)
        self._asked_at = 0.0  # when the first initiation went out since the peer was last heard
        self._proven = False

    def trusted(self, now: float) -> bool:
        """There is no relay to use beside an address."""
        return self.best is not None

    def node_updated(self, disco_key: DiscoPublic, endpoints: tuple[AddrPort, ...], now: float) -> None:
        super().node_updated(self.disco_key, endpoints, now)
        if not endpoints:
            self._clear_best(now, "updateFromNode-no-Endpoints")
        elif self.heartbeating:
            self._choose(now)

    def traffic_sent(self, now: float) -> None:
        super().traffic_sent(now)
        self._choose(now)

    def command_ping(self, token: int, size: int, now: float) -> None:
        """Nothing: the peer answers no pings."""

    def handshake_addresses(self, now: float, *, initiation: bool) -> tuple[AddrPort, ...]:
        """Where a handshake message goes. Call ``traffic_sent`` first."""
        if initiation and not self._asked_at:
            self._asked_at = now
        if self.best is None:
            return ()
        if not initiation or (self._proven and now - self._asked_at < PATIENCE_S):
            return (self.best.address,)
        return tuple(dict.fromkeys((self.best.address, *self.candidates)))

    def authenticated(self, address: AddrPort, now: float) -> None:
        """A message from ``address`` proved to be the peer's."""
        self._asked_at = 0.0
        candidate = self.candidates.get(address)
        if candidate is None:
            if not usable(address) or not self._make_room(now):
                return
            candidate = self.candidates[address] = Candidate()
        candidate.last_got_ping = now  # as good a reason as a ping to remember the address
        self._proven = True
        self._take(address, now)

    def send_failed(self, address: AddrPort, now: float) -> None:
        """The host has no route to ``address``: the next initiation goes to all."""
        if self.best is not None and self.best.address == address:
            self._proven = False

    def reset(self, now: float, why: str = "rebind") -> None:
        """Our own addresses are others. That of the peer is likely the same, but the next initiation goes to all."""
        self._proven = False

    def _lapsed(self, now: float) -> None:
        """Silence means nothing where nobody answers pings."""

    def _discover_eagerly(self, now: float) -> None:
        self._choose(now)

    def _discover(self, now: float, interval_s: float, *, call: bool = True) -> None:
        self._choose(now)

    def _choose(self, now: float) -> None:
        first = next((address for address, candidate in self.candidates.items() if candidate.in_netmap), None)
        if self.best is None and first is not None:
            self._proven = False
            self._take(first, now)

    def _take(self, address: AddrPort, now: float) -> None:
        if self.best is None or self.best.address != address:
            self._note(now, "wireguard-only-bestAddr-update", self.best, address)
            self.best = Quality(address, 0.0)
        self.trusted_until = now + TRUST_S
        self._publish()
