"""Every packet that went in came out or was counted, in all and for the peer it concerned."""

from __future__ import annotations

import socket
import struct
import time
from random import Random

from meshd._fast import segment
from meshd._fast.filter import Filter
from tests.unit.fast import offload
from tests.unit.fast.packets import A4, B4, ipv4, tcp, udp
from tests.unit.fast.planepair import EVERYBODY, LOOPBACK, PLAIN_HEADER, Node, pair, sealed, send_raw

ELSEWHERE = bytes((100, 64, 9, 9))
LOST_IN = (
    "in_runt",
    "in_unknown",
    "in_source_limit",
    "in_truncated",
    "in_no_session",
    "in_expired",
    "in_forged",
    "in_replayed",
    "in_malformed",
    "in_source",
    "in_filtered",
    "in_event_limit",
    "in_device_error",
    "in_socket_overflow",
)


def test_peer_drops_are_counted_for_the_peer_they_concern_and_no_other() -> None:
    """PF-03."""
    with pair() as nodes:
        other = nodes.b.plane.add_peer(b"C" * 32)
        nodes.b.plane.add_route(other, ELSEWHERE, 32)
        good = sealed(offload.udp(b"x"), 1)
        send_raw(nodes, good)
        nodes.b.read()
        send_raw(nodes, good)
        send_raw(nodes, sealed(offload.udp(b"x"), 2)[:-1] + b"\0")
        send_raw(nodes, sealed(ipv4(17, udp(1, 2), ELSEWHERE, B4), 3))
        send_raw(nodes, sealed(b"\x45 and nothing else", 4))
        nodes.b.counted("in_malformed")
        nodes.b.plane.set_filter(Filter((), [(B4, 32)]))
        send_raw(nodes, sealed(ipv4(6, tcp(1, 2, 0x02)), 5))
        nodes.b.counted("in_filtered")
        assert nodes.b.plane.peer_drops(nodes.peer_of_b) == {
            "in_replayed": 1,
            "in_forged": 1,
            "in_source": 1,
            "in_malformed": 1,
            "in_filtered": 1,
        }
        assert nodes.b.plane.peer_drops(other) == {}


def test_peer_drops_outbound_name_the_peer_without_path_or_session() -> None:
    with pair() as nodes:
        plane = nodes.a.plane
        other = plane.add_peer(b"C" * 32)
        plane.add_route(other, ELSEWHERE, 32)
        plane.set_path(nodes.peer_of_a, None, 0, 0.0, 0)
        nodes.a.write(offload.udp(b"x"))
        nodes.a.counted("out_no_path")
        for _ in range(200):
            nodes.a.write(ipv4(17, udp(1, 2), A4, ELSEWHERE))
        nodes.a.counted("out_staged_limit", 72)
        assert plane.peer_drops(nodes.peer_of_a) == {"out_no_path": 1}
        assert plane.peer_drops(other) == {"out_staged_limit": 72}


def test_peer_drops_end_with_the_peer() -> None:
    with pair() as nodes:
        send_raw(nodes, sealed(offload.udp(b"x"), 1)[:-1] + b"\0")
        nodes.b.counted("in_forged")
        nodes.b.plane.remove_peer(nodes.peer_of_b)
        assert nodes.b.plane.peer_drops(nodes.b.plane.add_peer(b"A" * 32)) == {}
        assert nodes.b.plane.counters()["in_forged"] == 1


def test_plane_everything_sent_was_received_or_is_counted() -> None:
    """Good, replayed, forged, filtered, foreign and senseless datagrams in any order: not one is unexplained."""
    random, sent, good = Random(4), 0, 0
    with pair() as nodes:
        nodes.b.plane.set_filter(Filter([([EVERYBODY], [(B4, B4, 2000, 2000)], [17])], [(B4, 32)]))
        for counter in range(1, 3000):
            packet = ipv4(17, udp(1000, 2000, struct.pack("!I", counter)))
            match random.randrange(8):
                case 0:
                    datagrams = [sealed(packet, counter)] * 2
                case 1:
                    datagrams = [sealed(packet, counter)[:-1] + b"\0"]
                case 2:
                    datagrams = [sealed(ipv4(17, udp(1000, 2001)), counter)]
                case 3:
                    datagrams = [sealed(packet, counter, index=0x1234)]
                case 4:
                    datagrams = [random.randbytes(random.randrange(1, 200))]
                case 5:
                    datagrams = [sealed(ipv4(17, udp(1000, 2000), ELSEWHERE, B4), counter)]
                case _:
                    datagrams = [sealed(packet, counter)]
            for datagram in datagrams:
                send_raw(nodes, datagram)
            sent += len(datagrams)
            good += drained(nodes.b.host)
        deadline = time.monotonic() + 5
        while good + explained(nodes.b) < sent and time.monotonic() < deadline:
            good += drained(nodes.b.host)
        assert good + explained(nodes.b) == sent
        assert good > 500
        assert nodes.b.plane.counters()["events_lost"] == 0


def explained(node: Node) -> int:
    counts = node.plane.counters()
    return sum(counts[name] for name in LOST_IN)


def drained(host: socket.socket) -> int:
    """How many packets the tunnel has given the host since."""
    got = 0
    while True:
        try:
            read = host.recv(70000)
        except BlockingIOError:
            return got
        got += len(segment.split(read[: len(PLAIN_HEADER)], read[len(PLAIN_HEADER) :]))


def test_plane_packets_for_a_peer_that_is_gone_are_counted() -> None:
    """Between the look-up and the sealing, or from above."""
    with pair() as nodes:
        nodes.a.plane.set_path(nodes.peer_of_a, LOOPBACK, nodes.b.port, 1e9, 0)
        nodes.a.plane.remove_peer(nodes.peer_of_a)
        nodes.a.write(offload.udp(b"x"))
        assert nodes.a.counted("out_no_route") == 1


def test_plane_datagrams_that_the_system_dropped_are_counted_across_a_rebind() -> None:
    """Threads that do not keep up are visible; the number outlives the socket."""
    with pair(start=False) as nodes:
        for _ in range(2000):
            send_raw(nodes, bytes(100))
        lost = nodes.b.plane.counters()["in_socket_overflow"]
        assert 0 < lost < 2000
        nodes.b.plane.set_udp(nodes.b.udp.fileno(), -1)
        assert nodes.b.plane.counters()["in_socket_overflow"] == lost
        nodes.b.plane.set_udp(nodes.a.udp.fileno(), -1)
        assert nodes.b.plane.counters()["in_socket_overflow"] == lost
        nodes.b.plane.start()
        nodes.b.plane.set_udp(nodes.b.udp.fileno(), -1)
        assert nodes.b.counted("in_unknown", 2000 - lost) == 2000 - lost
