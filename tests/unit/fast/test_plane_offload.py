"""What ``set_offload`` switches off: batches of the sockets, merging for the TUN."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from meshd._fast import segment
from tests.unit.fast import offload
from tests.unit.fast.planepair import Pair, pair, reuseport_sockets

SOL_UDP, UDP_GRO = 17, 104
SEGMENTS = 12


def cross(nodes: Pair, kind: str = "tcp") -> None:
    """A packet of 12 segments from a to b, which arrives unchanged."""
    make: Any = offload.super_tcp if kind == "tcp" else offload.super_udp
    header, packet = make(b"s" * 1240 * SEGMENTS, 1240)
    nodes.a.write(packet, header)
    wanted, got = segment.split(header, packet), list[bytes]()
    while len(got) < len(wanted):
        read = nodes.b.read()
        got += segment.split(read[:10], read[10:])
    assert [packet[20:] for packet in got] == [packet[20:] for packet in wanted]


def gro_of(sock: socket.socket) -> int:
    return sock.getsockopt(SOL_UDP, UDP_GRO)


def test_plane_offload_on_uses_few_calls() -> None:
    with pair() as nodes:
        cross(nodes)
        assert nodes.b.plane.counters()["tun_writes"] < SEGMENTS
        assert [gro_of(udp) for udp in nodes.b.udps] == [1]


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_plane_tun_merging_can_be_off_for_one_protocol(kind: str) -> None:
    """Also of threads that run."""
    with pair() as nodes:
        cross(nodes, "udp" if kind == "tcp" else "tcp")
        nodes.b.plane.set_offload(**{f"tun_{kind}_gro": False})
        before = nodes.b.plane.counters()["tun_writes"]
        cross(nodes, kind)
        assert nodes.b.plane.counters()["tun_writes"] == before + SEGMENTS
        cross(nodes, "udp" if kind == "tcp" else "tcp")
        assert nodes.b.plane.counters()["tun_writes"] < before + 2 * SEGMENTS


def test_plane_udp_gro_can_be_off_and_stays_off_on_new_sockets() -> None:
    with pair(start=False, receivers=2) as nodes:
        nodes.b.plane.set_offload(udp_gro=False)
        nodes.b.plane.start()
        nodes.a.plane.start()
        assert [gro_of(udp) for udp in nodes.b.udps] == [0, 0]
        cross(nodes)
        fresh = reuseport_sockets(2)
        nodes.b.udps += fresh
        nodes.b.port = fresh[0].getsockname()[1]
        nodes.b.plane.set_udp([udp.fileno() for udp in fresh], -1)
        nodes.connect()
        assert [gro_of(udp) for udp in fresh] == [0, 0]
        cross(nodes)
        nodes.b.plane.set_offload()
        assert [gro_of(udp) for udp in fresh] == [1, 1]


def test_plane_udp_gso_can_be_off_and_stays_off_on_new_sockets() -> None:
    with pair() as nodes:
        nodes.a.plane.set_offload(udp_gso=False, equal_tail=False)
        fresh = reuseport_sockets(1)
        nodes.a.udps += fresh
        nodes.a.plane.set_udp(fresh[0].fileno(), -1)
        cross(nodes)
        # A runt follows only batches that the kernel cuts.
        assert nodes.b.plane.counters()["in_runt"] == 0
        nodes.a.plane.set_offload(equal_tail=False)
        cross(nodes)
        assert nodes.b.counted("in_runt") == 1
