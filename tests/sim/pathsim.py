"""Whole nodes (engine and paths) on a simulated internet with NATs, a STUN server and a relay."""

from __future__ import annotations

import random

from msgspec.structs import replace

from meshd._fast.derpframes import split_frames
from meshd.base.addr import AddrPort, host_prefix, parse_ip
from meshd.base.keys import NodePrivate
from meshd.core.derpclient import PacketsReceived
from meshd.node.engine import Engine
from meshd.node.enginepeer import EngineHooks, PeerConfig
from meshd.node.magicsock import MagicSock, PathPeer
from meshd.testing.clock import FakeClock
from meshd.testing.fakeplane import FakePlane
from meshd.testing.loop import FakeTimeLoop
from meshd.testing.memorynet import Link, MemoryNet, Nat
from meshd.wire import stun
from meshd.wire.control import DERPMap, DERPNode, DERPRegion
from meshd.wire.derp import FrameReader, encode_recv_packet
from meshd.wire.ippacket import UDPDatagram, encode_udp

RELAY_DELAY_S = 0.050
STUN = AddrPort(parse_ip("198.51.100.1"), 3478)
REGION = 900


def derp_map():
    node = DERPNode(name="900a", region_id=REGION, host_name="198.51.100.1", ipv4="198.51.100.1", ipv6="none")
    return DERPMap(regions={REGION: DERPRegion(region_id=REGION, region_code="sim", nodes=(node,))})


async def unreachable(region):
    raise ConnectionError("no HTTPS in this simulation")


class PathSimulation:
    """The internet of one test. ``relayed`` counts packets through the relay."""

    def __init__(self, seed=1, relay_delay_s=RELAY_DELAY_S):
        self.clock = FakeClock()
        self.loop = FakeTimeLoop(self.clock)
        self.net = MemoryNet(self.clock, seed)
        self.relay_delay_s = relay_delay_s
        self.links = {}
        self.relayed = 0
        self.nodes = []
        self.stun = self.net.bind(STUN, self._stun_request)

    def _stun_request(self, source, data):
        self.stun.send(source, stun.encode_response(stun.decode_request(data), source))

    def relay(self, source, destination, packet):
        self.relayed += 1
        target = self.links.get(destination)
        if target is not None:
            self.clock.call_later(self.relay_delay_s, target.deliver, source, packet)

    def add(self, number, **options):
        self.nodes.append(PathNode(self, number, **options))
        return self.nodes[-1]

    def pair(self, first=None, second=None):
        a, b = self.add(1, **(first or {})), self.add(2, **(second or {}))
        self.run(1.0)
        a.know(b)
        b.know(a)
        return a, b

    def run(self, seconds):
        self.loop.run_for(seconds)

    def until(self, condition, seconds):
        """Seconds until a condition holds, or None."""
        started = self.clock.monotonic()
        while self.clock.monotonic() - started < seconds:
            if condition():
                return self.clock.monotonic() - started
            self.run(0.01)
        return None

    def close(self):
        for node in self.nodes:
            node.close()
        self.loop.close()


class SimLinks:
    """The interface of ``RelayLinks`` over the simulation's relay."""

    def __init__(self, simulation, owner):
        self.simulation = simulation
        self.owner = owner
        self.key = None
        self.up = True

    def set_key(self, key):
        self.key = key.public().raw if key is not None else None
        if self.key is not None:
            self.simulation.links[self.key] = self

    def set_map(self, relays):
        pass

    def set_home(self, region):
        pass

    def send(self, region, destination, packet):
        if self.up:
            self.simulation.relay(self.key, destination, packet)
        return True

    def wake(self, region):
        for _, body in FrameReader().feed(self.owner.magic.take_relayed(region)):
            self.send(region, body[:32], body[32:])

    def deliver(self, source, packet):
        if not self.up:
            return
        found = split_frames(encode_recv_packet(source, packet))
        self.owner.magic.relay_packets(REGION, PacketsReceived(found.transport, found.others, found.sources))

    def is_open(self, region):
        return self.up

    def open_regions(self):
        return [REGION] if self.up else []

    def last_frame_at(self, region):
        return self.simulation.clock.monotonic()

    def link_changed(self):
        pass

    def close(self):
        self.simulation.links.pop(self.key, None)


