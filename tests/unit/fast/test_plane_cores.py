"""Several receivers and several TUN queues: who gets what, and what stays in order."""

from __future__ import annotations

import select
import socket
import struct

import pytest

from meshd._fast import segment
from meshd._fast.plane import Plane
from tests.unit.fast.packets import A4, B4, icmp, ipv4, tcp, udp
from tests.unit.fast.planepair import Pair, pair, reuseport_sockets, sealed

PLAIN = bytes(10)


def send_from_many(nodes: Pair, datagrams: list[bytes], sources: int = 32) -> None:
    """To b, each from the next of so many addresses."""
    senders = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(sources)]
    try:
        for i, datagram in enumerate(datagrams):
            senders[i % sources].sendto(datagram, ("127.0.0.1", nodes.b.port))
    finally:
        for sender in senders:
            sender.close()


def read_all(nodes: Pair, count: int) -> list[bytes]:
    got: list[bytes] = []
    while len(got) < count and (ready := select.select(nodes.b.hosts, [], [], 5)[0]):
        for host in ready:
            read = host.recv(70000)
            got += segment.split(read[:10], read[10:])
    return got


def test_plane_two_receivers_share_one_session() -> None:
    """The window of a session is shared: everything arrives once, whichever thread opened it."""
    packets = [ipv4(17, udp(1000, 2000, struct.pack("!I", i))) for i in range(1000)]
    with pair(receivers=2, queues=2) as nodes:
        messages = [sealed(packet, counter) for counter, packet in enumerate(packets)]
        for start in range(0, len(messages), 100):
            burst = messages[start : start + 100]
            send_from_many(nodes, burst)
            assert sorted(read_all(nodes, len(burst))) == sorted(packets[start : start + 100])
        send_from_many(nodes, messages[-100:])
        assert nodes.b.counted("in_replayed", 100) == 100
        reads = nodes.b.plane.thread_reads()
        assert reads["reads_receive_0"] > 0
        assert reads["reads_receive_1"] > 0
        assert nodes.b.plane.peer_state(nodes.peer_of_b).rx_packets == len(packets)


def test_plane_one_source_stays_on_one_receiver_and_in_order() -> None:
    with pair(receivers=4, queues=4) as nodes:
        packets = [ipv4(17, udp(1000, 2000, bytes([i]) * (i + 1))) for i in range(200)]
        for packet in packets:
            nodes.a.write(packet)
        assert read_all(nodes, len(packets)) == packets
        reads = nodes.b.plane.thread_reads()
        assert sum(reads[f"reads_receive_{i}"] > 0 for i in range(4)) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (ipv4(17, udp(1, 2, b"short")), ipv4(17, udp(1, 2, bytes(900)))),
        (ipv4(6, tcp(1, 2, 0x02)), ipv4(6, tcp(1, 2, 0x10))),
        (ipv4(1, icmp(0)), ipv4(1, icmp(0, 0, 9))),
        (ipv4(17, udp(1, 2, bytes(64)), fragment=0x2000), ipv4(17, bytes(64), fragment=80)),
    ],
    ids=["udp", "tcp", "icmp", "fragments"],
)
def test_plane_packets_of_a_flow_leave_by_one_queue(one: bytes, other: bytes) -> None:
    """Merged or not: two queues would let the kernel see a flow out of order."""
    with pair(queues=8) as nodes:
        queues = set()
        for packet in (one, other):
            nodes.a.write(packet)
            ready = select.select(nodes.b.hosts, [], [], 5)[0]
            assert [host.recv(70000) for host in ready] == [PLAIN + packet]
            queues.add(nodes.b.hosts.index(ready[0]))
        assert len(queues) == 1


def test_plane_flows_spread_over_queues() -> None:
    with pair(queues=4) as nodes:
        used = set()
        for port in range(40):
            nodes.a.write(ipv4(17, udp(1000 + port, 53, b"x")))
            ready = select.select(nodes.b.hosts, [], [], 5)[0]
            used |= {nodes.b.hosts.index(host) for host in ready}
            for host in ready:
                host.recv(70000)
        assert used == {0, 1, 2, 3}


def test_plane_sockets_of_all_receivers_can_be_changed_while_running() -> None:
    with pair(receivers=3) as nodes:
        nodes.b.plane.set_udp((), -1)
        for udp_socket in nodes.b.udps:
            udp_socket.close()
        nodes.b.udps = reuseport_sockets(3)
        nodes.b.port = nodes.b.udps[0].getsockname()[1]
        nodes.b.plane.set_udp([s.fileno() for s in nodes.b.udps], -1)
        before = nodes.b.plane.thread_reads()
        packets = [ipv4(17, udp(1, 2, bytes([i]))) for i in range(96)]
        send_from_many(nodes, [sealed(packet, counter) for counter, packet in enumerate(packets)])
        assert sorted(read_all(nodes, 96)) == sorted(packets)
        after = nodes.b.plane.thread_reads()
        assert all(after[f"reads_receive_{i}"] > before[f"reads_receive_{i}"] for i in range(3))


def test_plane_fewer_sockets_than_receivers_still_receives_all() -> None:
    """One family of the host has them all, the other is given none, and a rebind got only one."""
    with pair(receivers=3) as nodes:
        nodes.b.plane.set_udp(nodes.b.udp.fileno(), -1)
        for other in nodes.b.udps[1:]:
            other.close()
        packets = [ipv4(17, udp(1, 2, bytes([i]))) for i in range(32)]
        send_from_many(nodes, [sealed(packet, counter) for counter, packet in enumerate(packets)])
        assert sorted(read_all(nodes, 32)) == sorted(packets)


def test_plane_more_sockets_than_receivers_is_refused() -> None:
    udps = reuseport_sockets(3)
    try:
        plane = Plane(tun_fds=[], udp4_fd=[udps[0].fileno(), udps[1].fileno()], udp6_fd=-1)
        with pytest.raises(ValueError, match="more sockets than receivers"):
            plane.set_udp([s.fileno() for s in udps], -1)
        with pytest.raises(ValueError, match="at most 8 sockets"):
            Plane(tun_fds=[], udp4_fd=[udps[0].fileno()] * 9, udp6_fd=-1)
        with pytest.raises(ValueError, match="at most 8 TUN queues"):
            Plane(tun_fds=[1] * 9, udp4_fd=-1, udp6_fd=-1)
    finally:
        for udp_socket in udps:
            udp_socket.close()


def test_plane_answer_of_a_flow_is_accepted_from_every_queue() -> None:
    """The connections we began are known to all threads."""
    with pair(receivers=2, queues=2) as nodes:
        nodes.a.hosts[1].send(PLAIN + ipv4(1, icmp(8), A4, B4))
        ready = select.select(nodes.b.hosts, [], [], 5)[0]
        assert ready[0].recv(70000) == PLAIN + ipv4(1, icmp(8), A4, B4)
