"""One thread carries both directions while there is little to do, two as soon as there is much."""

from __future__ import annotations

import select
import time

from meshd._fast.segment import split
from tests.unit.fast import offload
from tests.unit.fast.packets import A4, B4, ipv4, udp
from tests.unit.fast.planepair import PLAIN_HEADER, Pair, pair

CALM_S = 0.15  # longer than a queue stays with its sender after much work


def answer(payload: bytes) -> bytes:
    """From b's host to a's."""
    return ipv4(17, udp(5000, 4000, payload), B4, A4)


def is_lent(nodes: Pair) -> bool:
    counts = nodes.a.plane.counters()
    return counts["tun_lent"] > counts["tun_returned"]


def lend(nodes: Pair) -> None:
    """Until the receiver of a carries what a's host sends; a thread that was held up counts as one with much to do."""
    deadline = time.monotonic() + 20
    while not is_lent(nodes):
        assert time.monotonic() < deadline, "the queue is never lent"
        time.sleep(CALM_S)
        drained(nodes)
        nodes.a.write(offload.udp(b"calm"))
        assert nodes.b.read() == PLAIN_HEADER + offload.udp(b"calm")


def make_busy(nodes: Pair) -> list[int]:
    """Super packets until the queue is its sender's again; the numbers of those that came out, in order."""
    came: list[int] = []
    before = nodes.a.plane.counters()["tun_returned"]
    sent = 0
    while nodes.a.plane.counters()["tun_returned"] == before:
        header, packet = offload.super_tcp(sent.to_bytes(4) * 15_000, 1200)
        if select.select([], [nodes.a.host], [], 0)[1]:
            nodes.a.host.send(header + packet)
            sent += 1
        came += drained(nodes)
        assert sent < 20_000, "the receiver never had much to do"
    return came + drained(nodes)


def drained(nodes: Pair) -> list[int]:
    numbers = []
    while select.select([nodes.b.host], [], [], 0)[0]:
        got = nodes.b.host.recv(70_000)
        numbers += [int.from_bytes(piece[-4:]) for piece in split(got[:10], got[10:])]
    return numbers


def test_tun_queue_is_lent_when_calm_and_returned_when_busy() -> None:
    with pair() as nodes:
        for _ in range(3):
            lend(nodes)
            numbers = make_busy(nodes)
            assert numbers == sorted(numbers), "out of order"
        assert nodes.a.plane.counters()["tun_returned"] >= 3
        nodes.b.write(answer(b"back"))
        assert nodes.a.read() == PLAIN_HEADER + answer(b"back")


def test_lent_queue_works_in_both_directions() -> None:
    with pair() as nodes:
        lend(nodes)
        for number in range(50):
            nodes.a.write(offload.udp(bytes([number])))
            assert nodes.b.read() == PLAIN_HEADER + offload.udp(bytes([number]))
            nodes.b.write(answer(bytes([number])))
            assert nodes.a.read() == PLAIN_HEADER + answer(bytes([number]))


def test_plane_stops_and_starts_again_with_a_lent_queue() -> None:
    with pair() as nodes:
        for _ in range(3):
            lend(nodes)
            nodes.a.plane.stop()
            nodes.a.plane.start()
        nodes.a.write(offload.udp(b"q"))
        assert nodes.b.read() == PLAIN_HEADER + offload.udp(b"q")


def test_new_sockets_while_a_queue_is_lent() -> None:
    with pair() as nodes:
        lend(nodes)
        nodes.a.plane.set_udp(nodes.a.udp.fileno(), -1)
        nodes.a.write(offload.udp(b"q"))
        assert nodes.b.read() == PLAIN_HEADER + offload.udp(b"q")


def test_device_that_goes_while_lent_does_not_stop_the_receiver() -> None:
    with pair() as nodes:
        lend(nodes)
        nodes.a.host.close()
        nodes.b.write(answer(b"q"))
        nodes.a.counted("in_device_error")
        nodes.b.write(answer(b"q"))
        nodes.a.counted("in_device_error", 2)


def test_more_queues_than_receivers_stay_with_their_senders() -> None:
    with pair(queues=2) as nodes:
        for _ in range(2):
            time.sleep(CALM_S)
            nodes.a.hosts[1].send(PLAIN_HEADER + offload.udp(b"q"))
            assert select.select(nodes.b.hosts, [], [], 5)[0]
            for host in select.select(nodes.b.hosts, [], [], 0)[0]:
                assert host.recv(70_000) == PLAIN_HEADER + offload.udp(b"q")
        assert nodes.a.plane.counters()["tun_lent"] == 0
