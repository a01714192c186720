from __future__ import annotations

import pytest

from meshd.base.addr import AddrPort, parse_ip
from meshd.testing.clock import FakeClock
from meshd.testing.memorynet import Link, MemoryNet, Nat, NatKind

SERVER, OTHER = AddrPort.parse("198.51.100.1:1"), AddrPort.parse("198.51.100.2:1")


class Net:
    def __init__(self, kind=None, **link):
        self.clock = FakeClock()
        self.net = MemoryNet(self.clock, seed=1)
        self.got = {}
        self.nat = Nat(parse_ip("203.0.113.1"), kind) if kind else None
        self.client = self.bind("client", AddrPort.parse("10.0.0.2:5"), nat=self.nat, link=Link(**link))
        self.server = self.bind("server", SERVER)
        self.other = self.bind("other", OTHER)

    def bind(self, name, address, **options):
        self.got[name] = []
        return self.net.bind(address, lambda source, data: self.got[name].append((source, data)), **options)

    def settle(self):
        self.clock.advance(1)

    def mapped(self):
        self.client.send(SERVER, b"out")
        self.settle()
        return self.got["server"][-1][0]


def test_datagram_arrives_after_the_delay_of_both_links():
    net = Net(delay_s=0.02)
    net.client.send(SERVER, b"x")
    net.clock.advance(0.024)
    assert net.got["server"] == []
    net.clock.advance(0.002)
    assert net.got["server"] == [(net.client.address, b"x")]


def test_loss_duplication_and_reordering_are_seeded():
    def run():
        net = Net(loss=0.2, duplicate=0.1, jitter_s=0.1)
        for number in range(1000):
            net.client.send(SERVER, b"%d" % number)
        net.settle()
        return [int(data) for _, data in net.got["server"]]

    first = run()
    assert first == run()
    assert 700 < len(set(first)) < 900
    assert len(first) > len(set(first))
    assert first != sorted(first)


def test_datagram_above_the_mtu_is_lost():
    net = Net(mtu=1280)
    net.client.send(SERVER, bytes(1232))
    net.client.send(SERVER, bytes(1233))
    net.settle()
    assert [len(data) for _, data in net.got["server"]] == [1232]


@pytest.mark.parametrize(
    ("kind", "from_other", "from_other_port"),
    [
        (NatKind.FULL_CONE, True, True),
        (NatKind.RESTRICTED, False, True),
        (NatKind.PORT_RESTRICTED, False, False),
        (NatKind.SYMMETRIC, False, False),
    ],
)
def test_nat_lets_in_what_its_kind_says(kind, from_other, from_other_port):
    net = Net(kind)
    public = net.mapped()
    assert public.ip == parse_ip("203.0.113.1")
    other_port = net.bind("other port", AddrPort(SERVER.ip, 99))
    net.server.send(public, b"answer")
    net.other.send(public, b"other")
    other_port.send(public, b"other port")
    net.settle()
    expected = {b"answer"} | ({b"other"} if from_other else set()) | ({b"other port"} if from_other_port else set())
    assert {data for _, data in net.got["client"]} == expected


@pytest.mark.parametrize(("kind", "same"), [(NatKind.PORT_RESTRICTED, True), (NatKind.SYMMETRIC, False)])
def test_nat_mapping_depends_on_the_destination_only_when_symmetric(kind, same):
    net = Net(kind)
    public = net.mapped()
    net.client.send(OTHER, b"x")
    net.settle()
    assert (net.got["other"][0][0] == public) is same


def test_nat_mapping_dies_without_outbound_traffic():
    net = Net(NatKind.FULL_CONE)
    public = net.mapped()
    net.clock.advance(31)
    net.server.send(public, b"late")
    net.settle()
    assert net.got["client"] == []
    assert net.mapped() != public


def test_host_behind_nat_is_not_reached_at_its_inner_address():
    net = Net(NatKind.FULL_CONE)
    net.server.send(net.client.address, b"x")
    net.settle()
    assert net.got["client"] == []
    neighbour = net.bind("neighbour", AddrPort.parse("10.0.0.3:5"), nat=net.nat)
    neighbour.send(net.client.address, b"hello")
    net.settle()
    assert net.got["client"] == [(neighbour.address, b"hello")]
