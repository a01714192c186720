"""Two engines on real data planes in userspace mode, over loopback sockets: no root needed."""

from __future__ import annotations

import asyncio
import socket

import pytest
import uvloop

from meshd._fast.plane import EV_DATAGRAM, Plane
from meshd.base.addr import host_prefix, parse_ip
from meshd.base.crypto import blake2s_mac
from meshd.base.keys import NodePrivate
from meshd.core.admission import MAX_PEERS
from meshd.core.cookie import mac1_key
from meshd.io.systemclock import SystemClock
from meshd.node.engine import Engine
from meshd.node.enginepeer import EngineHooks, PeerConfig
from meshd.testing.clock import FakeClock
from meshd.testing.fakeplane import FakePlane
from meshd.wire.ippacket import UDPDatagram, decode_ip, decode_udp, encode_ip, encode_udp

V4, V6 = (bytes(4), b"\xff" * 4), (bytes(16), b"\xff" * 16)
ALLOW_ALL = ([([net], [(*net, 0, 65535)], [1, 6, 17, 58]) for net in (V4, V6)], [(bytes(4), 0), (bytes(16), 0)])


class Node:
    def __init__(self, loop, number):
        self.addresses = (parse_ip(f"100.64.0.{number}"), parse_ip(f"fd7a:115c:a1e0::{number}"))
        self.private = NodePrivate.generate()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind(("127.0.0.1", 0))
        self.plane = Plane(tun_fds=[], udp4_fd=self.socket.fileno(), udp6_fd=-1)
        self.inbox = asyncio.Queue()
        self.handed_on = asyncio.Queue()
        self.engine = Engine(
            self.plane,
            loop,
            SystemClock(),
            lambda key, data: self.socket.sendto(data, self.peer.socket.getsockname()),
            hooks=EngineHooks(
                local=lambda key, packet: self.inbox.put_nowait(packet),
                datagram=lambda address, port, data: self.handed_on.put_nowait(data),
            ),
        )
        self.engine.set_private_key(self.private)
        self.engine.set_own_addresses(self.addresses)
        self.engine.set_filter(*ALLOW_ALL)

    @property
    def key(self):
        return self.private.public()

    def know(self, peer):
        self.peer = peer
        self.engine.update_peer(PeerConfig(peer.key, tuple(map(host_prefix, peer.addresses))))
        index = self.engine.peer_index(peer.key)
        self.plane.set_path(index, parse_ip("127.0.0.1").packed, peer.socket.getsockname()[1], 1e18, 0)

    def close(self):
        self.engine.close()
        self.plane.stop()
        self.socket.close()


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def loop(request):
    loop = request.param()
    yield loop
    loop.close()


@pytest.fixture
def pair(loop):
    nodes = [Node(loop, number) for number in (1, 2)]
    for node, peer in (nodes, nodes[::-1]):
        node.know(peer)
        node.plane.start()
    yield nodes
    for node in nodes:
        node.close()


def _run(loop, awaitable):
    return loop.run_until_complete(asyncio.wait_for(awaitable, 10))


def _bytes(node, peer):
    status = node.engine.peer_status(peer.key)
    return status.rx_bytes, status.tx_bytes


def test_engine_pings_over_real_planes(loop, pair):
    a, b = pair
    assert _run(loop, a.engine.ping_tsmp(b.key, b.addresses[0])) is not None
    for address in b.addresses:
        assert _run(loop, a.engine.ping_icmp(b.key, address)) is not None
    for address in a.addresses:
        assert _run(loop, b.engine.ping_icmp(a.key, address)) is not None
    for _ in range(1000):  # a packet is counted just after it was handed on
        if _bytes(a, b) == _bytes(b, a)[::-1]:
            break
        loop.run_until_complete(asyncio.sleep(0.001))
    assert _bytes(a, b) == _bytes(b, a)[::-1]
    assert a.engine.peer_status(b.key).last_handshake is not None
    assert b.engine.peer_status(a.key).last_handshake is not None


def test_engine_both_sides_start_at_once(loop, pair):
    a, b = pair

    async def both():
        return await asyncio.gather(
            a.engine.ping_tsmp(b.key, b.addresses[0]), b.engine.ping_tsmp(a.key, a.addresses[0])
        )

    assert all(_run(loop, both()))


def test_engine_hands_local_packets_and_strange_datagrams_on(loop, pair):
    a, b = pair
    _run(loop, a.engine.ping_tsmp(b.key, b.addresses[0]))
    packet = encode_udp(a.addresses[0], b.addresses[0], UDPDatagram(1, 2, b"hello"))
    a.plane.send_packet(a.engine.peer_index(b.key), packet)
    assert decode_udp(decode_ip(_run(loop, b.inbox.get()))).data == b"hello"
    strange = "TS💬".encode() + b"this is no WireGuard message".ljust(80)
    a.socket.sendto(strange, b.socket.getsockname())
    assert _run(loop, b.handed_on.get()) == strange


def test_engine_denied_connection_is_answered_with_a_reject(loop, pair):
    """PF-03."""
    a, b = pair
    b.engine.set_filter([], [(b.addresses[0].packed, 32)], shields_up=True)
    _run(loop, a.engine.ping_tsmp(b.key, b.addresses[0]))
    notes = asyncio.Queue()
    a.engine.pings.tsmp_received = lambda peer, packet: notes.put_nowait(decode_ip(packet).payload)
    syn = bytes.fromhex("04d201bb0000000000000000500200000000") + bytes(2)
    a.plane.send_packet(a.engine.peer_index(b.key), encode_ip(a.addresses[0], b.addresses[0], 6, syn))
    assert _run(loop, notes.get()) == bytes.fromhex("21065304d201bb")


