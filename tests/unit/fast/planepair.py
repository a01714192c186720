"""Two data planes joined by UDP on LOOPBACK, with socket pairs in place of TUN devices."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from meshd._fast.aead import Cipher
from meshd._fast.filter import Filter
from meshd._fast.plane import Plane
from tests.unit.fast.packets import A4, B4

LOOPBACK = bytes([127, 0, 0, 1])
KEY_AB = bytes(range(32))
KEY_BA = bytes(range(100, 132))
PLAIN_HEADER = bytes(10)
EVERYBODY = (bytes(4), b"\xff" * 4)
EVERYBODY6 = (bytes(16), b"\xff" * 16)
ALL_PROTOCOLS = [1, 6, 17, 58]


def allow_all() -> Filter:
    return Filter(
        [
            ([EVERYBODY], [(*EVERYBODY, 0, 65535)], ALL_PROTOCOLS),
            ([EVERYBODY6], [(*EVERYBODY6, 0, 65535)], ALL_PROTOCOLS),
        ],
        [(bytes(4), 0), (bytes(16), 0)],
    )


def sealed(packet: bytes, counter: int, index: int = 0xB0, key: bytes = KEY_AB) -> bytes:
    """A transport message from a to b."""
    return Cipher().seal_transport(packet, index, counter, key, 1280)


def reuseport_sockets(count: int) -> list[socket.socket]:
    """So many on one port of LOOPBACK, among which the kernel divides the senders."""
    made: list[socket.socket] = []
    for _ in range(count):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.setblocking(False)
        if count > 1:
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        udp.bind(("127.0.0.1", made[0].getsockname()[1] if made else 0))
        made.append(udp)
    return made


class Node:
    """One plane, its UDP socket, and the host's end of its TUN."""

    def __init__(self, *, userspace: bool = False, queues: int = 1, receivers: int = 1, **options: Any) -> None:
        self.udps = reuseport_sockets(receivers)
        self.udp = self.udps[0]
        self.port: int = self.udp.getsockname()[1]
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(queues)]
        self.hosts, self.tuns = [host for host, _ in pairs], [tun for _, tun in pairs]
        self.host, self.tun = pairs[0]
        for end in (*self.hosts, *self.tuns):
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        fds = [] if userspace else [tun.fileno() for tun in self.tuns]
        self.plane = Plane(tun_fds=fds, udp4_fd=[udp.fileno() for udp in self.udps], udp6_fd=-1, **options)
        self.plane.set_filter(allow_all())
        self.held: list[tuple[Any, ...]] = []

    def close(self) -> None:
        self.plane.stop()
        for end in (self.udp, *self.udps, *self.hosts, *self.tuns):
            end.close()

    def write(self, packet: bytes, header: bytes = PLAIN_HEADER) -> None:
        """The host sends a packet into the tunnel."""
        self.host.send(header + packet)

    def read(self, timeout_s: float = 5.0) -> bytes:
        """What the tunnel gave the host: header and packet."""
        if not select.select([self.host], [], [], timeout_s)[0]:
            raise TimeoutError("nothing came out of the tunnel")
        return self.host.recv(70000)

    def nothing(self, timeout_s: float = 0.05) -> bool:
        return not select.select([self.host], [], [], timeout_s)[0]

    def event(self, kind: int, timeout_s: float = 5.0) -> tuple[Any, ...]:
        """The next event of a kind; others are held for later."""
        deadline = time.monotonic() + timeout_s
        while True:
            for position, event in enumerate(self.held):
                if event[0] == kind:
                    return self.held.pop(position)
            rest = deadline - time.monotonic()
            if rest <= 0 or not select.select([self.plane.event_fd], [], [], rest)[0]:
                raise TimeoutError(f"no event {kind}")
            self.held += self.plane.drain()

    def counted(self, name: str, least: int = 1, timeout_s: float = 5.0) -> int:
        """Wait until a counter has grown."""
        deadline = time.monotonic() + timeout_s
        while (count := self.plane.counters()[name]) < least:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name} is {count}: {self.plane.counters()}")
            time.sleep(0.001)
        return count


class Pair:
    """Nodes a and b with one session between them; peer 0 is the other one on both."""

    def __init__(self, a: Node, b: Node) -> None:
        self.a, self.b = a, b
        self.peer_of_a = a.plane.add_peer(b"B" * 32)
        self.peer_of_b = b.plane.add_peer(b"A" * 32)
        a.plane.add_route(self.peer_of_a, B4, 32)
        b.plane.add_route(self.peer_of_b, A4, 32)
        self.connect()

    def connect(self, relay: int = 0, trusted_until: float = 1e8) -> None:
        self.a.plane.set_path(self.peer_of_a, LOOPBACK, self.b.port, trusted_until, relay)
        self.b.plane.set_path(self.peer_of_b, LOOPBACK, self.a.port, trusted_until, relay)

    def session(
        self, *, responder_slot: str = "current", created: float | None = None, index: int = 0, **extra: Any
    ) -> None:
        created = time.monotonic() if created is None else created
        self.a.plane.install_session(
            self.peer_of_a,
            slot="current",
            local_index=0xA0 + index,
            remote_index=0xB0 + index,
            send_key=KEY_AB,
            receive_key=KEY_BA,
            created=created,
            initiator=True,
            **extra,
        )
        self.b.plane.install_session(
            self.peer_of_b,
            slot=responder_slot,
            local_index=0xB0 + index,
            remote_index=0xA0 + index,  # type: ignore
            send_key=KEY_BA,
            receive_key=KEY_AB,
            created=created,
            initiator=False,
        )


def send_raw(nodes: Pair, datagram: bytes) -> None:
    """To b, from a's socket."""
    nodes.a.udp.sendto(datagram, ("127.0.0.1", nodes.b.port))


@contextmanager
def pair(*, session: bool = True, start: bool = True, userspace: bool = False, **options: Any) -> Iterator[Pair]:
    a, b = Node(**options), Node(userspace=userspace, **options)
    try:
        made = Pair(a, b)
        if session:
            made.session()
        if start:
            a.plane.start()
            b.plane.start()
        yield made
    finally:
        a.close()
        b.close()
