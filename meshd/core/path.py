"""The path to one peer: which UDP address to use, when to trust it, when to look for a better one.

``PathSet`` is a machine without I/O. Inputs carry ``now`` (monotonic seconds); after each of them, run the
effects of ``drain()`` and re-arm a timer at ``next_timer()``. A peer without traffic costs neither timers nor
packets: candidates are only built when something happens.

Time constants are those of Tailscale's path discovery. Two things are quicker here: a failed first
discovery is repeated after 0.25, 0.5, 1 and 2 seconds before the 5 second rhythm begins, and a ping
from an unproven address is returned at once while packets wait for a path. And a proven address that is
silent while another one answers is trusted for a moment only: its host has moved, or its router has.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, NamedTuple

from meshd.base.addr import AddrPort
from meshd.base.keys import DiscoPublic, NodePublic
from meshd.core.candidate import MAX_CANDIDATES, Candidate, PongReceived, Quality, better, usable

HEARTBEAT_INTERVAL_S = 3.0
SESSION_ACTIVE_S = 45.0
TRUST_S = 6.5
UPGRADE_INTERVAL_S = 60.0
GOOD_ENOUGH_LATENCY_S = 0.005
DISCOVERY_INTERVAL_S = 5.0
PING_TIMEOUT_S = 5.0
EAGER_GAPS_S = (0.25, 0.5, 1.0, 2.0)
EAGER_MINIMUM_S = 0.2
DOUBT_S = 0.25  # and two round trips: how long the best address may be silent once another one has answered
PING_PACKET_BYTES = 124  # header, nonce, box and an unpadded ping with its node key
MAX_PING_BYTES = 65535 - 32 - 28
MAX_SENT_PINGS = 4 * MAX_CANDIDATES

Random = Callable[[int], bytes]


class Purpose(Enum):
    """Why a ping was sent."""

    DISCOVERY = "discovery"
    HEARTBEAT = "heartbeat"
    COMMAND = "command"


class SendPing(NamedTuple):
    """Send a disco ping to ``address``, or over the peer's relay when it is None."""

    txid: bytes
    address: AddrPort | None
    padding: int


class NeedCallMeMaybe(NamedTuple):
    """Send a CallMeMaybe over the relay as soon as our own endpoints are fresh enough."""


class SetPath(NamedTuple):
    """Packets go to ``address`` alone until ``trusted_until``, afterwards also to ``relay`` (0 = none)."""

    address: AddrPort | None
    trusted_until: float
    relay: int


class PingAnswered(NamedTuple):
    """The pong to a command's ping; ``address`` None means it came over ``relay``."""

    token: int
    latency_s: float
    address: AddrPort | None
    relay: int


class WentIdle(NamedTuple):
    """No packet for 45 s: heartbeats have stopped until ``traffic_sent`` is called again."""


class TrustLapsed(NamedTuple):
    """A path that worked fell silent while it is used: our router, for one, may have given us another place."""


Effect = SendPing | NeedCallMeMaybe | SetPath | PingAnswered | WentIdle | TrustLapsed


class PathChange(NamedTuple):
    """One line of the peer's debug log."""

    at: float
    what: str
    before: object
    after: object


class _SentPing(NamedTuple):
    to: AddrPort | None
    at: float
    purpose: Purpose
    token: int


