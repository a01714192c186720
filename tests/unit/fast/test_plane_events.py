"""What a data plane hands up to the event loop, and what it does not."""

from __future__ import annotations

import select
import socket
import struct
import time

from meshd._fast.filter import Filter
from meshd._fast.plane import (
    EV_DATAGRAM,
    EV_DENIED,
    EV_ECHO,
    EV_LOCAL,
    EV_ROAMED,
    EV_SERVICE,
    EV_TSMP,
    Plane,
)
from meshd._fast.sourcelimit import BURST_MESSAGES, HANDSHAKES_PER_S
from tests.unit.fast import offload
from tests.unit.fast.packets import A4, B4, icmp, ipv4
from tests.unit.fast.planepair import KEY_AB, KEY_BA, LOOPBACK, Node, pair, sealed, send_raw

DISCO = "TS💬".encode()


def test_plane_service_address_is_an_event() -> None:
    with pair() as nodes:
        service = bytes([100, 100, 100, 100])
        nodes.a.plane.set_service_addresses([service, bytes(16)])
        packet = ipv4(17, b"\0" * 8, A4, service)
        nodes.a.write(packet)
        assert nodes.a.event(EV_SERVICE) == (EV_SERVICE, packet)


def test_plane_datagrams_of_other_protocols_are_events() -> None:
    with pair() as nodes:
        handshake = b"\1\0\0\0" + bytes(144)
        disco = DISCO + bytes(80)
        stun = b"\1\1\0\x0c" + b"\x21\x12\xa4\x42" + bytes(24)
        for datagram in (handshake, b"\2\0\0\0" + bytes(88), b"\3\0\0\0" + bytes(60), disco, stun):
            send_raw(nodes, datagram)
            assert nodes.b.event(EV_DATAGRAM) == (EV_DATAGRAM, LOOPBACK, nodes.a.port, datagram)


def test_plane_datagrams_of_no_protocol_are_dropped_and_counted() -> None:
    with pair() as nodes:
        strange = (bytes(40), b"\1\0\0\0" + bytes(145), b"\5\0\0\0" + bytes(60), DISCO + bytes(60), b"x" * 1400)
        for datagram in strange:
            send_raw(nodes, datagram)
        deadline = time.monotonic() + 5
        while nodes.b.counted("in_unknown") < len(strange):
            assert time.monotonic() < deadline
        assert not nodes.b.plane.drain()


def test_plane_flood_of_handshakes_from_one_source_stays_in_its_thread() -> None:
    with pair() as nodes:
        initiation = b"\1\0\0\0" + bytes(144)
        deadline = time.monotonic() + 10
        while nodes.b.plane.counters()["in_source_limit"] < BURST_MESSAGES:
            for _ in range(100):
                send_raw(nodes, initiation)
            assert time.monotonic() < deadline
            time.sleep(0.001)
        send_raw(nodes, DISCO + bytes(80))
        events = list[tuple[object, ...]]()
        while not any(event[3] == DISCO + bytes(80) for event in events):
            assert time.monotonic() < deadline
            events += nodes.b.plane.drain(100_000)
        assert len(events) < BURST_MESSAGES + 10 * HANDSHAKES_PER_S


def test_plane_handshake_between_data_in_one_burst() -> None:
    with pair() as nodes:
        data = sealed(bytes(ipv4(17, bytes(108))), 0)
        assert len(data) == 160
        other = DISCO + bytes(154)
        burst = data + other + sealed(ipv4(17, bytes(108)), 1)
        nodes.a.udp.setsockopt(17, 103, 160)
        send_raw(nodes, burst)
        nodes.a.udp.setsockopt(17, 103, 0)
        assert nodes.b.event(EV_DATAGRAM)[3] == other
        assert nodes.b.read()
        assert nodes.b.read()


def test_plane_tsmp_and_watched_echo_are_events() -> None:
    with pair() as nodes:
        nodes.b.plane.watch_echo(0x1234)
        tsmp, echo, other = ipv4(99, b"ping"), ipv4(1, icmp(0, 0, 0x1234)), ipv4(1, icmp(0, 0, 0x1235))
        for packet in (tsmp, echo, other):
            assert nodes.a.plane.send_packet(0, packet)
        assert nodes.b.event(EV_TSMP) == (EV_TSMP, 0, tsmp)
        assert nodes.b.event(EV_ECHO) == (EV_ECHO, 0, echo)
        assert nodes.b.read()[10:] == other


def test_plane_peer_that_roams_is_an_event() -> None:
    with pair() as nodes:
        other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        other.bind(("127.0.0.1", 0))
        here, there = ("127.0.0.1", nodes.b.port), other.getsockname()[1]
        other.sendto(sealed(ipv4(17, bytes(8)), 0), here)
        assert nodes.b.read()
        nodes.b.plane.set_roams(0, True)
        send_raw(nodes, sealed(ipv4(17, bytes(8)), 1))  # where its path leads
        assert nodes.b.read()
        other.sendto(sealed(ipv4(17, bytes(8)), 2)[:-1] + b"x", here)  # forged
        other.sendto(sealed(ipv4(17, bytes(8)), 1), here)  # repeated
        other.sendto(sealed(b"", 3), here)
        assert nodes.b.event(EV_ROAMED) == (EV_ROAMED, 0, LOOPBACK, there)
        nodes.b.plane.set_path(0, LOOPBACK, there, 1e8, 0)
        other.sendto(sealed(ipv4(17, bytes(8)), 4), here)
        assert nodes.b.read()
        assert not any(event[0] == EV_ROAMED for event in (*nodes.b.held, *nodes.b.plane.drain()))
        other.close()


