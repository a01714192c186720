"""The WireGuard engine of a node: tunnels above, the data plane below.

Owns the data plane's event descriptor. Packets that the fast path cannot handle come up as events and go to
the tunnel of their peer, to the ping machinery, or to a hook. A peer that nobody talks to costs a route in
the data plane and one small record, no timer and no key exchange.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, assert_never

from meshd.base.addr import AddrPort, IPAddress, IPPrefix
from meshd.base.clock import Clock
from meshd.base.keys import NodePrivate, NodePublic
from meshd.base.log import get_logger, kv
from meshd.base.ranges import SERVICE_V4, SERVICE_V6
from meshd.core.handshake import Identity
from meshd.core.handshakequeue import Source
from meshd.core.indextable import IndexTable
from meshd.core.tai64n import TimestampSource
from meshd.core.tunnel import Tunnel
from meshd.core.tunnelcontext import TunnelContext
from meshd.core.tunneleffects import (
    AllowActive,
    ClearSessions,
    Effect,
    FlushStaged,
    HandshakeGaveUp,
    InstallSession,
    SendDatagram,
    SendKeepalive,
    SessionEstablished,
)
from meshd.node import dataplane as ev
from meshd.node.dataplane import DataPlane
from meshd.node.enginepeer import (
    MAX_WAITING_PACKETS,
    EngineHooks,
    EnginePeer,
    EnginePeerStatus,
    PeerConfig,
    traffic_of,
)
from meshd.node.handshakedesk import HandshakeDesk
from meshd.node.netstack import answer
from meshd.node.timerheap import TimerHeap
from meshd.node.tunnelping import TunnelPings, TunnelPong, reject
from meshd.wire.tsmp import RejectReason
from meshd.wire.wireguard import MESSAGE_TRANSPORT, message_type

WORK_PER_TURN = 32  # each costs up to half a millisecond, as one that begins a handshake and looks for a path does
EVENTS_PER_TURN = 256  # with handshake messages, which are put into a queue here: a flood has to be seen in it
if TYPE_CHECKING:
    from meshd.core.filterprogram import CompiledRule

_UNUSED = EnginePeerStatus(0, 0, None, in_engine=False)
SERVICE_ADDRESSES: tuple[IPAddress, ...] = (SERVICE_V4, SERVICE_V6)  # answered inside this daemon

log = get_logger(__name__)


class Engine:
    """Joins ``Tunnel`` machines to a data plane.

    ``send`` puts a handshake message on the way to a peer, over whatever path it has. The data plane must
    be started and stopped by its owner; ``close`` only lets go of it.
    """

    def __init__(
        self,
        plane: DataPlane,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        send: Callable[[NodePublic, bytes], None],
        *,
        hooks: EngineHooks | None = None,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.hooks = hooks if hooks is not None else EngineHooks()
        self._shields_up = False
        self._plane = plane
        self._loop = loop
        self._clock = clock
        self._send = send
        self._random = random
        self._stamps = TimestampSource()
        self._context: TunnelContext | None = None
        self._own_public: NodePublic | None = None
        self._peers: dict[NodePublic, EnginePeer] = {}
        self._by_index: dict[int, EnginePeer] = {}
        self._by_tunnel: dict[Tunnel, EnginePeer] = {}
        self._used: set[EnginePeer] = set()  # every peer that ever had a tunnel
        self._live = 0
        self._timers: TimerHeap[EnginePeer] = TimerHeap(loop, clock.monotonic, self._timer_fired)
        self._drops: dict[str, int] = {}
        self._desk = HandshakeDesk(
            loop, clock.monotonic, self._drops, self._find_tunnel, self._handshake_accepted, self._challenge
        )
        self.pings = TunnelPings(loop, clock.monotonic, random, self._send_packet)
        plane.watch_echo(self.pings.echo_identifier)
        plane.set_service_addresses([address.packed for address in SERVICE_ADDRESSES])
        plane.set_own_addresses([address.packed for address in SERVICE_ADDRESSES])
        loop.add_reader(plane.event_fd, self._on_readable)

    # -- configuration

    def set_private_key(self, private: NodePrivate | None) -> None:
        """Become another node, or none: every session ends, a peer with our own key is removed.

        The key that is in use already changes nothing.
        """
        identity = Identity.of(private.raw) if private is not None else None
        if identity == (self._context.identity if self._context is not None else None):
            return
        for peer in self._peers.values():
            self._forget_tunnel(peer)
        if identity is None:
            self._context = self._own_public = None
            self._desk.set_context(None)
            return
        self._own_public = NodePublic(identity.public)
        self.remove_peer(self._own_public)
        indices: IndexTable[Tunnel] = IndexTable(self._random)
        self._context = TunnelContext(identity, indices, self._random, self._stamp, self._drops)
        self._desk.set_context(self._context)
        for peer in self._peers.values():
            self._apply_keepalive(peer, 0)

    def set_own_addresses(self, addresses: Iterable[IPAddress]) -> None:
        """Our addresses in the network: the source of our pings, what answers pings without a TUN device, and from
        where no peer may send."""
        own = tuple(addresses)
        if own != self.pings.own_addresses:
            self._plane.set_own_addresses([address.packed for address in (*own, *SERVICE_ADDRESSES)])
            self.pings.own_addresses = own

    def set_filter(
        self, rules: Sequence[CompiledRule], local: Sequence[tuple[bytes, int]], *, shields_up: bool = False
    ) -> None:
        """What peers may send us, and at which prefixes; see ``_fast.filter.Filter``.

        Costs what differs from the last call. ``shields_up`` is the reason given to those who are refused. Flows go
        on when rules change, but not when the shields go up: some began with a packet that the rules before let in.
        Nor do they when nothing is served any more: the next network has nothing to do with this one.
        """
        ends = (shields_up and not self._shields_up) or not local
        self._shields_up = shields_up
        self._plane.set_rules(rules, local)
        if ends:
            self._plane.forget_flows()

    def set_via(self, routes: Iterable[IPPrefix], own: Iterable[IPAddress]) -> None:
        """The via routes (4via6) for which packets of peers are translated to IPv4, and our addresses."""
        self._plane.set_via(
            [(route.network_address.packed, route.prefixlen) for route in routes], [address.packed for address in own]
        )

    def update_peer(self, config: PeerConfig) -> None:
        """Add a peer, or change the one with this key. ValueError: the key is our own."""
        if config.node_key == self._own_public:
            raise ValueError("a node cannot be its own peer")
        peer = self._peers.get(config.node_key)
        if peer is None:
            peer = EnginePeer(config, self._plane.add_peer(config.node_key.raw))
            self._peers[config.node_key] = self._by_index[peer.index] = peer
            self._plane.set_routes(peer.index, config.allowed_ips)
            if config.jailed:
                self._plane.set_jailed(peer.index, True)
            if config.masquerade:
                self._masquerade(peer)
            if config.ipv4 is not None:
                self._plane.set_ipv4(peer.index, config.ipv4.packed)
            self._apply_keepalive(peer, 0)
            return
        old, peer.config = peer.config, config
        if old.allowed_ips is not config.allowed_ips:
            self._plane.set_routes(peer.index, config.allowed_ips)
        if old.jailed != config.jailed:
            self._plane.set_jailed(peer.index, config.jailed)
        if old.masquerade != config.masquerade:
            self._masquerade(peer)
        if old.ipv4 != config.ipv4:
            self._plane.set_ipv4(peer.index, config.ipv4.packed if config.ipv4 is not None else None)
        if old.disco_key is not None and old.disco_key != config.disco_key and peer.tunnel is not None:
            log.debug("peer_restarted", extra=kv(peer=peer.key))
            peer.tunnel.restart(self._clock.monotonic())
            self._settle(peer)
        self._apply_keepalive(peer, old.keepalive_s)

    def _masquerade(self, peer: EnginePeer) -> None:
        pairs = [(own.packed, shown.packed) for own, shown in peer.config.masquerade]
        self._plane.set_masquerade(peer.index, pairs)

    def remove_peer(self, key: NodePublic) -> None:
        """Forget a peer; an unknown key is ignored."""
        peer = self._peers.pop(key, None)
        if peer is None:
            return
        if peer in self._used:
            self._forget_tunnel(peer)
            self._used.discard(peer)
            self._live -= peer.last_handshake is not None
        del self._by_index[peer.index]
        self._plane.remove_peer(peer.index)

    def peer_index(self, key: NodePublic) -> int | None:
        """The data plane's number of a peer."""
        peer = self._peers.get(key)
        return peer.index if peer is not None else None

    def peers(self) -> list[NodePublic]:
        return list(self._peers)

    def used_peers(self) -> list[NodePublic]:
        """The peers with which there was anything to do; the counters of all others are zero."""
        return [peer.key for peer in self._used]

    @property
    def live_peers(self) -> int:
        """How many peers have handshaken."""
        return self._live

    def close(self) -> None:
        """Stop listening to the data plane; sessions in it stay."""
        self._loop.remove_reader(self._plane.event_fd)
        self._timers.close()

    # -- questions

    def peer_status(self, key: NodePublic) -> EnginePeerStatus | None:
        """None when there is no such peer."""
        peer = self._peers.get(key)
        if peer is None:
            return None
        if peer not in self._used:
            return _UNUSED
        state = self._plane.peer_state(peer.index)
        return EnginePeerStatus(
            state.rx_bytes + peer.handshake_rx_bytes,
            state.tx_bytes + peer.handshake_tx_bytes,
            peer.last_handshake,
            peer.tunnel is not None and peer.tunnel.in_use,
        )

    def counters(self) -> dict[str, int]:
        """Refused handshake messages and dropped packets by reason."""
        return dict(self._drops)

    def peer_drops(self) -> dict[NodePublic, dict[str, int]]:
        """Packets to and from each peer that were lost, by reason; peers without any are left out."""
        lost = ((peer.key, self._plane.peer_drops(peer.index)) for peer in self._peers.values())
        return {key: reasons for key, reasons in lost if reasons}

    async def ping_tsmp(self, key: NodePublic, destination: IPAddress, timeout_s: float = 10.0) -> TunnelPong | None:
        """Ping the daemon at ``destination`` through the tunnel of ``key``. None: no answer, or no such peer."""
        peer = self._peers.get(key)
        return await self.pings.tsmp(peer.index, destination, timeout_s) if peer is not None else None

    async def ping_icmp(self, key: NodePublic, destination: IPAddress, timeout_s: float = 10.0) -> TunnelPong | None:
        """Ping the host at ``destination`` through the tunnel of ``key``. None: no answer, or no such peer."""
        peer = self._peers.get(key)
        return await self.pings.icmp(peer.index, destination, timeout_s) if peer is not None else None

    def greet(self, key: NodePublic) -> None:
        """Begin a handshake with a peer although there is nothing to send: it may still hold a session that an
        earlier process had. No-op for an unknown peer."""
        peer = self._peers.get(key)
        tunnel = self._tunnel(peer) if peer is not None else None
        if peer is not None and tunnel is not None:
            tunnel.initiate(self._clock.monotonic())
            self._settle(peer)

    def connected_peers(self) -> list[NodePublic]:
        """The peers with which there is a session that can be used."""
        return [peer.key for peer in self._used if peer.tunnel is not None and peer.tunnel.current is not None]

    # -- from the network

    def receive(self, datagram: bytes, source: Source) -> None:
        """A WireGuard datagram that is no transport packet, from UDP or (source: its sender) a relay."""
        self._desk.receive(datagram, source)

    def _find_tunnel(self, public: bytes) -> Tunnel | None:
        peer = self._peers.get(NodePublic(public))
        return self._tunnel(peer) if peer is not None else None

    def _handshake_accepted(self, tunnel: Tunnel, source: Source, size: int) -> None:
        peer = self._by_tunnel[tunnel]
        peer.handshake_rx_bytes += size
        self.hooks.authenticated(peer.key, source)
        self._settle(peer)

    def _challenge(self, source: Source, cookie_reply: bytes) -> None:
        if isinstance(source, AddrPort):
            self.hooks.answer(source, cookie_reply)
        elif source in self._peers:
            self._send(source, cookie_reply)

    # -- from the data plane

    def _on_readable(self) -> None:
        work, count = WORK_PER_TURN, EVENTS_PER_TURN
        more = True
        while more and work > 0 and count > 0:
            limit = min(work, count)
            events = self._plane.drain(limit)
            more = len(events) >= limit
            count -= len(events)
            for event in events:
                work -= not _is_handshake(event)
                try:
                    self.on_event(event)
                except Exception as error:  # noqa: BLE001 - handed to the loop's handler, which logs it
                    # A fault met by one event must not cost the others, which are out of the rings by now.
                    self._loop.call_exception_handler({"message": "an event of the data plane", "exception": error})

    def on_event(self, event: tuple[Any, ...]) -> None:
        """One event of the data plane; of a peer that is gone it is ignored."""
        kind = event[0]
        if kind == ev.EV_DATAGRAM:
            _, address, port, data = event
            if _is_handshake(event):
                self.receive(data, AddrPort.unpack(address, port))
            else:
                self.hooks.datagram(address, port, data)
        elif kind == ev.EV_RELAY:
            self.hooks.relay(event[1])
        elif kind == ev.EV_SERVICE:
            reply = answer(event[1], SERVICE_ADDRESSES)
            if reply is None:
                self.hooks.service(event[1])
            else:
                self._plane.deliver(reply)
        else:
            peer = self._by_index.get(event[1])
            if peer is not None:
                self._peer_event(kind, peer, event)

    def _peer_event(self, kind: int, peer: EnginePeer, event: tuple[Any, ...]) -> None:
        if kind == ev.EV_TSMP:
            reply = self.pings.tsmp_received(peer.index, event[2])
            if reply is not None:
                self._plane.send_packet(peer.index, reply)
        elif kind == ev.EV_ECHO:
            if not self.pings.echo_received(peer.index, event[2]):
                self._plane.deliver(event[2])
        elif kind == ev.EV_LOCAL:
            self._local_packet(peer, event[2])
        elif kind == ev.EV_DENIED:
            note = reject(event[2], RejectReason.SHIELDS_UP if self._shields_up else RejectReason.ACL)
            if note is not None:
                self._plane.send_packet(peer.index, note)
        elif kind == ev.EV_ROAMED:
            self.hooks.authenticated(peer.key, AddrPort.unpack(event[2], event[3]))
        elif kind == ev.EV_SEND_ERROR:
            self.hooks.send_error(peer.key, event[2])
        else:
            self._tunnel_event(kind, peer, event)

    def _tunnel_event(self, kind: int, peer: EnginePeer, event: tuple[Any, ...]) -> None:
        tunnel, now = self._tunnel(peer), self._clock.monotonic()
        if tunnel is None:
            self._drop("no_private_key")
            return
        if kind == ev.EV_STAGED:
            # A session may have been made while the packet was on its way up.
            if not self._plane.send_staged(peer.index, [event[2]]):
                tunnel.staged(event[2], now)
        elif kind == ev.EV_ACTIVE:
            tunnel.activity(now)
            self.hooks.active(peer.key)
        elif kind == ev.EV_REKEY:
            tunnel.rekey_asked(event[2], now)
        elif kind == ev.EV_CONFIRMED:
            tunnel.confirmed(event[2], now)
        self._settle(peer)

    def _local_packet(self, peer: EnginePeer, packet: bytes) -> None:
        if self.pings.echo_received(peer.index, packet):
            return
        reply = answer(packet, self.pings.own_addresses)
        if reply is None:
            self.hooks.local(peer.key, packet)
        else:
            self._send_packet(peer.index, reply)

    # -- tunnels

    def _tunnel(self, peer: EnginePeer) -> Tunnel | None:
        """The machine of a peer, made on first use; None while we have no private key."""
        if peer.tunnel is None and self._context is not None:
            peer.tunnel = Tunnel(self._context, peer.key.raw)
            self._by_tunnel[peer.tunnel] = peer
            self._used.add(peer)
        return peer.tunnel

    def _forget_tunnel(self, peer: EnginePeer) -> None:
        self._timers.disarm(peer)
        self._give_up_waiting(peer)
        if peer.tunnel is not None:
            peer.tunnel.end()
            del self._by_tunnel[peer.tunnel]
            peer.tunnel = None
        self._plane.clear_sessions(peer.index)
        self._plane.clear_active(peer.index)

    def _timer_fired(self, peer: EnginePeer) -> None:
        if peer.tunnel is not None:
            state = self._plane.peer_state(peer.index)
            now = self._clock.monotonic()
            peer.polled = (state.last_tx, state.last_rx)
            if peer.tunnel.next is not None and peer.tunnel.next.local_index == state.current_local_index:
                peer.tunnel.confirmed(state.current_local_index, now)  # its event found the ring full
            peer.tunnel.handle_timer(now, traffic_of(state))
            self._settle(peer)

    def _settle(self, peer: EnginePeer) -> None:
        """Carry out what the tunnel wants, and arm its next timer."""
        tunnel = peer.tunnel
        if tunnel is None:
            return
        for effect in tunnel.drain():
            self._execute(peer, tunnel, effect)
        deadline = tunnel.next_timer()
        if deadline is not None:
            self._timers.arm(peer, deadline)

    def _execute(self, peer: EnginePeer, tunnel: Tunnel, effect: Effect) -> None:
        match effect:
            case SendDatagram():
                peer.handshake_tx_bytes += len(effect.data)
                self._send(peer.key, effect.data)
            case InstallSession():
                keys = effect.keys
                self._plane.install_session(
                    peer.index,
                    slot=effect.slot,
                    local_index=keys.local_index,
                    remote_index=keys.remote_index,
                    send_key=keys.send_key,
                    receive_key=keys.receive_key,
                    created=effect.created,
                    initiator=keys.initiator,
                )
            case SendKeepalive():
                self._plane.send_keepalive(peer.index)
            case FlushStaged():
                unsent = len(effect.packets) - self._plane.send_staged(peer.index, effect.packets)
                if unsent:
                    self._drop("staged_unsent", unsent)
            case ClearSessions():
                self._plane.clear_sessions(peer.index)
            case AllowActive():
                self._allow_active(peer, tunnel)
            case SessionEstablished():
                self._live += peer.last_handshake is None
                peer.last_handshake = self._clock.wall()
                log.debug("handshake_completed", extra=kv(peer=peer.key, initiator=effect.initiator))
                waiting, peer.waiting = peer.waiting, None
                for packet in waiting or ():
                    self._plane.send_packet(peer.index, packet)
                self.hooks.session(peer.key)
            case HandshakeGaveUp():
                self._give_up_waiting(peer)
                log.debug("handshake_gave_up", extra=kv(peer=peer.key, dropped=effect.dropped))
            case _:
                assert_never(effect)

    def _allow_active(self, peer: EnginePeer, tunnel: Tunnel) -> None:
        self._plane.clear_active(peer.index)
        state = self._plane.peer_state(peer.index)
        if peer.polled is not None and peer.polled != (state.last_tx, state.last_rx):
            tunnel.activity(self._clock.monotonic())  # it moved just before its event was allowed again

    def _send_packet(self, index: int, packet: bytes) -> None:
        """One packet of our own into the tunnel, when need be after a handshake."""
        peer = self._by_index.get(index)
        if peer is None or self._plane.send_packet(index, packet):
            return
        tunnel = self._tunnel(peer)
        if tunnel is None or len(peer.waiting or ()) >= MAX_WAITING_PACKETS:
            self._drop("own_packet_without_session")
            return
        peer.waiting = [*(peer.waiting or ()), packet]
        tunnel.initiate(self._clock.monotonic())
        self._settle(peer)

    # -- small steps

    def _apply_keepalive(self, peer: EnginePeer, old_s: int) -> None:
        tunnel = self._tunnel(peer) if peer.config.keepalive_s else peer.tunnel
        if tunnel is not None and peer.config.keepalive_s != old_s:
            tunnel.set_keepalive(peer.config.keepalive_s, self._clock.monotonic())
            self._settle(peer)

    def _stamp(self, peer_public: bytes) -> bytes:
        return self._stamps.next(peer_public, self._clock.wall())

    def _give_up_waiting(self, peer: EnginePeer) -> None:
        if peer.waiting:
            self._drop("own_packet_without_session", len(peer.waiting))
        peer.waiting = None

    def _drop(self, reason: str, count: int = 1) -> None:
        self._drops[reason] = self._drops.get(reason, 0) + count


def _is_handshake(event: tuple[Any, ...]) -> bool:
    return event[0] == ev.EV_DATAGRAM and 0 < message_type(event[3]) < MESSAGE_TRANSPORT
