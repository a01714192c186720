"""What is carried to and from peers is counted by the way that it takes."""

from __future__ import annotations

import socket

import pytest

from meshd._fast.plane import EV_RELAY
from tests.unit.fast import offload
from tests.unit.fast.packets import ipv4
from tests.unit.fast.planepair import Node, Pair, pair

WAYS = ("ipv4", "ipv6", "derp")
OVERHEAD = 32


def traffic(node: Node, direction: str) -> dict[str, tuple[int, int]]:
    """Packets and bytes of each way that had any."""
    counts = node.plane.counters()
    found = {way: (counts[f"{direction}_{way}_packets"], counts[f"{direction}_{way}_bytes"]) for way in WAYS}
    return {way: pair_ for way, pair_ in found.items() if pair_ != (0, 0)}


def carry(nodes: Pair) -> tuple[int, int]:
    """A super packet from a to b, and one packet after it: how many packets, how many bytes they are when sealed."""
    header, packet = offload.super_tcp(b"x" * 20_000, 1240)
    nodes.a.write(packet, header)
    nodes.b.read()
    nodes.a.write(offload.udp(b"last"))
    nodes.b.read()
    counts = nodes.a.plane.peer_state(nodes.peer_of_a)
    return counts.tx_packets, counts.tx_bytes


def test_plane_traffic_over_ipv4_is_counted_at_both_ends() -> None:
    with pair() as nodes:
        sent = carry(nodes)
        assert sent[0] == 18
        assert (traffic(nodes.a, "out"), traffic(nodes.a, "in")) == ({"ipv4": sent}, {})
        assert (traffic(nodes.b, "out"), traffic(nodes.b, "in")) == ({}, {"ipv4": sent})


def test_plane_traffic_over_ipv6_is_counted_as_such() -> None:
    with pair() as nodes:
        try:
            sockets = [socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) for _ in range(2)]
            for udp in sockets:
                udp.setblocking(False)
                udp.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 here")
        for node, udp in zip((nodes.a, nodes.b), sockets, strict=True):
            node.plane.set_udp(node.udp.fileno(), udp.fileno())
        nodes.a.plane.set_path(0, bytes(15) + b"\1", sockets[1].getsockname()[1], 1e8, 0)
        sent = carry(nodes)
        assert (traffic(nodes.a, "out"), traffic(nodes.b, "in")) == ({"ipv6": sent}, {"ipv6": sent})
        nodes.a.plane.stop()
        nodes.b.plane.stop()
        for udp in sockets:
            udp.close()


def test_plane_traffic_by_relay_is_counted_without_what_had_no_room() -> None:
    with pair() as nodes:
        nodes.a.plane.set_path(0, None, 0, 0, 3)
        for _ in range(500):
            nodes.a.plane.send_packet(0, ipv4(17, bytes(1252)))
        lost = nodes.a.plane.counters()["out_relay_full"]
        assert 0 < lost < 500
        frames = nodes.a.plane.take_relayed(3)
        packets, size = 500 - lost, nodes.a.plane.peer_state(0).tx_bytes // 500
        assert traffic(nodes.a, "out") == {"derp": (packets, packets * size)}
        datagrams = []
        while frames:
            length = int.from_bytes(frames[1:5], "big")
            datagrams.append(frames[37 : 5 + length])
            frames = frames[5 + length :]
        nodes.b.plane.open_from(datagrams)
        assert traffic(nodes.b, "in") == {"derp": (packets, packets * size)}


def test_plane_traffic_that_goes_both_ways_counts_for_each_and_forged_packets_for_none() -> None:
    with pair() as nodes:
        nodes.connect(relay=3, trusted_until=0.0)
        nodes.a.write(offload.udp(b"twice"))
        nodes.a.event(EV_RELAY)
        nodes.b.read()
        [sent] = {traffic(nodes.a, "out")[way] for way in ("ipv4", "derp")}
        assert sent[0] == 1
        nodes.a.udp.sendto(b"\4\0\0\0\xb0\0\0\0" + bytes(8) + bytes(80), ("127.0.0.1", nodes.b.port))
        nodes.b.counted("in_forged")
        assert traffic(nodes.b, "in") == {"ipv4": sent}
