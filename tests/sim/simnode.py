"""Engines on a simulated network, for the tests of this directory."""

from __future__ import annotations

import random

from msgspec.structs import replace

from meshd.base.addr import AddrPort, host_prefix, parse_ip
from meshd.base.keys import DiscoPublic, NodePrivate
from meshd.node.engine import Engine
from meshd.node.enginepeer import EngineHooks, PeerConfig
from meshd.testing.clock import FakeClock
from meshd.testing.fakeplane import FakePlane
from meshd.testing.loop import FakeTimeLoop
from meshd.testing.memorynet import Link, MemoryNet
from meshd.wire.ippacket import UDPDatagram, decode_ip, decode_udp, encode_udp


class Simulation:
    """A clock, a loop, a network, and the nodes on it."""

    def __init__(self, seed=1, link=None):
        self.clock = FakeClock()
        self.loop = FakeTimeLoop(self.clock)
        self.net = MemoryNet(self.clock, seed)
        self.link = link or Link()
        self.nodes = []

    def add(self, number, **options):
        node = SimNode(self, number, **options)
        self.nodes.append(node)
        return node

    def run(self, seconds):
        self.loop.run_for(seconds)

    def connect_all(self):
        for node in self.nodes:
            for peer in self.nodes:
                if peer is not node:
                    node.know(peer)

    def close(self):
        for node in self.nodes:
            node.close()
        self.loop.close()


class SimNode:
    """One node: 100.64.0.N in the mesh, 192.0.2.N on the network. ``inbox`` holds what its host received."""

    def __init__(self, simulation, number, *, userspace=False):
        self.simulation = simulation
        self.number = number
        self.address = parse_ip(f"100.64.0.{number}")
        self.inbox = []
        self.log = []
        self.socket = simulation.net.bind(
            AddrPort(parse_ip(f"192.0.2.{number}"), 41641), self._received, link=replace(simulation.link)
        )
        self.userspace = userspace
        self.private = NodePrivate.generate(random.Random(number).randbytes)
        self.boot(1)

    def boot(self, incarnation):
        self.incarnation = incarnation
        self.known = {}
        rng = random.Random(self.number * 1000 + incarnation)
        self.plane = FakePlane(
            self.simulation.clock,
            lambda address, port, data: self.socket.send(AddrPort.unpack(address, port), data),
            self.inbox.append,
            userspace=self.userspace,
        )
        self.engine = Engine(
            self.plane,
            self.simulation.loop,
            self.simulation.clock,
            self._send,
            hooks=EngineHooks(
                session=lambda key: self.log.append((self.simulation.clock.monotonic(), "session", key)),
                answer=self.socket.send,
            ),
            random=rng.randbytes,
        )
        self.engine.set_private_key(self.private)
        self.engine.set_own_addresses([self.address])

    @property
    def key(self):
        return self.private.public()

    @property
    def disco(self):
        return DiscoPublic(bytes([self.number, self.incarnation]) * 16)

    def know(self, peer, **options):
        self.known[peer.key] = peer.socket.address
        config = PeerConfig(peer.key, (host_prefix(peer.address),), peer.disco, **options)
        self.engine.update_peer(config)
        address = peer.socket.address
        index = self.engine.peer_index(peer.key)
        self.plane.set_path(index, address.ip.packed, address.port, float("inf"), 0)

    def say(self, peer, text):
        packet = encode_udp(self.address, peer.address, UDPDatagram(7, 7, text))
        self.plane.tun_write(packet)

    def heard(self):
        """The texts received since the last call."""
        texts = [decode_udp(decode_ip(packet)).data for packet in self.inbox]
        self.inbox.clear()
        return texts

    def sessions(self):
        return [when for when, what, _ in self.log if what == "session"]

    def crash_and_restart(self):
        """Come back with the same node key and nothing else."""
        self.close()
        self.boot(self.incarnation + 1)

    def close(self):
        self.engine.close()
        self.plane.close()

    def _send(self, key, datagram):
        self.socket.send(self.known[key], datagram)

    def _received(self, source, datagram):
        self.plane.receive_udp(source.ip.packed, source.port, datagram)
