"""A node on loopback with everything below the backend: engine, paths, a data plane in Python."""

from __future__ import annotations

import asyncio
import socket

from meshd.base.addr import AddrPort, host_prefix, parse_ip
from meshd.base.keys import NodePrivate
from meshd.io.systemclock import SystemClock
from meshd.io.udp import UdpSockets
from meshd.node.engine import Engine
from meshd.node.enginepeer import EngineHooks, PeerConfig
from meshd.node.magicsock import MagicSock, PathPeer
from meshd.node.pathswitches import NOTHING_FORBIDDEN
from meshd.testing.fakeplane import FakePlane
from meshd.wire.ippacket import UDPDatagram, encode_udp


def loopback_socket():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind(("127.0.0.1", 0))
    return sock


class PathHost:
    """Node ``number``: 100.64.0.N in the mesh. ``deaf`` to UDP: nothing that arrives is read."""

    def __init__(self, number, *, deaf=False, switches=NOTHING_FORBIDDEN, fixed_port=0):
        self.number = number
        self.deaf = deaf
        self.loop = asyncio.get_running_loop()
        self.address = parse_ip(f"100.64.0.{number}")
        self.private = NodePrivate.generate()
        self.inbox = asyncio.Queue()
        self.endpoints = []
        self.netinfo = []
        self.sockets = UdpSockets(loopback_socket(), None)
        clock = SystemClock()
        self.plane = FakePlane(clock, self._send_udp, self.inbox.put_nowait)
        self.plane.set_udp = lambda *_: None
        self.hooks = EngineHooks()
        self.engine = Engine(self.plane, self.loop, clock, lambda k, d: self.magic.send(k, d), hooks=self.hooks)
        self.magic = MagicSock(
            self.plane,
            self.loop,
            clock,
            self.sockets,
            peer_index=self.engine.peer_index,
            on_endpoints=self._set_endpoints,
            on_netinfo=self.netinfo.append,
            on_handshake=self.engine.receive,
            local_addresses=lambda: [parse_ip("127.0.0.1")],
            mark=False,
            switches=switches,
            fixed_port=fixed_port,
            reopen=lambda port: UdpSockets(loopback_socket(), None),
        )
        self.hooks.datagram = self.magic.receive_datagram
        self.hooks.relay = self.magic.relay_wake
        self.hooks.active = self.magic.peer_active
        self.hooks.authenticated = self.magic.peer_authenticated
        self.hooks.answer = self.magic.send_to
        self.loop.add_reader(self.sockets.v4.fileno(), self._readable)
        self.engine.set_private_key(self.private)
        self.magic.set_private_key(self.private)

    @property
    def key(self):
        return self.private.public()

    def _set_endpoints(self, endpoints):
        self.endpoints = [endpoint.addr for endpoint in endpoints]

    def _send_udp(self, address, port, data):
        self.sockets.send(data, AddrPort.unpack(address, port))

    def _readable(self):
        while True:
            try:
                data, (host, port) = self.sockets.v4.recvfrom(65536)
            except BlockingIOError:
                return
            if not self.deaf:
                self.plane.receive_udp(socket.inet_aton(host), port, data)

    def know(self, other, *, endpoints=None, home=None):
        self.magic.update_peer(
            PathPeer(
                other.key,
                other.magic.disco_public,
                other.magic.home_relay if home is None else home,
                tuple(other.endpoints if endpoints is None else endpoints),
            )
        )
        self.engine.update_peer(PeerConfig(other.key, (host_prefix(other.address),), other.magic.disco_public))

    def know_wireguard_only(self, other, *endpoints):
        self.magic.update_peer(PathPeer(other.key, None, 0, endpoints, wireguard_only=True))
        self.engine.update_peer(PeerConfig(other.key, (host_prefix(other.address),)))

    @property
    def udp_address(self):
        return AddrPort(parse_ip("127.0.0.1"), self.sockets.port_v4)

    def move(self):
        """To another port."""
        self.loop.remove_reader(self.sockets.v4.fileno())
        self.sockets.v4.close()
        self.sockets.v4 = loopback_socket()
        self.loop.add_reader(self.sockets.v4.fileno(), self._readable)

    def send(self, other, payload):
        packet = encode_udp(self.address, other.address, UDPDatagram(1000, 2000, payload))
        self.plane.tun_write(packet)

    async def receive(self):
        packet = await asyncio.wait_for(self.inbox.get(), 5)
        return packet[28:]

    def close(self):
        self.loop.remove_reader(self.sockets.v4.fileno())
        self.engine.close()
        self.magic.close()
        self.plane.close()


async def until(condition, seconds=5.0):
    """Wait until a condition holds; asserts that it does in time."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "it did not happen in time"
        await asyncio.sleep(0.005)