class SimSockets:
    """The interface of ``UdpSockets`` over the simulated network."""

    def __init__(self, node):
        self.node = node
        self.port_v4, self.port_v6, self.fds_v4, self.fds_v6, self.per_port = 41641, 0, (), (), 1
        self.errors = {}

    def send(self, data, to):
        if to.ip.version != 4:
            return 97
        if to.ip in self.errors:
            return self.errors[to.ip]
        self.node.socket.send(to, data)
        return 0

    def close(self):
        pass


class PathNode:
    """100.64.0.N in the mesh. ``nat`` puts it at 10.0.N.2 behind a router, else it has 192.0.2.N itself."""

    def __init__(self, simulation, number, *, nat=None, link=None, udp=True):
        self.simulation = simulation
        self.number = number
        self.udp = udp
        self.inbox = []
        self.endpoints = ()
        self.known = []
        self.address = parse_ip(f"100.64.0.{number}")
        self.private = NodePrivate.generate(random.Random(number).randbytes)
        self.nat = Nat(parse_ip(f"203.0.113.{number}"), nat) if nat is not None else None
        self.link = link or Link()
        self.local = parse_ip(f"10.0.{number}.2" if nat is not None else f"192.0.2.{number}")
        self.attach()
        self.boot(1)

    def attach(self):
        self.socket = self.simulation.net.bind(
            AddrPort(self.local, 41641), self._received, link=replace(self.link), nat=self.nat
        )

    def boot(self, incarnation):
        simulation, rng = self.simulation, random.Random(self.number * 100 + incarnation)
        self.sockets = SimSockets(self)
        self.plane = FakePlane(simulation.clock, self._send, self.inbox.append)
        self.plane.set_udp = lambda *_: None
        hooks = EngineHooks()
        self.engine = Engine(
            self.plane, simulation.loop, simulation.clock, lambda k, d: self.magic.send(k, d), hooks=hooks,
            random=rng.randbytes,
        )  # fmt: skip
        self.links = SimLinks(simulation, self)
        self.magic = MagicSock(
            self.plane,
            simulation.loop,
            simulation.clock,
            self.sockets,
            peer_index=self.engine.peer_index,
            on_endpoints=lambda found: setattr(self, "endpoints", tuple(e.addr for e in found)),
            on_handshake=self.engine.receive,
            random=rng.randbytes,
            local_addresses=lambda: [self.local],
            links=self.links,
            reopen=lambda port: self.sockets,
            measure=unreachable,
        )
        hooks.datagram = self.magic.receive_datagram
        hooks.relay = self.magic.relay_wake
        hooks.active = self.magic.peer_active
        hooks.send_error = self.magic.send_error
        self.engine.set_private_key(self.private)
        self.magic.set_private_key(self.private)
        self.magic.set_derp_map(derp_map())

    @property
    def key(self):
        return self.private.public()

    def _send(self, address, port, data):
        self.sockets.send(data, AddrPort.unpack(address, port))

    def _received(self, source, data):
        if self.udp:
            self.plane.receive_udp(source.ip.packed, source.port, data)

    def know(self, other):
        """As if control had told about the other node just now."""
        self.magic.update_peer(PathPeer(other.key, other.magic.disco_public, REGION, other.endpoints))
        self.engine.update_peer(PeerConfig(other.key, (host_prefix(other.address),), other.magic.disco_public))

    def send(self, other, text):
        self.plane.tun_write(encode_udp(self.address, other.address, UDPDatagram(7, 7, text)))

    def got(self):
        """Payloads received since the last call."""
        texts = [packet[28:] for packet in self.inbox]
        self.inbox.clear()
        return texts

    def direct(self, other):
        """The address packets to the other node take alone, or None."""
        status = self.magic.status(other.key)
        return status.address if status is not None else None

    def move(self, local):
        """The host comes up in another network."""
        self.socket.close()
        self.local = parse_ip(local)
        self.attach()
        self.magic.link_changed()

    def restart(self):
        """A new process with the same node key."""
        self.shut()
        self.boot(2)

    def shut(self):
        self.engine.close()
        self.magic.close()
        self.plane.close()

    def close(self):
        self.shut()
