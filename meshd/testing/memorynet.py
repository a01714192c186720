"""A network in memory: UDP between simulated hosts, with delay, loss, reordering, MTU and NAT.

Seeded, and driven by a ``FakeClock``: the same seed gives the same run.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from enum import Enum

import msgspec

from meshd.base.addr import AddrPort, IPAddress
from meshd.testing.clock import FakeClock

Receiver = Callable[[AddrPort, bytes], None]


class NatKind(Enum):
    """Who may send to a mapping, and whether it depends on the destination (RFC 4787)."""

    FULL_CONE = "full cone"  # one mapping, anybody may send to it
    RESTRICTED = "address restricted"  # one mapping, addresses that were sent to
    PORT_RESTRICTED = "port restricted"  # one mapping, address and port that were sent to
    SYMMETRIC = "symmetric"  # a mapping per destination, which alone may answer


class Link(msgspec.Struct):
    """What happens to datagrams on the way; applies to everything a host sends and receives."""

    delay_s: float = 0.005
    jitter_s: float = 0.0  # uniformly added to the delay, so that datagrams overtake each other
    loss: float = 0.0  # probability
    duplicate: float = 0.0  # probability
    mtu: int = 1500
    up: bool = True


class Nat(msgspec.Struct):
    """A router with one public address. Mappings die after ``timeout_s`` without an outbound datagram."""

    public: IPAddress
    kind: NatKind = NatKind.PORT_RESTRICTED
    timeout_s: float = 30.0
    next_port: int = 20000
    _by_inner: dict[tuple[AddrPort, AddrPort | None], int] = msgspec.field(default_factory=dict)
    _by_port: dict[int, _Mapping] = msgspec.field(default_factory=dict)

    def outbound(self, inner: AddrPort, to: AddrPort, now: float) -> AddrPort:
        """The public source of a datagram that leaves."""
        key = (inner, to if self.kind is NatKind.SYMMETRIC else None)
        port = self._by_inner.get(key)
        if port is None or now - self._by_port[port].used > self.timeout_s:
            if port is not None:
                del self._by_port[port]
            port = self._by_inner[key] = self.next_port
            self.next_port += 1
            self._by_port[port] = _Mapping(inner, now)
        mapping = self._by_port[port]
        mapping.used = now
        mapping.allowed.add(to)
        return AddrPort(self.public, port)

    def reboot(self) -> None:
        """Forget every mapping; the new ones get other ports."""
        self._by_inner.clear()
        self._by_port.clear()

    def inbound(self, port: int, source: AddrPort, now: float) -> AddrPort | None:
        """Where a datagram to a public port goes inside; None when it is refused."""
        mapping = self._by_port.get(port)
        if mapping is None or now - mapping.used > self.timeout_s:
            return None
        if self.kind is NatKind.FULL_CONE:
            return mapping.inner
        if self.kind is NatKind.RESTRICTED:
            return mapping.inner if any(source.ip == to.ip for to in mapping.allowed) else None
        return mapping.inner if source in mapping.allowed else None


class _Mapping(msgspec.Struct):
    inner: AddrPort
    used: float
    allowed: set[AddrPort] = msgspec.field(default_factory=set)


class Socket:
    """A bound UDP socket of a simulated host."""

    __slots__ = ("_net", "address", "link", "nat", "receiver")

    def __init__(self, net: MemoryNet, address: AddrPort, receiver: Receiver, link: Link, nat: Nat | None) -> None:
        self._net = net
        self.address = address
        self.receiver = receiver
        self.link = link
        self.nat = nat

    def send(self, to: AddrPort, data: bytes) -> None:
        self._net.transmit(self, to, data)

    def close(self) -> None:
        self._net.unbind(self)


class MemoryNet:
    """Connects sockets. ``sent``, ``lost`` and ``refused`` count datagrams; ``tap`` sees all that are sent."""

    def __init__(self, clock: FakeClock, seed: int = 0) -> None:
        self.clock = clock
        self.sent = 0
        self.lost = 0
        self.refused = 0
        self.tap: Callable[[AddrPort, AddrPort, bytes], bool] | None = None  # False swallows the datagram
        self._random = random.Random(seed)
        self._sockets: dict[AddrPort, Socket] = {}
        self._nats: dict[IPAddress, Nat] = {}

    def bind(
        self, address: AddrPort, receiver: Receiver, *, link: Link | None = None, nat: Nat | None = None
    ) -> Socket:
        """A socket at ``address`` (inside ``nat`` when there is one). ValueError when it is taken."""
        if address in self._sockets:
            raise ValueError(f"{address} is taken")
        socket = self._sockets[address] = Socket(self, address, receiver, link or Link(), nat)
        if nat is not None:
            self._nats[nat.public] = nat
        return socket

    def unbind(self, socket: Socket) -> None:
        self._sockets.pop(socket.address, None)

    def transmit(self, sender: Socket, to: AddrPort, data: bytes) -> None:
        """One datagram on its way; used by ``Socket.send``."""
        self.sent += 1
        now = self.clock.monotonic()
        behind_same = sender.nat is not None and self._nat_of(to) is sender.nat
        source = sender.address
        if sender.nat is not None and not behind_same:
            source = sender.nat.outbound(sender.address, to, now)
        if self.tap is not None and not self.tap(source, to, data):
            self.lost += 1
            return
        if not self._passes(sender.link, data):
            self.lost += 1
            return
        for _ in range(2 if self._random.random() < sender.link.duplicate else 1):
            delay = sender.link.delay_s + self._random.random() * sender.link.jitter_s
            self.clock.call_later(delay, self._arrive, source, to, data, behind_same)

    def _nat_of(self, address: AddrPort) -> Nat | None:
        socket = self._sockets.get(address)
        return socket.nat if socket is not None else None

    def _passes(self, link: Link, data: bytes) -> bool:
        return link.up and len(data) + 48 <= link.mtu and self._random.random() >= link.loss

    def _arrive(self, source: AddrPort, to: AddrPort, data: bytes, inside: bool) -> None:
        target: AddrPort | None = to
        nat = self._nats.get(to.ip)
        if nat is not None:
            target = nat.inbound(to.port, source, self.clock.monotonic())
        socket = self._sockets.get(target) if target is not None else None
        if socket is None or (socket.nat is not None and nat is None and not inside):
            self.refused += 1
            return
        if not self._passes(socket.link, data):
            self.lost += 1
            return
        delay = socket.link.delay_s + self._random.random() * socket.link.jitter_s
        self.clock.call_later(delay, self._deliver, socket, source, data)

    def _deliver(self, socket: Socket, source: AddrPort, data: bytes) -> None:
        if self._sockets.get(socket.address) is socket:
            socket.receiver(source, data)
