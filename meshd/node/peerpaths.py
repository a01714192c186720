"""The path machines of all peers: who they are, what they receive, and carrying out what they want."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol, assert_never

from meshd.base.addr import AddrPort, IPAddress
from meshd.base.clock import Clock
from meshd.base.keys import DiscoPrivate, DiscoPublic, NodePublic
from meshd.base.log import get_logger, kv
from meshd.core.path import (
    Effect,
    NeedCallMeMaybe,
    PathSet,
    PingAnswered,
    SendPing,
    SetPath,
    TrustLapsed,
    WentIdle,
)
from meshd.core.wireguardpath import WireGuardOnlyPath
from meshd.node.bundles import Bundles
from meshd.node.discochannel import DiscoChannel
from meshd.node.pathtypes import PathPeer, PathPlane
from meshd.node.timerheap import TimerHeap
from meshd.wire import disco

CHANGE_LOG_BYTES = 4 << 20  # of all peers together, at 512 bytes a line
_LINE_BYTES = 512
_MAX_LINES = 64

log = get_logger(__name__)


class PathOwner(Protocol):
    """What paths need from the sockets and relays."""

    def path_send(self, peer: PeerPath, packet: bytes, address: AddrPort | None) -> None: ...

    def path_answer(self, packet: bytes, peer: PeerPath, source: AddrPort) -> None: ...

    def path_call(self, peer: PeerPath) -> None: ...

    def path_answered(self, token: int, latency_s: float, address: AddrPort | None, relay: int) -> None: ...

    def path_direct(self, peer: PeerPath, address: AddrPort) -> None: ...

    def path_idle(self) -> None: ...

    def path_lapsed(self) -> None: ...

    def path_relay(self, home: int, heard: int) -> int: ...


_NO_DISCO = DiscoPublic.zero()


class PeerPath:
    """One peer: its path machine, its place in the data plane, the region it was last heard on.

    The machine is made when something happens: until then packets go to ``relay``, if to anywhere.
    """

    __slots__ = (
        "_make",
        "handshake",
        "heard",
        "index",
        "key",
        "machine",
        "ping_held_at",
        "relay",
        "removed",
        "source",
        "spec",
        "was_direct",
    )

    def __init__(self, spec: PathPeer, relay: int, make: Callable[[PeerPath], PathSet]) -> None:
        self.key = spec.node_key
        self.spec = spec
        self.relay = relay
        self.machine: PathSet | None = None
        self._make = make
        self.index: int | None = None
        self.heard = 0
        self.ping_held_at = 0.0
        self.removed = False
        self.was_direct: AddrPort | None = None
        self.source: IPAddress | None = None
        """From which of our addresses the path in use was found, as far as that is known."""
        self.handshake: tuple[bytes, float] | None = None
        """The last handshake message that went out while no path was proven, and when."""

    @property
    def disco_key(self) -> DiscoPublic:
        return self.spec.disco_key or _NO_DISCO

    @property
    def path(self) -> PathSet:
        """The machine; asking for it makes it."""
        machine = self.machine
        if machine is None:
            machine = self.machine = self._make(self)
        return machine


class PeerPaths:
    """All peers of the node. ``own_key`` goes into our pings and is None while we have none."""

    def __init__(
        self,
        plane: PathPlane,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        owner: PathOwner,
        *,
        random: Callable[[int], bytes],
        peer_index: Callable[[NodePublic], int | None],
        relays_only: bool = False,
        pong_delay_v4_s: float = 0.0,
    ) -> None:
        self._relays_only = relays_only
        self._pong_delay_v4_s = pong_delay_v4_s
        self.own_key: bytes | None = None
        self.disco_watcher: Callable[[AddrPort, bytes | None, bytes], None] | None = None
        """Told every message that is opened, for captures."""
        self.disco: DiscoChannel[PeerPath] = DiscoChannel(random)
        self.active: set[PeerPath] = set()
        """Peers with heartbeats running."""
        self.bundles = Bundles(plane, clock, lambda peer, message: self.send_message(peer, message, None))
        self._plane = plane
        self._loop = loop
        self._clock = clock
        self._owner = owner
        self._random = random
        self._peer_index = peer_index
        self._peers: dict[bytes, PeerPath] = {}
        self._elsewhere: set[PeerPath] = set()  # heard on a region that is not their home
        self._unplaced: list[PeerPath] = []
        self._make = self._make_machine  # one bound method for all peers
        self._timers: TimerHeap[PeerPath] = TimerHeap(loop, clock.monotonic, self._timer_fired)

    def get(self, key: NodePublic) -> PeerPath | None:
        return self._peers.get(key.raw)

    def by_raw(self, key: bytes) -> PeerPath | None:
        """The peer with this 32-byte node key."""
        return self._peers.get(key)

    def renew_disco(self) -> None:
        """Take a new disco key, once every peer was removed: it tells them that our sessions are gone."""
        if len(self.disco.peers) == 0:
            self.disco = DiscoChannel(self._random)

    def adopt_disco(self, private: DiscoPrivate) -> None:
        """Go on with a disco key that peers know already; too late once there are peers."""
        if len(self.disco.peers) == 0:
            self.disco = DiscoChannel(self._random, private)

    def rotate_disco(self, private: DiscoPrivate | None = None) -> None:
        """Take a new disco key while the peers stay, who know us by it when they hear of it from control; or
        ``private``, which they know."""
        channel: DiscoChannel[PeerPath] = DiscoChannel(self._random, private)
        channel.dropped = self.disco.dropped
        for peer in self._peers.values():
            if peer.spec.disco_key is not None:
                channel.peers.add(peer.spec.disco_key, peer)
        self.disco = channel

    def set_relays_only(self, on: bool) -> None:
        """Forbid direct paths, in either direction, or allow them again."""
        self._relays_only = on
        for peer in self._peers.values():
            if peer.machine is not None:
                peer.machine.node_updated(peer.disco_key, self._endpoints_of(peer), self._clock.monotonic())
                self.turn(peer)

    def addresses(self) -> dict[NodePublic, AddrPort]:
        """Where the peers were last reached directly, of those that were."""
        found: dict[NodePublic, AddrPort] = {}
        for peer in self._peers.values():
            best = peer.machine.best if peer.machine is not None else None
            address = best.address if best is not None else peer.was_direct
            if address is not None:
                found[peer.key] = address
        return found

    def used(self) -> list[NodePublic]:
        """Peers with a path machine: those that something was done for."""
        return [peer.key for peer in self._peers.values() if peer.machine is not None]

    def update(self, spec: PathPeer) -> None:
        """Add a peer, or change one."""
        peer = self._peers.get(spec.node_key.raw)
        if peer is not None and peer.spec.wireguard_only != spec.wireguard_only:
            if peer.index is not None and not spec.wireguard_only:
                self._plane.set_roams(peer.index, False)
            self.remove(spec.node_key)  # its path is of another kind
            peer = None
        if peer is None:
            relay = self._relay_of(spec, 0)
            peer = self._peers[spec.node_key.raw] = PeerPath(spec, relay, self._make)
            if spec.disco_key is not None:
                self.disco.peers.add(spec.disco_key, peer)
            if self._find_index(peer) and peer.index is not None:
                self._plane.set_path(peer.index, None, 0, 0.0, relay)
                return
            if not self._unplaced:
                self._loop.call_soon(self._place)  # the data plane learns of the peer in the same turn
            self._unplaced.append(peer)
            return
        if spec == peer.spec:
            return
        old, peer.spec = peer.disco_key, spec
        if old != peer.disco_key:
            self.disco.peers.remove(old, peer)
            self.disco.peers.add(peer.disco_key, peer)
        if peer.machine is not None:
            peer.machine.node_updated(peer.disco_key, self._endpoints_of(peer), self._clock.monotonic())
        self._reroute(peer)

    def _find_index(self, peer: PeerPath) -> bool:
        """Whether the data plane knows the peer by now."""
        peer.index = self._peer_index(peer.key)
        if peer.index is not None and peer.spec.wireguard_only:
            self._plane.set_roams(peer.index, True)  # there are no pings that would tell where it is
        return peer.index is not None

    def _make_machine(self, peer: PeerPath) -> PathSet:
        lines = max(2, min(_MAX_LINES, CHANGE_LOG_BYTES // (_LINE_BYTES * max(1, len(self._peers)))))
        endpoints = self._endpoints_of(peer)
        if peer.spec.wireguard_only:
            return WireGuardOnlyPath(peer.key, endpoints, self._random, change_limit=lines)
        return PathSet(peer.key, peer.disco_key, endpoints, peer.relay, self._random, change_limit=lines)

    def _endpoints_of(self, peer: PeerPath) -> tuple[AddrPort, ...]:
        return () if self._relays_only else peer.spec.endpoints

    def _relay_of(self, spec: PathPeer, heard: int) -> int:
        return 0 if spec.wireguard_only else self._owner.path_relay(spec.home_relay, heard)

    def remove(self, key: NodePublic) -> PeerPath | None:
        """Forget a peer."""
        peer = self._peers.pop(key.raw, None)
        if peer is not None:
            peer.removed = True
            peer.index = None
            self.disco.peers.remove(peer.disco_key, peer)
            self._timers.disarm(peer)
            self.active.discard(peer)
            self._elsewhere.discard(peer)
            self.bundles.forget(peer)
        return peer

    def close(self) -> None:
        self._timers.close()

    def _place(self) -> None:
        unplaced, self._unplaced = self._unplaced, []
        for peer in unplaced:
            self.turn(peer)

    # -- running the machines ------------------------------------------------------------------------

    def turn(self, peer: PeerPath) -> None:
        """Carry out what the peer's machine wants and arm its timer."""
        if peer.removed:
            return
        path = peer.machine
        if peer.index is None and self._find_index(peer):
            self._publish(peer, path.published if path is not None else SetPath(None, 0.0, peer.relay))
        if path is None:
            return
        while effects := path.drain():
            for effect in effects:
                self._execute(peer, effect)
        if path.heartbeating:
            self.active.add(peer)
        deadline = path.next_timer()
        if deadline is not None:
            self._timers.arm(peer, deadline)

    def _timer_fired(self, peer: PeerPath) -> None:
        self.note_traffic(peer)
        peer.path.handle_timer(self._clock.monotonic())
        self.turn(peer)

    def note_traffic(self, peer: PeerPath) -> None:
        """Take over when the data plane last sent to the peer."""
        if peer.index is not None:
            peer.path.note_send(self._plane.peer_state(peer.index).last_tx)

    def _execute(self, peer: PeerPath, effect: Effect) -> None:
        match effect:
            case SendPing():
                ping = disco.Ping(effect.txid, self.own_key, effect.padding if self.own_key else 0)
                self.send_message(peer, ping, effect.address)
            case NeedCallMeMaybe():
                self._owner.path_call(peer)
            case SetPath():
                self._publish(peer, effect)
            case PingAnswered():
                self._owner.path_answered(effect.token, effect.latency_s, effect.address, effect.relay)
            case WentIdle():
                self._went_idle(peer)
            case TrustLapsed():
                self._owner.path_lapsed()
            case _:
                assert_never(effect)

    def send_message(self, peer: PeerPath, message: disco.Message, address: AddrPort | None) -> None:
        """Seal a disco message and send it to an address of the peer, or (None) over its relay."""
        if peer.removed or self.own_key is None:
            return
        if log.isEnabledFor(logging.DEBUG):
            log.debug("disco_sent", extra=kv(message=type(message).__name__, to=address or "relay", peer=peer.key))
        packet = self.disco.seal(peer.path.disco_key, message)
        if packet is not None:
            self._owner.path_send(peer, packet, address)

    def _publish(self, peer: PeerPath, path: SetPath) -> None:
        if path.address != peer.was_direct:
            peer.was_direct = path.address
            log.info("path", extra=kv(peer=peer.key, addr=path.address or "", derp=path.relay))
            if path.address is not None:
                self._owner.path_direct(peer, path.address)
        if peer.index is None:
            return
        packed = path.address.ip.packed if path.address is not None else None
        port = path.address.port if path.address is not None else 0
        self._plane.set_path(peer.index, packed, port, path.trusted_until, path.relay)

    def _went_idle(self, peer: PeerPath) -> None:
        self.active.discard(peer)
        if peer.index is not None:
            before = self._plane.peer_state(peer.index).last_tx
            self._plane.clear_active(peer.index)
            if self._plane.peer_state(peer.index).last_tx != before:
                peer.path.traffic_sent(self._clock.monotonic())  # it moved just before it could be noticed
        self._owner.path_idle()

    # -- what peers say ------------------------------------------------------------------------------

    def receive(self, packet: bytes, source: AddrPort, relayed_from: bytes | None = None) -> None:
        """A disco packet from a UDP address, or by a relay (its region as a DERP address) from a node key."""
        opened = self.disco.open(packet)
        if opened is None:
            return
        if log.isEnabledFor(logging.DEBUG):
            kind = type(opened.message).__name__
            log.debug("disco_received", extra=kv(message=kind, source=source, peers=[str(p.key) for p in opened.peers]))
        if self.disco_watcher is not None:
            self.disco_watcher(source, relayed_from, disco.encode_message(opened.message))
        sender = self._peers.get(relayed_from) if relayed_from is not None else None
        if relayed_from is not None and (sender is None or sender not in opened.peers):
            self.disco.dropped["relayed_from_another"] += 1
            return
        if self._relays_only and (sender is None or isinstance(opened.message, disco.CallMeMaybe)):
            self.disco.dropped["relays_only"] += 1  # an answer would give the peer a direct path
            return
        now = self._clock.monotonic()
        match opened.message:
            case disco.Ping(txid=txid, node_key=node_key):
                self._ping(opened.peers, sender, node_key, source, txid, now)
            case disco.Pong(txid=txid, source=seen_as):
                direct = source if sender is None else None
                for peer in opened.peers:
                    if peer.path.pong_received(txid, direct, seen_as, now):
                        self.turn(peer)
                        return
                self.disco.dropped["pong_without_ping"] += 1
            case disco.CallMeMaybe(endpoints=endpoints):
                if sender is None:
                    self.disco.dropped["call_not_relayed"] += 1
                    return
                sender.path.call_me_maybe_received(endpoints, now)
                self.turn(sender)
            case disco.TakesBundles(question=question):
                if sender is not None:
                    self.bundles.offered(sender, question=question)
            case disco.Unknown():
                self.disco.dropped["unknown_type"] += 1

    def _ping(
        self,
        peers: list[PeerPath],
        sender: PeerPath | None,
        node_key: bytes | None,
        source: AddrPort,
        txid: bytes,
        now: float,
    ) -> None:
        to = sender
        if to is None:
            named = self._peers.get(node_key) if node_key is not None else None
            to = named if named is not None and named in peers else peers[0]
        concerned = peers if sender is None else [sender]
        fresh = [p.path.ping_received(source if sender is None else None, txid, now) for p in concerned]
        if any(fresh):
            packet = self.disco.seal(to.path.disco_key, disco.Pong(txid, source))
            if packet is not None and self.own_key is not None:
                if self._pong_delay_v4_s and sender is None and source.ip.version == 4:
                    self._loop.call_later(self._pong_delay_v4_s, self._owner.path_answer, packet, to, source)
                else:
                    self._owner.path_answer(packet, to, source)
        for peer in concerned:
            self.turn(peer)

    def authenticated(self, key: NodePublic, address: AddrPort) -> None:
        """A message of the peer came from ``address``; of those that answer pings, only pings count."""
        peer = self._peers.get(key.raw)
        if peer is None or not peer.spec.wireguard_only or self._relays_only:
            return
        if isinstance(path := peer.path, WireGuardOnlyPath):
            path.authenticated(address, self._clock.monotonic())
            self.turn(peer)

    # -- relays --------------------------------------------------------------------------------------

    def data_relayed(self, sources: set[bytes]) -> None:
        """WireGuard data of these node keys came through a relay."""
        for source in sources:
            if (peer := self._peers.get(source)) is not None:
                self.bundles.data_relayed(peer)

    def heard(self, key: bytes, region: int) -> None:
        """A packet of this node came through a region."""
        peer = self._peers.get(key)
        if peer is None or peer.heard == region or (not peer.heard and region == peer.spec.home_relay):
            return
        peer.heard = region if region != peer.spec.home_relay else 0
        (self._elsewhere.add if peer.heard else self._elsewhere.discard)(peer)
        self._reroute(peer)

    def gone(self, key: bytes, region: int) -> None:
        """The relay does not reach this node any more."""
        peer = self._peers.get(key)
        if peer is not None and peer.heard == region:
            peer.heard = 0
            self._elsewhere.discard(peer)
            self._reroute(peer)

    def relay_changed(self, region: int, is_open: bool) -> None:
        """A connection to a region opened or closed: peers that were heard elsewhere may move."""
        for peer in list(self._elsewhere):
            if not is_open and peer.heard == region:
                peer.heard = 0
                self._elsewhere.discard(peer)
            self._reroute(peer)

    def relays_changed(self) -> None:
        """The relay map or our own home is another one."""
        for peer in self._peers.values():
            self._reroute(peer)

    def verify_all(self) -> None:
        """Proven paths need not work any more: ask."""
        now = self._clock.monotonic()
        for peer in list(self.active):
            self.note_traffic(peer)
            peer.path.verify(now)
            self.turn(peer)

    def reset_from(self, gone: set[IPAddress]) -> None:
        """Paths that were found from these addresses of ours are void."""
        now = self._clock.monotonic()
        for peer in self._peers.values() if gone else ():
            if peer.machine is not None and peer.source in gone:
                peer.source = None
                self.note_traffic(peer)
                peer.machine.reset(now)
                self.turn(peer)

    def reset_all(self) -> None:
        """Every proven path is void."""
        now = self._clock.monotonic()
        for peer in self._peers.values():
            path = peer.machine
            if path is not None and (path.best is not None or peer in self.active):
                self.note_traffic(peer)
                path.reset(now)
                self.turn(peer)

    def _reroute(self, peer: PeerPath) -> None:
        relay = self._relay_of(peer.spec, peer.heard)
        if relay != peer.relay:
            peer.relay = relay
            if peer.machine is not None:
                peer.machine.set_relay(relay, self._clock.monotonic())
            else:
                self._publish(peer, SetPath(None, 0.0, relay))
        self.turn(peer)