class PathSet:
    """All that is known about reaching one peer."""

    __slots__ = (
        "_candidates",
        "_change_limit",
        "_changes",
        "_discover_at",
        "_eager_step",
        "_heartbeat_at",
        "_last_call",
        "_outbox",
        "_published",
        "_random",
        "_sent",
        "best",
        "disco_key",
        "endpoints",
        "last_full_ping",
        "last_send",
        "node_key",
        "relay",
        "trusted_until",
    )

    def __init__(
        self,
        node_key: NodePublic,
        disco_key: DiscoPublic,
        endpoints: tuple[AddrPort, ...],
        relay: int,
        random: Random,
        *,
        change_limit: int = 64,
    ) -> None:
        self.node_key = node_key
        self.disco_key = disco_key
        self.endpoints = endpoints
        self.relay = relay
        self.best: Quality | None = None
        self.trusted_until = 0.0
        self.last_send = 0.0
        self.last_full_ping = 0.0
        self._random = random
        self._candidates: dict[AddrPort, Candidate] | None = None
        self._sent: dict[bytes, _SentPing] | None = None
        self._outbox: list[Effect] = []
        self._heartbeat_at = 0.0
        self._discover_at = 0.0
        self._eager_step = 0
        self._last_call = 0.0
        self._change_limit = change_limit
        self._changes: deque[PathChange] | None = None
        self._published: SetPath | None = None
        self._publish()

    # -- outputs -------------------------------------------------------------------------------------

    def drain(self) -> list[Effect]:
        """The effects since the last call, in order."""
        effects = self._outbox
        if effects:
            self._outbox = []
        return effects

    def next_timer(self) -> float | None:
        """When ``handle_timer`` wants to be called (monotonic), or None."""
        deadline = self._heartbeat_at
        if self._discover_at and (not deadline or self._discover_at < deadline):
            deadline = self._discover_at
        if self._sent:
            expiry = next(iter(self._sent.values())).at + PING_TIMEOUT_S
            if not deadline or expiry < deadline:
                deadline = expiry
        return deadline or None

    def trusted(self, now: float) -> bool:
        """Whether UDP alone is used."""
        return self.best is not None and now <= self.trusted_until

    def active(self, now: float) -> bool:
        """Whether something was sent to the peer within 45 s."""
        return bool(self.last_send) and now - self.last_send <= SESSION_ACTIVE_S

    @property
    def published(self) -> SetPath:
        """The last ``SetPath``."""
        assert self._published is not None
        return self._published

    @property
    def heartbeating(self) -> bool:
        """Whether the session runs: from ``traffic_sent`` until ``WentIdle``."""
        return bool(self._heartbeat_at)

    @property
    def candidates(self) -> dict[AddrPort, Candidate]:
        """The candidates by address, in the order they were learned."""
        if self._candidates is None:
            self._candidates = {a: Candidate(in_netmap=True) for a in self.endpoints if usable(a)}
        return self._candidates

    @property
    def changes(self) -> list[PathChange]:
        """The peer's debug log, oldest first."""
        return list(self._changes or ())

    # -- what control says ---------------------------------------------------------------------------

    def node_updated(self, disco_key: DiscoPublic, endpoints: tuple[AddrPort, ...], now: float) -> None:
        """The netmap's view of the peer. A new disco key means it restarted: everything proven is void."""
        restarted = disco_key != self.disco_key
        fresh = [a for a in endpoints if a not in self.endpoints]
        self.disco_key = disco_key
        self.endpoints = endpoints
        if self._candidates is not None:
            self._merge_endpoints(endpoints, now)
        if fresh:
            self._note(now, "updateFromNode-new-Endpoints", None, fresh)
        if restarted:
            self._note(now, "updateFromNode-resetLocked", None, None)
            self.reset(now, "stopAndReset-resetLocked")
        elif fresh and self.active(now) and not self.trusted(now):
            self._discover_eagerly(now)
        self._publish()

    def _merge_endpoints(self, endpoints: tuple[AddrPort, ...], now: float) -> None:
        candidates = self.candidates
        wanted = set(endpoints)
        for address, candidate in candidates.items():
            candidate.in_netmap = address in wanted
        for address in endpoints:
            if address not in candidates and usable(address):
                candidates[address] = Candidate(in_netmap=True)
        self._prune(now, "updateFromNode")

    def set_relay(self, relay: int, now: float) -> None:
        """The region through which the peer can be reached, 0 for none."""
        if relay == self.relay:
            return
        self._note(now, "updateFromNode-DERP" if relay else "updateFromNode-remove-DERP", self.relay, relay)
        self.relay = relay
        self._publish()

    # -- our own traffic -----------------------------------------------------------------------------

    def note_send(self, at: float) -> None:
        """Packets were sent at ``at``; keeps a running session alive without starting one."""
        if at > self.last_send:
            self.last_send = at

    def traffic_sent(self, now: float) -> None:
        """A packet was sent: starts heartbeats, and discovery when no path is trusted."""
        self.note_send(now)
        idle = not self._heartbeat_at
        if idle:
            self._heartbeat_at = now + HEARTBEAT_INTERVAL_S
        if self.trusted(now):
            if idle:
                self._discover_at = self.trusted_until
        elif idle:
            self._discover_eagerly(now)
        elif not self._discover_at:
            self._discover(now, DISCOVERY_INTERVAL_S)

    def command_ping(self, token: int, size: int, now: float) -> None:
        """Ping for a user: the trusted path, or the relay and every candidate at once.

        ``size`` is the wanted UDP payload, 0 for the smallest. Each pong becomes one ``PingAnswered``.
        """
        self.note_send(now)
        if not self._heartbeat_at:
            self._heartbeat_at = now + HEARTBEAT_INTERVAL_S
        padding = max(0, min(size, MAX_PING_BYTES) - PING_PACKET_BYTES)
        if self.best is not None and self.trusted(now):
            self._ping(self.best.address, now, Purpose.COMMAND, token, padding)
            return
        if self.relay:
            self._ping(None, now, Purpose.COMMAND, token, padding)
        self._prune(now, "cliPing")
        for address in self.candidates:
            self._ping(address, now, Purpose.COMMAND, token, padding)
        self.last_full_ping = now
        self._ask_for_call(now, EAGER_MINIMUM_S)
        if not self._discover_at:
            self._eager_step = 0
            self._arm_eager(now)

    def send_failed(self, address: AddrPort, now: float) -> None:
        """The host has no route to ``address``: its history is worth nothing any more."""
        candidate = self.candidates.get(address)
        if candidate is not None:
            candidate.last_ping = 0.0
            candidate.pongs = None
        if self.best is not None and self.best.address == address:
            self._clear_best(now, "sendErr-bestAddr")
            if self.active(now):
                self._discover_eagerly(now)

    def verify(self, now: float) -> None:
        """The host's addresses or routes are others: the proven path has a moment to show that it still works."""
        if self.best is not None and self.trusted(now) and not self.disco_key.is_zero:
            self._ping(self.best.address, now, Purpose.HEARTBEAT)
            self._doubt(self.best.latency_s, now)

    def reset(self, now: float, why: str = "rebind") -> None:
        """Forget the proven path (link change, restarted peer) and look again if there is traffic."""
        self._sent = None
        self._clear_best(now, why)
        for candidate in (self._candidates or {}).values():
            candidate.last_ping = 0.0
            candidate.pongs = None
        if self.active(now):
            self._discover_eagerly(now)

    # -- the peer's messages -------------------------------------------------------------------------

    def ping_received(self, source: AddrPort | None, txid: bytes, now: float) -> bool:
        """A ping from ``source`` (None: by relay). False for a repetition, which gets no second pong."""
        if source is None:
            return True
        candidate = self.candidates.get(source)
        if candidate is None:
            if not usable(source) or not self._make_room(now):
                return True
            candidate = self.candidates[source] = Candidate()
        elif candidate.last_got_txid == txid:
            return False
        heard_at, candidate.last_got_ping = candidate.last_got_ping, now
        candidate.last_got_txid = txid
        if not self.active(now) or now - candidate.last_return < EAGER_MINIMUM_S:
            return True
        if not self.trusted(now):
            # Its firewall is open for us right now, whatever became of our earlier ping.
            candidate.last_return = now
            self._ping(source, now, Purpose.DISCOVERY)
        elif self.best is not None and source != self.best.address and (not heard_at or now - heard_at > TRUST_S):
            candidate.last_return = now
            self._compare(self.best.address, source, now)
        return True

    def _compare(self, best: AddrPort, other: AddrPort, now: float) -> None:
        """The peer speaks from another address than before: which of them does it have?"""
        candidate = self.candidates.get(best)
        if candidate is None or now - candidate.last_ping >= EAGER_MINIMUM_S:
            self._ping(best, now, Purpose.DISCOVERY)
            self._ping(other, now, Purpose.DISCOVERY)

    def pong_received(self, txid: bytes, source: AddrPort | None, seen_as: AddrPort | None, now: float) -> bool:
        """A pong from ``source`` (None: by relay); False when no ping of ours has that ``txid``.

        The round trip counts for the address that was pinged, which need not be where the pong came from.
        """
        sent = self._sent.pop(txid, None) if self._sent else None
        if sent is None or now - sent.at > PING_TIMEOUT_S:
            return False
        latency = now - sent.at
        if sent.to is not None and source is not None:
            candidate = self.candidates.get(sent.to)
            if candidate is None:
                return True
            candidate.remember(PongReceived(latency, now, source, seen_as))
            self._promote(Quality(sent.to, latency), now)
            if self.best is not None and self.best.address != sent.to and self._silent(self.best.address, sent.at):
                self._doubt(self.best.latency_s, now)
        if sent.purpose is Purpose.COMMAND:
            self._outbox.append(PingAnswered(sent.token, latency, sent.to, 0 if sent.to else self.relay))
        return True

    def _promote(self, proven: Quality, now: float) -> None:
        # A best address that stopped answering does not defend its place.
        current = self.best if self.trusted(now) else None
        if current is None or better(proven, current):
            if self.best is None or self.best.address != proven.address:
                self._note(now, "handlePingLocked-bestAddr-update", self.best, proven)
            self.best = proven
        if self.best is None or self.best.address != proven.address:
            return
        if self.best.latency_s != proven.latency_s:
            self._note(now, "handlePingLocked-bestAddr-latency", self.best, proven)
            self.best = self.best._replace(latency_s=proven.latency_s)
        self.trusted_until = now + TRUST_S
        self._eager_step = 0
        self._discover_at = self.trusted_until if self._heartbeat_at else 0.0
        self._publish()

    def _silent(self, address: AddrPort, at: float) -> bool:
        """Whether ``address`` was pinged until ``at`` and has not answered since."""
        candidate = self.candidates.get(address)
        answered_at = candidate.pongs[-1].at if candidate is not None and candidate.pongs else 0.0
        return any(sent.to == address and answered_at < sent.at <= at for sent in (self._sent or {}).values())

    def _doubt(self, latency_s: float, now: float) -> None:
        """Trust the best address no longer than a late answer needs; then the relay helps, and all are asked."""
        until = now + 2 * latency_s + DOUBT_S
        if until < self.trusted_until:
            self.trusted_until = until
            self._eager_step = 0
            self._discover_at = until if self._heartbeat_at else 0.0
            self._publish()

    def call_me_maybe_received(self, addresses: Iterable[AddrPort], now: float) -> None:
        """The peer waits for packets from us: ping everything it named, at once, to open its firewall."""
        candidates = self.candidates
        named = [address for address in dict.fromkeys(addresses) if usable(address)][:MAX_CANDIDATES]
        wanted = set(named)
        fresh: list[AddrPort] = []
        for address in [a for a, c in candidates.items() if c.call_me_maybe_at and a not in wanted]:
            candidates[address].call_me_maybe_at = 0.0
            if candidates[address].deletable(now):
                self._delete(address, now, "handleCallMeMaybe")
        for address in named:
            candidate = candidates.get(address)
            if candidate is None:
                if not self._make_room(now):
                    continue
                candidate = candidates[address] = Candidate()
                fresh.append(address)
            candidate.call_me_maybe_at = now
        if fresh:
            self._note(now, "handleCallMeMaybe-new-endpoints", None, fresh)
        for candidate in candidates.values():
            candidate.last_ping = 0.0
        self._discover(now, 0.0, call=False)

    # -- timers --------------------------------------------------------------------------------------

    def handle_timer(self, now: float) -> None:
        """Forget unanswered pings, send the heartbeat, repeat discovery; early calls do nothing."""
        if self._sent:
            for txid in [t for t, sent in self._sent.items() if now - sent.at >= PING_TIMEOUT_S]:
                del self._sent[txid]
        if self._discover_at and now >= self._discover_at:
            self._discover_due(now)
        if self._heartbeat_at and now >= self._heartbeat_at:
            self._heartbeat(now)

    def _heartbeat(self, now: float) -> None:
        if not self.active(now):
            self._heartbeat_at = self._discover_at = 0.0
            self._outbox.append(WentIdle())
            return
        self._heartbeat_at = now + HEARTBEAT_INTERVAL_S
        if self.best is not None:
            self._ping(self.best.address, now, Purpose.HEARTBEAT)
        if self._wants_full_ping(now):
            self._discover(now, DISCOVERY_INTERVAL_S)

    def _wants_full_ping(self, now: float) -> bool:
        if self.best is None or not self.last_full_ping or now > self.trusted_until:
            return True
        if self.best.latency_s <= GOOD_ENOUGH_LATENCY_S:
            return False
        return now - self.last_full_ping >= UPGRADE_INTERVAL_S

    def _discover_due(self, now: float) -> None:
        self._discover_at = 0.0
        if not self.active(now) or (self.best is not None and now < self.trusted_until):
            return
        if self._eager_step == 0 and self.best is not None:  # trust has just lapsed
            self._lapsed(now)
            return
        self._discover(now, EAGER_MINIMUM_S)
        self._arm_eager(now)

    def _lapsed(self, now: float) -> None:
        self._outbox.append(TrustLapsed())
        self._discover_eagerly(now)

    def _discover_eagerly(self, now: float) -> None:
        self._eager_step = 0
        self._discover(now, EAGER_MINIMUM_S)
        self._arm_eager(now)

    def _arm_eager(self, now: float) -> None:
        if self._eager_step < len(EAGER_GAPS_S):
            self._discover_at = now + EAGER_GAPS_S[self._eager_step]
            self._eager_step += 1
        else:
            self._discover_at = now + DISCOVERY_INTERVAL_S  # heartbeats alone would make it two of them, 6 s

    # -- parts ---------------------------------------------------------------------------------------

    def _discover(self, now: float, interval_s: float, *, call: bool = True) -> None:
        """Ping every candidate not pinged for ``interval_s`` and, if any was, ask the peer to ping us."""
        self.last_full_ping = now
        self._prune(now, "sendPingsLocked")
        sent = False
        for address, candidate in self.candidates.items():
            if candidate.last_ping and now - candidate.last_ping < interval_s:
                continue
            self._ping(address, now, Purpose.DISCOVERY)
            sent = True
        # A peer whose addresses are unknown may still know how to reach ours.
        if call and (sent or not self.candidates):
            self._ask_for_call(now, interval_s)

    def _ask_for_call(self, now: float, interval_s: float) -> None:
        if self.relay and (not self._last_call or now - self._last_call >= interval_s):
            self._last_call = now
            self._outbox.append(NeedCallMeMaybe())

    def _ping(self, to: AddrPort | None, now: float, purpose: Purpose, token: int = 0, padding: int = 0) -> None:
        if self.disco_key.is_zero:
            return
        if self._sent is None:
            self._sent = {}
        if len(self._sent) >= MAX_SENT_PINGS:
            return
        txid = self._random(12)
        self._sent[txid] = _SentPing(to, now, purpose, token)
        if to is not None and (candidate := self.candidates.get(to)) is not None:
            candidate.last_ping = now
        self._outbox.append(SendPing(txid, to, padding))

    def _make_room(self, now: float) -> bool:
        """Whoever replays one ping of the peer from many addresses must not keep the peer's own ones out."""
        if len(self.candidates) >= MAX_CANDIDATES:
            self._prune(now, "makeRoom")
        if len(self.candidates) >= MAX_CANDIDATES:
            heard = {a: c.last_got_ping for a, c in self.candidates.items() if c.only_heard}
            if heard:
                self._delete(min(heard, key=heard.__getitem__), now, "makeRoom")
        return len(self.candidates) < MAX_CANDIDATES

    def _prune(self, now: float, why: str) -> None:
        for address in [a for a, c in self.candidates.items() if c.deletable(now)]:
            self._delete(address, now, why)

    def _delete(self, address: AddrPort, now: float, why: str) -> None:
        del self.candidates[address]
        self._note(now, f"deleteEndpointLocked-{why}", address, None)
        if self.best is not None and self.best.address == address:
            self._clear_best(now, f"deleteEndpointLocked-bestAddr-{why}")

    def _clear_best(self, now: float, why: str) -> None:
        if self.best is not None:
            self._note(now, why, self.best, None)
        self.best = None
        self.trusted_until = 0.0
        self._publish()

    def _publish(self) -> None:
        path = SetPath(self.best.address if self.best else None, self.trusted_until, self.relay)
        if path != self._published:
            self._published = path
            self._outbox.append(path)

    def _note(self, now: float, what: str, before: Any, after: Any) -> None:
        if self._changes is None:
            self._changes = deque(maxlen=max(2, self._change_limit))
        self._changes.append(PathChange(now, what, before, after))
