"""The data plane in plain Python, for simulations: the API of ``meshd._fast.plane.Plane``, no threads.

Packets enter by ``tun_write`` (the host sends) and ``receive_udp``; they leave by the two callables given
to the constructor. Sealing is real, so two fakes understand each other and any WireGuard peer.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from struct import pack, unpack_from
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

from meshd.base.addr import IPPrefix, unpack_ip
from meshd.base.clock import Clock
from meshd.base.crypto import aead_open, aead_seal
from meshd.node.dataplane import (
    EV_ACTIVE,
    EV_CONFIRMED,
    EV_DATAGRAM,
    EV_DENIED,
    EV_ECHO,
    EV_LOCAL,
    EV_REKEY,
    EV_RELAY,
    EV_ROAMED,
    EV_SERVICE,
    EV_STAGED,
    EV_TSMP,
)

if TYPE_CHECKING:
    from meshd._fast.filter import Filter
    from meshd._fast.flow import FlowTable
    from meshd._fast.masquerade import Masquerade
    from meshd._fast.via import Via
    from meshd.core.filterprogram import CompiledRule

REJECT_AFTER_MESSAGES = 2**64 - 2**13 - 1
REKEY_AFTER_MESSAGES = 2**60
_REKEY_AFTER_S = 120.0
_REKEY_ON_RECEIVE_S = 165.0
_REJECT_AFTER_S = 180.0
_WINDOW = 8128
_VNET_HEADER = bytes(10)


class PeerState(NamedTuple):
    """Same fields as the real plane's; times are monotonic seconds, 0 = never."""

    rx_bytes: int
    tx_bytes: int
    rx_packets: int
    tx_packets: int
    last_tx_data: float
    last_rx_data: float
    last_tx: float
    last_rx: float
    owed_since: float
    unanswered_since: float
    session_created: float
    current_local_index: int


class _Session(msgspec.Struct):
    peer: int
    local_index: int
    remote_index: int
    send_key: bytes
    receive_key: bytes
    created: float
    initiator: bool
    send_counter: int = 0
    last_counter: int = -1
    seen: set[int] = msgspec.field(default_factory=set)
    rekey_asked: bool = False

    def accept(self, counter: int) -> bool:
        if counter >= REJECT_AFTER_MESSAGES or counter in self.seen or self.last_counter - counter >= _WINDOW:
            return False
        self.seen.add(counter)
        if counter > self.last_counter:
            self.last_counter = counter
            if len(self.seen) > 2 * _WINDOW:
                self.seen = {old for old in self.seen if counter - old < _WINDOW}
        return True


class _Peer(msgspec.Struct):
    key: bytes
    previous: _Session | None = None
    current: _Session | None = None
    next: _Session | None = None
    path: tuple[bytes | None, int, float, int] = (None, 0, 0.0, 0)
    jailed: bool = False
    masquerade: Masquerade | None = None
    ipv4: bytes = b""
    routes: set[IPPrefix] = msgspec.field(default_factory=set)
    bundles: bool = False
    roams: bool = False
    active: bool = False
    rx_bytes: int = 0
    tx_bytes: int = 0
    rx_packets: int = 0
    tx_packets: int = 0
    last_tx_data: float = 0.0
    last_rx_data: float = 0.0
    last_tx: float = 0.0
    last_rx: float = 0.0
    owed_since: float = 0.0
    unanswered_since: float = 0.0
    drops: Counter[str] = msgspec.field(default_factory=Counter)