def test_plane_watched_echo_to_others_meets_the_filter() -> None:
    """Whoever knows the identifier of our pings, which has 16 bits, gets no packet past the rules by it."""
    with pair() as nodes:
        nodes.b.plane.watch_echo(0x1234)
        nodes.b.plane.set_filter(Filter((), [(B4, 32)]))
        for target in ((192, 168, 1, 5), (224, 0, 0, 1), (169, 254, 7, 7)):
            assert nodes.a.plane.send_packet(0, ipv4(1, icmp(0, 0, 0x1234), A4, bytes(target)))
        ours = ipv4(1, icmp(0, 0, 0x1234), A4, B4)
        assert nodes.a.plane.send_packet(0, ours)
        assert nodes.b.event(EV_ECHO) == (EV_ECHO, 0, ours)
        assert nodes.b.counted("in_filtered") == 3


def test_plane_without_tun_hands_packets_up() -> None:
    with pair(userspace=True) as nodes:
        nodes.a.write(offload.udp(b"to you"))
        assert nodes.b.event(EV_LOCAL) == (EV_LOCAL, 0, offload.udp(b"to you"))
        assert nodes.b.plane.send_packet(0, ipv4(1, icmp(0), B4, A4))
        assert nodes.a.read()[10:] == ipv4(1, icmp(0), B4, A4)
        assert not nodes.b.plane.deliver(offload.udp(b"no host"))


def test_plane_filter_refuses_and_reports_connections() -> None:
    with pair() as nodes:
        nodes.b.plane.set_filter(Filter((), [(bytes(4), 0)]))
        syn = offload.tcp(b"", flags=0x02)
        for _ in range(40):
            nodes.a.write(syn)
        assert nodes.b.event(EV_DENIED) == (EV_DENIED, 0, syn)
        nodes.b.counted("in_filtered", 40)
        assert sum(event[0] == EV_DENIED for event in nodes.b.held + nodes.b.plane.drain()) < 20
        nodes.a.write(offload.tcp(b"", flags=0x10))
        assert nodes.b.read()[10:] == offload.tcp(b"", flags=0x10)


def test_plane_filter_none_set_accepts_nothing() -> None:
    with pair(start=False) as nodes:
        plane = Plane(tun_fds=[nodes.b.tun.fileno()], udp4_fd=nodes.b.udp.fileno(), udp6_fd=-1)
        peer = plane.add_peer(b"A" * 32)
        plane.add_route(peer, A4, 32)
        plane.install_session(
            peer,
            slot="current",
            local_index=1,
            remote_index=2,
            send_key=KEY_BA,
            receive_key=KEY_AB,
            created=time.monotonic(),
            initiator=False,
        )
        plane.open_from([sealed(offload.tcp(b"data"), 0, index=1)])
        assert plane.counters()["in_filtered"] == 1
        assert nodes.b.nothing()


def test_plane_jailed_peer_meets_shields() -> None:
    """PF-08."""
    with pair() as nodes:
        nodes.b.plane.set_jailed(0, True)
        nodes.a.write(offload.udp(b"unasked"))
        assert nodes.b.counted("in_filtered") == 1
        # What b asked for comes back.
        question = ipv4(17, struct.pack(">HHHH", 5000, 4000, 8, 0), B4, A4)
        nodes.b.write(question)
        nodes.a.read()
        nodes.a.write(offload.udp(b"answer"))
        assert nodes.b.read()[10:] == offload.udp(b"answer")
        nodes.b.plane.set_jailed(0, False)
        nodes.a.write(offload.udp(b"welcome"))
        assert nodes.b.read()[10:] == offload.udp(b"welcome")


def test_plane_removed_peer_leaves_no_event_behind() -> None:
    with pair(session=False) as nodes:
        nodes.a.write(offload.udp(b"q"))
        assert select.select([nodes.a.plane.event_fd], [], [], 5)[0]
        nodes.a.plane.remove_peer(0)
        nodes.a.plane.add_peer(b"D" * 32)
        assert nodes.a.plane.drain() == []


def test_plane_event_ring_full_drops_and_recovers() -> None:
    node = Node(userspace=True, ring_bytes=4096)
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        node.plane.start()
        for _ in range(100):
            sender.sendto(DISCO + bytes(1000), ("127.0.0.1", node.port))
        node.counted("events_lost")
        assert len(node.plane.drain()) >= 3
        deadline = time.monotonic() + 5
        while not any(event[3] == DISCO + b"w" * 80 for event in node.plane.drain()):
            assert time.monotonic() < deadline
            sender.sendto(DISCO + b"w" * 80, ("127.0.0.1", node.port))
    finally:
        sender.close()
        node.close()


def test_plane_drain_limit_leaves_the_bell_ringing() -> None:
    with pair() as nodes:
        for i in range(10):
            send_raw(nodes, DISCO + bytes([200 + i]) * 80)
        nodes.b.counted("udp_reads")
        got = list[bytes]()
        while len(got) < 10:
            assert select.select([nodes.b.plane.event_fd], [], [], 5)[0]
            batch = nodes.b.plane.drain(3)
            assert len(batch) <= 3
            got += [event[3] for event in batch]
        assert [data[-1] for data in got] == list(range(200, 210))