def test_engine_shields_up_and_the_end_of_a_network_end_flows(loop):
    """PF-06: rules may come and go, but what a peer began before the shields went up is over."""
    ended = []

    class Plane(FakePlane):
        def forget_flows(self):
            super().forget_flows()
            ended.append(True)

    engine = Engine(Plane(FakeClock(), lambda *a: None, lambda *a: None), loop, FakeClock(), lambda *a: None)
    rules, local = ALLOW_ALL
    for given, expected in (
        ((rules, local, False), 0),
        (([], local, False), 0),
        (([], local, True), 1),
        (([], local[:1], True), 1),
        ((rules, local, False), 1),
        (([], local, True), 2),
        (([], [], False), 3),
    ):
        engine.set_filter(*given[:2], shields_up=given[2])
        assert len(ended) == expected, given
    engine.close()


def test_engine_tells_what_each_peer_lost(loop, pair):
    a, b = pair
    assert _run(loop, a.engine.ping_tsmp(b.key, b.addresses[0])) is not None
    assert a.engine.peer_drops() == {}
    before = a.plane.counters()["out_no_path"]
    index = a.engine.peer_index(b.key)
    a.plane.set_path(index, None, 0, 0.0, 0)
    a.plane.send_keepalive(index)
    assert a.plane.counters()["out_no_path"] == before + 1
    assert a.engine.peer_drops() == {b.key: {"out_no_path": 1}}


def test_engine_changed_key_ends_the_old_session(loop, pair):
    a, b = pair
    _run(loop, a.engine.ping_tsmp(b.key, b.addresses[0]))
    old, a.private = a.key, NodePrivate.generate()
    a.engine.set_private_key(a.private)
    b.engine.remove_peer(old)
    b.know(a)
    assert _run(loop, a.engine.ping_tsmp(b.key, b.addresses[0])) is not None
    assert b.engine.peer_status(old) is None


def test_engine_fault_of_one_event_spares_the_others():
    """Events that were drained with it would be lost: handshakes, and the first sign of traffic of a peer."""
    faults = []

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: faults.append(context["exception"]))
        node = Node(loop, 1)
        seen, done = [], asyncio.Event()

        def datagram(address, port, data):
            seen.append(data)
            if len(seen) == 3:
                done.set()
            if b"fault" in data:
                raise OSError(24, "Too many open files")

        node.engine.hooks.datagram = datagram
        node.plane.start()
        for data in (b"first", b"fault", b"last"):
            node.socket.sendto(b"TS\xf0\x9f\x92\xac  " + data.ljust(80), node.socket.getsockname())
        try:
            async with asyncio.timeout(5):
                await done.wait()
        finally:
            node.close()
        assert [data[8:].strip() for data in seen] == [b"first", b"fault", b"last"]

    asyncio.run(main())
    assert [type(fault) for fault in faults] == [OSError]


def test_engine_has_room_for_every_peer_that_is_admitted():
    """One peer too many would stop the reconciler in the middle of its work."""
    plane = Plane(tun_fds=[], udp4_fd=-1, udp6_fd=-1)
    for number in range(262_144):
        plane.add_peer(number.to_bytes(32, "big"))
    with pytest.raises(MemoryError):
        plane.add_peer(bytes(32))
    assert MAX_PEERS < 262_144


def test_engine_events_of_many_peers_leave_the_others_their_turn():
    """A host that speaks to two thousand peers at once begins as many handshakes."""
    begun, turns = [], []

    async def main():
        loop = asyncio.get_running_loop()
        plane = FakePlane(FakeClock(), lambda *a: None, lambda *a: None)
        engine = Engine(plane, loop, FakeClock(), lambda key, data: begun.append(key))
        engine.set_private_key(NodePrivate.generate())
        engine.set_filter(*ALLOW_ALL)
        for number in range(200):
            address = parse_ip(f"100.64.1.{number}")
            engine.update_peer(PeerConfig(NodePrivate.generate().public(), (host_prefix(address),)))
            plane.tun_write(encode_udp(parse_ip("100.64.0.1"), address, UDPDatagram(1, 2, b"x")))
        while len(begun) < 200:
            before = len(begun)
            await asyncio.sleep(0)
            turns.append(len(begun) - before)
        engine.close()

    asyncio.run(asyncio.wait_for(main(), 30))
    assert max(turns) <= 32, "each costs up to half a millisecond"


def test_engine_flood_of_handshakes_is_taken_in_as_fast_as_it_comes():
    """It is the queue that knows of load and asks for cookies; peers' own handshakes would be lost in full rings."""
    asked = []

    async def main():
        loop = asyncio.get_running_loop()
        plane = FakePlane(FakeClock(), lambda *a: None, lambda *a: None)
        private = NodePrivate.generate()
        key = mac1_key(private.public().raw)
        answers = EngineHooks(answer=lambda source, data: asked.append(source))
        engine = Engine(plane, loop, FakeClock(), lambda key, data: None, hooks=answers)
        engine.set_private_key(private)
        for number in range(200):
            message = bytes([1, 0, 0, 0]) + number.to_bytes(4, "little") + bytes(108)
            message += blake2s_mac(key, message) + bytes(16)
            plane._event((EV_DATAGRAM, bytes([192, 0, 2, 1]), number, message))
        turns = 0
        while plane._events:
            await asyncio.sleep(0)
            turns += 1
        for _ in range(4):
            await asyncio.sleep(0)
        engine.close()
        return turns

    assert asyncio.run(asyncio.wait_for(main(), 30)) <= 3
    assert len(asked) > 150