class FakePlane:
    """See ``meshd._fast.plane.Plane``; ``deliver_packet`` gets plain packets for the host."""

    def __init__(
        self,
        clock: Clock,
        send_udp: Callable[[bytes, int, bytes], None],
        deliver_packet: Callable[[bytes], None],
        *,
        mtu: int = 1280,
        userspace: bool = False,
    ) -> None:
        self.event_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._clock = clock
        self._send_udp = send_udp
        self._deliver_packet = deliver_packet
        self._mtu = mtu
        self._userspace = userspace
        self._events: deque[tuple[Any, ...]] = deque()
        self._peers: dict[int, _Peer] = {}
        self._routes: dict[IPPrefix, int] = {}
        self._by_bits: list[IPPrefix] = []
        self._sessions: dict[int, _Session] = {}
        self._service: set[bytes] = set()
        self._own: set[bytes] = set()
        self._relay_frames: dict[int, bytearray] = {}
        self._watched_echo: set[int] = set()
        self._filter: Filter | None = None
        self._flows: FlowTable | None = None
        self._via: Via | None = None
        self._counters: Counter[str] = Counter()

    def start(self) -> None:
        """Nothing runs by itself here."""

    def stop(self) -> None:
        """Nothing runs by itself here."""

    def close(self) -> None:
        os.close(self.event_fd)

    # -- peers and policy

    def add_peer(self, node_public: bytes) -> int:
        index = next(i for i in range(len(self._peers) + 1) if i not in self._peers)
        self._peers[index] = _Peer(node_public)
        return index

    def remove_peer(self, peer: int) -> None:
        self.clear_sessions(peer)
        del self._peers[peer]
        for prefix in [prefix for prefix, owner in self._routes.items() if owner == peer]:
            self._leave_route(prefix, peer)

    def set_routes(self, peer: int, prefixes: Iterable[IPPrefix]) -> None:
        wanted = list(prefixes)
        for prefix in self._peers[peer].routes.difference(wanted):
            if self._routes.get(prefix) == peer:
                self._leave_route(prefix, peer)
        for prefix in wanted:
            if prefix in self._peers[peer].routes:
                continue
            if prefix not in self._routes:
                self._by_bits.append(prefix)
                self._by_bits.sort(key=lambda p: -p.prefixlen)
            self._routes[prefix] = peer
        self._peers[peer].routes = set(wanted)

    def _leave_route(self, prefix: IPPrefix, peer: int) -> None:
        heir = next((n for n, other in self._peers.items() if n != peer and prefix in other.routes), None)
        if heir is not None:
            self._routes[prefix] = heir
            return
        del self._routes[prefix]
        self._by_bits.remove(prefix)

    def set_path(self, peer: int, address: bytes | None, port: int, trusted_until: float, relay: int) -> None:
        self._peers[peer].path = (address, port, trusted_until, relay)

    def set_rules(self, rules: Sequence[CompiledRule], local: Sequence[tuple[bytes, int]]) -> None:
        """Without rules everything passes."""
        from meshd._fast.filter import Filter
        from meshd._fast.flow import FlowTable

        self._filter = Filter(rules, local)
        self._flows = self._flows or FlowTable(seed=1)

    def forget_flows(self) -> None:
        if self._flows is not None:
            self._flows.clear()

    def _refuses(self, packet: bytes, *, inbound: bool) -> bool:
        if self._filter is None or self._flows is None:
            return False
        check = self._filter.check_in if inbound else self._filter.check_out
        return check(packet, self._flows) != 0

    def set_jailed(self, peer: int, jailed: bool) -> None:
        self._peers[peer].jailed = jailed

    def set_masquerade(self, peer: int, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        from meshd._fast.masquerade import Masquerade

        self._peers[peer].masquerade = Masquerade(pairs) if pairs else None

    def set_ipv4(self, peer: int, address: bytes | None) -> None:
        self._peers[peer].ipv4 = address or b""

    def set_via(self, prefixes: Sequence[tuple[bytes, int]], own: Sequence[bytes]) -> None:
        from meshd._fast.via import Via

        self._via = Via(prefixes, own=own, flows=self._via.flows if self._via else None)

    def set_service_addresses(self, addresses: Sequence[bytes]) -> None:
        self._service = set(addresses)

    def set_own_addresses(self, addresses: Sequence[bytes]) -> None:
        self._own = set(addresses)

    def watch_echo(self, identifier: int) -> None:
        self._watched_echo.add(identifier)

    # -- sessions

    def install_session(
        self,
        peer: int,
        *,
        slot: Literal["current", "next"],
        local_index: int,
        remote_index: int,
        send_key: bytes,
        receive_key: bytes,
        created: float,
        initiator: bool,
    ) -> None:
        owner = self._peers[peer]
        owner.bundles = False
        session = _Session(peer, local_index, remote_index, send_key, receive_key, created, initiator)
        if slot == "next":
            self._forget(owner.next)
            self._forget(owner.previous)
            owner.previous, owner.next = None, session
        else:
            self._forget(owner.previous)
            if owner.next is not None:
                self._forget(owner.current)
                owner.previous, owner.next = owner.next, None
            else:
                owner.previous = owner.current
            owner.current = session
        self._sessions[local_index] = session

    def remove_session(self, local_index: int) -> None:
        session = self._sessions.get(local_index)
        if session is None:
            return
        owner = self._peers[session.peer]
        if owner.previous is session:
            owner.previous = None
        elif owner.current is session:
            owner.current = None
        elif owner.next is session:
            owner.next = None
        self._forget(session)

    def clear_sessions(self, peer: int) -> None:
        owner = self._peers[peer]
        for session in (owner.previous, owner.current, owner.next):
            self._forget(session)
        owner.previous = owner.current = owner.next = None

    def _forget(self, session: _Session | None) -> None:
        if session is not None:
            self._sessions.pop(session.local_index, None)

    def _lost(self, peer: _Peer, reason: str) -> None:
        self._counters[reason] += 1
        peer.drops[reason] += 1

    # -- outbound

    def tun_write(self, packet: bytes) -> None:
        """The host sends a packet into the tunnel."""
        destination = _addresses(packet)[1]
        if destination in self._service:
            self._event((EV_SERVICE, packet))
            return
        if self._via and not self._userspace:
            result, made = self._via.outbound(packet, mtu=self._mtu, now=self._clock.monotonic())
            if result != "plain":
                self._answer_via(result, [part for _, part in made])
                return
        peer = self._lookup(destination)
        if peer is None:
            self._counters["out_no_route"] += 1
        elif self._refuses(packet, inbound=False):
            self._lost(self._peers[peer], "out_filtered")
        elif not self._seal(peer, shown := self._shown(peer, packet)):
            self._event((EV_STAGED, peer, _VNET_HEADER + shown))

    def _answer_via(self, result: str, packets: Sequence[bytes]) -> None:
        if result not in ("whole", "parts"):
            self._counters[f"out_via_{result}"] += 1
        if result == "too_big":
            self._deliver_packet(packets[0])
            return
        for packet in packets:
            peer = self._lookup(_addresses(packet)[1])
            if peer is None:
                self._counters["out_no_route"] += 1
            elif not self._seal(peer, packet):
                self._event((EV_STAGED, peer, _VNET_HEADER + packet))

    def _shown(self, peer: int, packet: bytes) -> bytes:
        masquerade = self._peers[peer].masquerade
        return masquerade.outbound(packet) if masquerade is not None else packet

    def send_keepalive(self, peer: int) -> bool:
        return self._seal(peer, b"")

    def send_staged(self, peer: int, packets: Sequence[bytes]) -> int:
        return sum(self._seal(peer, packet[len(_VNET_HEADER) :]) for packet in packets)

    def send_packet(self, peer: int, packet: bytes) -> bool:
        return self._seal(peer, self._shown(peer, packet))

    def deliver(self, packet: bytes) -> bool:
        self._deliver_packet(packet)
        return True

    def _seal(self, index: int, packet: bytes) -> bool:
        peer, now = self._peers[index], self._clock.monotonic()
        session = peer.current
        if session is None or now - session.created >= _REJECT_AFTER_S or session.send_counter >= REJECT_AFTER_MESSAGES:
            return False
        if len(packet) <= self._mtu:
            packet_padded = packet.ljust(min(-(-len(packet) // 16) * 16, self._mtu), b"\0")
        else:
            packet_padded = packet
        counter = session.send_counter
        session.send_counter += 1
        header = pack("<IIQ", 4, session.remote_index, counter)
        sealed = header + aead_seal(session.send_key, pack("<IQ", 0, counter), packet_padded)
        self._account_sent(index, peer, now, len(sealed), bool(packet))
        self._transmit(peer, now, sealed)
        if not session.rekey_asked and (
            counter >= REKEY_AFTER_MESSAGES or (session.initiator and now - session.created >= _REKEY_AFTER_S)
        ):
            session.rekey_asked = True
            self._event((EV_REKEY, index, session.local_index))
        return True

    def _transmit(self, peer: _Peer, now: float, datagram: bytes) -> None:
        address, port, trusted_until, relay = peer.path
        if address is not None:
            self._send_udp(address, port, datagram)
        if relay and (address is None or now > trusted_until):
            frames = self._relay_frames.setdefault(relay, bytearray())
            if not frames:
                self._event((EV_RELAY, relay))
            frames += pack(">BI", 4, 32 + len(datagram)) + peer.key + datagram

    def take_relayed(self, relay: int, limit: int = 0) -> bytes:
        """Everything at once, whatever the limit: one frame may be as long."""
        return bytes(self._relay_frames.pop(relay, b""))

    # -- inbound

    def receive_udp(self, address: bytes, port: int, data: bytes) -> None:
        """A datagram arrives from the network."""
        if not self._open(data, (address, port)):
            self._event((EV_DATAGRAM, address, port, data))

    def open_from(self, packets: Sequence[bytes]) -> list[bytes]:
        return [packet for packet in packets if not self._open(packet)]

    def open_relayed(self, packets: Iterable[bytes]) -> None:
        for packet in packets:
            if not self._open(packet):
                self._counters["in_unknown"] += 1

    def set_bundles(self, peer: int, bundles: bool) -> None:
        """Remembered only: what this plane sends is never bundled."""
        self._peers[peer].bundles = bundles

    def takes_bundles(self, peer: int) -> bool:
        return self._peers[peer].bundles

    def set_roams(self, peer: int, roams: bool) -> None:
        self._peers[peer].roams = roams

    def _open(self, data: bytes, source: tuple[bytes, int] | None = None) -> bool:
        """Whether the datagram was a transport packet, good or bad."""
        if len(data) < 32 or unpack_from("<I", data)[0] != 4:
            return False
        _, index, counter = unpack_from("<IIQ", data)
        session, now = self._sessions.get(index), self._clock.monotonic()
        if session is None or now - session.created >= _REJECT_AFTER_S:
            self._counters["in_no_session"] += 1
            return True
        packet = aead_open(session.receive_key, pack("<IQ", 0, counter), data[16:])
        if packet is None:
            self._lost(self._peers[session.peer], "in_forged")
        elif not session.accept(counter):
            self._lost(self._peers[session.peer], "in_replayed")
        else:
            peer = self._peers[session.peer]
            if source is not None and peer.roams and source != peer.path[:2]:
                self._event((EV_ROAMED, session.peer, *source))
            self._authenticated(session, packet, len(data), now)
        return True

    def _authenticated(self, session: _Session, packet: bytes, size: int, now: float) -> None:
        index, peer = session.peer, self._peers[session.peer]
        if peer.next is session:
            self._forget(peer.previous)
            peer.previous, peer.current, peer.next = peer.current, session, None
            self._event((EV_CONFIRMED, index, session.local_index))
        self._account_received(index, peer, now, size, bool(packet))
        if session.initiator and not session.rekey_asked and now - session.created >= _REKEY_ON_RECEIVE_S:
            session.rekey_asked = True
            self._event((EV_REKEY, index, session.local_index))
        if packet:
            self._inbound_packet(index, peer, packet)

    def _inbound_packet(self, index: int, peer: _Peer, padded: bytes) -> None:
        length = _total_length(padded)
        if not 20 <= length <= len(padded):
            self._lost(peer, "in_malformed")
            return
        packet = padded[:length]
        source = _addresses(packet)[0]
        if self._lookup(source) != index or source in self._own:
            self._lost(peer, "in_source")
            return
        if peer.masquerade is not None:
            packet = peer.masquerade.inbound(packet)
        protocol = packet[9] if packet[0] >> 4 == 4 else packet[6]
        if protocol == 99:
            self._event((EV_TSMP, index, packet))
        elif self._is_watched_echo(packet, protocol):
            self._event((EV_ECHO, index, packet))
        elif peer.jailed or self._refuses(packet, inbound=True):
            self._lost(peer, "in_filtered")
            if protocol == 6:
                self._event((EV_DENIED, index, packet))
        elif self._userspace:
            self._event((EV_LOCAL, index, packet))
        else:
            self._deliver_inbound(peer, index, packet)

    def _deliver_inbound(self, peer: _Peer, index: int, packet: bytes) -> None:
        if self._via:
            now = self._clock.monotonic()
            if self._via.clashes(packet, now=now):
                self._lost(peer, "in_via_no_port")
                return
            result, packet = self._via.inbound(packet, peer.ipv4, peer=index, mtu=self._mtu, now=now)
            if result not in ("done", "other"):
                self._lost(peer, f"in_via_{result}")
                return
        self._deliver_packet(packet)

    def _is_watched_echo(self, packet: bytes, protocol: int) -> bool:
        at, reply = ((packet[0] & 15) * 4, 0) if packet[0] >> 4 == 4 else (40, 129)
        if protocol != (1 if reply == 0 else 58) or len(packet) < at + 8 or packet[at] != reply:
            return False
        return int.from_bytes(packet[at + 4 : at + 6], "big") in self._watched_echo

    # -- state

    def peer_state(self, peer: int) -> PeerState:
        p = self._peers[peer]
        return PeerState(
            p.rx_bytes,
            p.tx_bytes,
            p.rx_packets,
            p.tx_packets,
            p.last_tx_data,
            p.last_rx_data,
            p.last_tx,
            p.last_rx,
            p.owed_since,
            p.unanswered_since,
            p.current.created if p.current else 0.0,
            p.current.local_index if p.current else 0,
        )

    def peer_drops(self, peer: int) -> dict[str, int]:
        return dict(self._peers[peer].drops)

    def clear_active(self, peer: int) -> None:
        self._peers[peer].active = False

    def counters(self) -> dict[str, int]:
        return dict(self._counters)

    def drain(self, limit: int = 256) -> list[tuple[Any, ...]]:
        events = [self._events.popleft() for _ in range(min(limit, len(self._events)))]
        if not self._events and events:
            os.eventfd_read(self.event_fd)
        return events

    def _event(self, event: tuple[Any, ...]) -> None:
        if not self._events:
            os.eventfd_write(self.event_fd, 1)
        self._events.append(event)

    def _lookup(self, address: bytes) -> int | None:
        ip = unpack_ip(address)
        for prefix in self._by_bits:
            if ip.version == prefix.version and ip in prefix:
                return self._routes[prefix]
        return None

    def _account_sent(self, index: int, peer: _Peer, now: float, size: int, data: bool) -> None:
        peer.tx_bytes += size
        peer.tx_packets += 1
        peer.last_tx = now
        peer.owed_since = 0.0
        if data:
            peer.last_tx_data = now
            peer.unanswered_since = peer.unanswered_since or now
        self._mark_active(index, peer)

    def _account_received(self, index: int, peer: _Peer, now: float, size: int, data: bool) -> None:
        peer.rx_bytes += size
        peer.rx_packets += 1
        peer.last_rx = now
        peer.unanswered_since = 0.0
        if data:
            peer.last_rx_data = now
            peer.owed_since = peer.owed_since or now
        self._mark_active(index, peer)

    def _mark_active(self, index: int, peer: _Peer) -> None:
        if not peer.active:
            peer.active = True
            self._event((EV_ACTIVE, index))


def _addresses(packet: bytes) -> tuple[bytes, bytes]:
    if packet[0] >> 4 == 4:
        return packet[12:16], packet[16:20]
    return packet[8:24], packet[24:40]


def _total_length(packet: bytes) -> int:
    if packet[0] >> 4 == 4 and len(packet) >= 20:
        return int.from_bytes(packet[2:4], "big")
    if packet[0] >> 4 == 6 and len(packet) >= 40:
        return int.from_bytes(packet[4:6], "big") + 40
    return 0
