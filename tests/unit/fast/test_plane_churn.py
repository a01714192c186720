"""Peers, sessions, filters, routes and sockets come and go while packets flow both ways.

Ordinary builds show crashes and mixed-up keys; the sanitizer build shows every use of freed memory.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from random import Random

import pytest

from meshd._fast import udpio
from meshd._fast.aead import Cipher
from meshd._fast.filter import Filter
from meshd._fast.plane import EV_DATAGRAM
from tests.unit.fast.packets import B4, ipv4, udp
from tests.unit.fast.planepair import LOOPBACK, PLAIN_HEADER, Node, allow_all, reuseport_sockets

PEERS = 8
ROUNDS = int(os.environ.get("MESHD_CHURN_ROUNDS", "1500"))
RECEIVE_KEY = bytes(range(32))


def address_of(slot: int) -> bytes:
    return bytes((100, 64, 1, slot))


class Churn:
    """The plane's owner, as restless as it can be; every session sends under a key of its own."""

    def __init__(self, seed: int, threads: int) -> None:
        self.random = Random(seed)
        self.node = Node(receivers=threads, queues=threads)
        self.plane = self.node.plane
        self.far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.far.bind(("127.0.0.1", 0))
        self.far.setblocking(False)
        self.attackers = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(8)]
        self.cipher = Cipher()
        self.keys: dict[int, bytes] = {}  # by the index that our messages carry
        self.live: list[list[int]] = [[] for _ in range(PEERS)]
        self.peers = [self.add(slot) for slot in range(PEERS)]
        self.stopping = False
        self.nonces: dict[tuple[int, int], int] = {}
        self.wrong: list[str] = []

    def add(self, slot: int) -> int:
        peer = self.plane.add_peer(bytes((slot,)) * 32)
        self.plane.add_route(peer, address_of(slot), 32)
        self.plane.set_path(peer, LOOPBACK, self.far.getsockname()[1], 1e9, 0)
        return peer

    def install(self, slot: int) -> None:
        random, index = self.random, len(self.keys) + 1
        self.keys[index] = random.randbytes(32)
        self.plane.install_session(
            self.peers[slot],
            slot=random.choice(("current", "current", "next")),
            local_index=index,
            remote_index=index,
            send_key=self.keys[index],
            receive_key=RECEIVE_KEY,
            created=time.monotonic() - random.choice((0, 0, 121, 166, 179.99)),
            initiator=random.random() < 0.5,
        )
        self.live[slot] = [*self.live[slot][-3:], index]

    def change(self) -> None:
        random, plane = self.random, self.plane
        slot = random.randrange(PEERS)
        peer = self.peers[slot]
        match random.randrange(15):
            case 0 | 1 | 2 | 3:
                self.install(slot)
            case 4:
                plane.remove_peer(peer)
                self.peers[slot] = self.add(slot)
            case 5:
                plane.clear_sessions(peer)
            case 6 if self.live[slot]:
                plane.remove_session(random.choice(self.live[slot]))
            case 7:
                plane.set_filter(random.choice((allow_all(), Filter((), [(B4, 32)]))))
            case 12 | 13 | 14:
                self.change_rules()
            case 8:
                plane.set_jailed(peer, random.random() < 0.5)
                plane.set_service_addresses([address_of(200)] * random.randrange(3))
                plane.set_own_addresses([address_of(201)] * random.randrange(3))
                plane.forget_flows()
            case 9:
                plane.add_route(peer, address_of(random.randrange(PEERS)), random.choice((24, 32)))
                plane.remove_route(address_of(random.randrange(PEERS)), random.choice((24, 32)))
                plane.add_route(peer, address_of(slot), 32)
            case 10:
                relay = random.choice((0, 1, 2))
                plane.set_path(peer, LOOPBACK, self.far.getsockname()[1], random.choice((0.0, 1e9)), relay)
            case 11 if random.random() < 0.2:
                self.move_socket()

    def change_rules(self) -> None:
        """Rules that let some of the peers in, for the program that is being read."""
        random = self.random
        some = [address_of(slot) for slot in range(PEERS) if random.random() < 0.5]
        port = random.randrange(1, 4)
        rules = [((tuple((a, a) for a in some)), ((B4, B4, 0, port),), (17,))]
        if random.random() < 0.3:
            rules.append((((bytes(4), b"\xff" * 4),), ((B4, B4, 2, 2),), (6, 17)))
        self.plane.set_rules(rules, [(B4, 32)])

    def move_socket(self) -> None:
        fresh = reuseport_sockets(self.random.randint(1, len(self.node.udps)))
        self.plane.set_udp([sock.fileno() for sock in fresh], -1)
        for sock in self.node.udps:
            sock.close()
        self.node.udps[: len(fresh)], self.node.port = fresh, fresh[0].getsockname()[1]

    def attack(self, counter: int) -> None:
        """A burst for sessions that are in use, just gone, or on their way out."""
        slot = self.random.randrange(PEERS)
        if not self.live[slot]:
            return
        packet = ipv4(17, udp(1, 2, bytes(64)), address_of(slot), B4)
        burst = [
            self.cipher.seal_transport(packet, self.random.choice(self.live[slot]), counter * 64 + i, RECEIVE_KEY)
            for i in range(32)
        ]
        if self.random.random() < 0.5:
            # Halves of one burst from two addresses: two receivers may open packets of one session at once.
            for half, source in zip((burst[:16], burst[16:]), self.random.sample(self.attackers, 2), strict=True):
                udpio.send(source.fileno(), LOOPBACK, self.node.port, b"".join(half), len(half[0]))
        else:
            self.plane.open_from(burst)

    def host(self) -> None:
        """Another thread: what the host sends, and reading both ends."""
        records = [PLAIN_HEADER + ipv4(17, udp(3, 4, bytes(200)), B4, address_of(slot)) for slot in range(PEERS)]
        while not self.stopping:
            for end in self.node.hosts:
                with suppress(BlockingIOError):
                    for record in records:
                        end.send(record)
                with suppress(BlockingIOError):
                    while True:
                        end.recv(70000)
            with suppress(BlockingIOError):
                while True:
                    self.check(self.far.recv(70000))

    def check(self, datagram: bytes) -> None:
        index, counter = int.from_bytes(datagram[4:8], "little"), int.from_bytes(datagram[8:16], "little")
        if self.nonces.setdefault((index, counter), hash(datagram)) != hash(datagram):
            self.wrong.append(f"counter {counter} of session {index} was used twice")
        elif Cipher().open_transport(datagram, self.keys[index]) is None:
            self.wrong.append(f"a message of session {index} is sealed with another key")

    def run(self) -> None:
        for slot in range(PEERS):
            self.install(slot)
        self.plane.start()
        host = threading.Thread(target=self.host)
        host.start()
        try:
            for turn in range(ROUNDS):
                self.change()
                self.attack(turn)
                for event in self.plane.drain(1024):
                    assert event[0] != EV_DATAGRAM
                for relay in (1, 2):
                    self.plane.take_relayed(relay)
        finally:
            self.stopping = True
            host.join()
            self.node.close()
            for sock in (self.far, *self.attackers):
                sock.close()


@pytest.mark.parametrize("threads", [1, 3])
def test_plane_changes_under_traffic_keep_keys_and_counters_apart(threads: int) -> None:
    """PF-12."""
    churn = Churn(7, threads)
    churn.run()
    counts = churn.plane.counters()
    assert churn.wrong == []
    assert len(churn.nonces) > 100
    assert counts["tun_writes"] > 10
    assert counts["in_forged"] == 0
