"""UDP sockets and interface addresses."""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest

from meshd.base.addr import AddrPort, parse_ip
from meshd.base.errors import MeshdError
from meshd.io import interfaces
from meshd.io.interfaces import local_addresses
from meshd.io.mark import mark_socket
from meshd.io.udp import UdpSockets, open_udp_sockets
from meshd.io.wakeonlan import interface_addresses
from meshd.wire import netlink as nl


def test_udp_any_port_is_the_same_for_both_families():
    sockets = open_udp_sockets(0)
    try:
        assert sockets.port_v4
        assert sockets.port_v6 in (0, sockets.port_v4) or sockets.port_v6 > 0
        assert sockets.fds_v4
        assert not sockets.v4.getblocking()
    finally:
        sockets.close()


def test_udp_port_in_use_names_the_way_out():
    taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    taken.bind(("", 0))
    try:
        with pytest.raises(MeshdError) as refused:
            open_udp_sockets(taken.getsockname()[1])
        assert refused.value.code == "port_in_use"
        assert "--port" in refused.value.hint
    finally:
        taken.close()


def test_udp_send_arrives():
    sockets = open_udp_sockets(0)
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", 0))
    receiver.settimeout(5)
    try:
        assert sockets.send(b"hello", AddrPort(parse_ip("127.0.0.1"), receiver.getsockname()[1])) == 0
        assert receiver.recv(100) == b"hello"
    finally:
        sockets.close()
        receiver.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="numbers of Linux")
def test_udp_routers_may_cut_what_we_send_over_ipv4():
    made = open_udp_sockets(0, mark=False, per_port=2)
    assert [s.getsockopt(socket.IPPROTO_IP, 10) for s in (made.v4, *made.more_v4)] == [0, 0]
    made.close()


def test_udp_send_without_the_family_is_an_errno():
    assert UdpSockets(None, None).send(b"x", AddrPort.parse("192.0.2.1:1")) == errno.EAFNOSUPPORT


def test_udp_send_too_large_is_an_errno():
    sockets = open_udp_sockets(0)
    try:
        assert sockets.send(bytes(70000), AddrPort.parse("127.0.0.1:9")) == errno.EMSGSIZE
    finally:
        sockets.close()


def test_mark_leaves_local_connections_alone():
    with socket.socket() as sock:
        assert mark_socket(sock, parse_ip("127.0.0.1")) is False


def test_interfaces_address_that_packets_would_leave_from():
    assert interfaces.address_towards(parse_ip("127.0.0.7")) == parse_ip("127.0.0.1")
    assert interfaces.address_towards(parse_ip("255.255.255.255")) is None, "nobody may send there unasked"
    assert interfaces.addresses_out() <= {*local_addresses()}


def test_interfaces_list_loopback():
    assert parse_ip("127.0.0.1") in local_addresses()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="netlink is Linux's")
def test_interfaces_are_read_together(monkeypatch):
    """Each was asked for by reading all of them: with 500 the daemon stood still for seconds at every change."""
    import netifaces

    from meshd.host.linux.rtnetlink import RtNetlink

    monkeypatch.setattr(netifaces, "ifaddresses", None)
    assert parse_ip("127.0.0.1") in local_addresses()
    links = [
        nl.Link(3, "b", nl.IFF_UP, 1500),
        nl.Link(2, "a", nl.IFF_UP | nl.IFF_RUNNING, 1500),
        nl.Link(4, "c", 0, 1500),
    ]
    held = [(2, "fe80::2"), (3, "fd00::3"), (4, "10.0.0.4"), (2, "10.0.0.2"), (3, "10.0.0.3"), (9, "10.0.0.9")]
    addresses = [nl.InterfaceAddress(interface, parse_ip(text), 24) for interface, text in held]
    monkeypatch.setattr(RtNetlink, "links", lambda _: links)
    monkeypatch.setattr(RtNetlink, "addresses", lambda _: addresses)
    assert [str(ip) for ip in local_addresses()] == ["10.0.0.3", "fd00::3", "10.0.0.2", "fe80::2"]


def no_netlink():
    raise OSError(97, "Address family not supported by protocol")


@pytest.mark.parametrize(
    "gone", [ValueError("You must specify a valid interface name."), OSError(19, "No such device")]
)
def test_interface_that_vanishes_while_it_is_read_hides_no_other(monkeypatch, gone):
    """A container that stops takes its interface along; the network change was lost then."""
    import netifaces

    addresses = netifaces.ifaddresses

    def ifaddresses(name):
        if name == "gone0":
            raise gone
        return addresses(name)

    monkeypatch.setattr(netifaces, "interfaces", lambda: ["gone0", "lo"])
    monkeypatch.setattr(netifaces, "ifaddresses", ifaddresses)
    monkeypatch.setattr(interfaces, "_is_up", lambda *_: True)
    monkeypatch.setattr(interfaces, "_by_netlink", no_netlink)
    assert parse_ip("127.0.0.1") in local_addresses()
    assert ("lo", parse_ip("127.0.0.1")) in interface_addresses()


@pytest.fixture
def three() -> Iterator[UdpSockets]:
    sockets = open_udp_sockets(0, per_port=3)
    yield sockets
    sockets.close()


def test_udp_several_sockets_share_the_port_of_each_family(three):
    assert three.per_port == 3
    assert len(three.fds_v4) == 3
    assert {sock.getsockname()[1] for sock in (three.v4, *three.more_v4)} == {three.port_v4}
    assert {sock.getsockname()[1] for sock in (three.v6, *three.more_v6) if sock is not None} == {three.port_v6}
    assert not any(sock.getblocking() for sock in (*three.more_v4, *three.more_v6))


def test_udp_shared_port_is_not_open_to_another_daemon(three):
    """Two daemons on one port would each lose half of their packets."""
    with pytest.raises(MeshdError) as refused:
        open_udp_sockets(three.port_v4, per_port=3)
    assert refused.value.code == "port_in_use"


def test_udp_shared_port_is_free_again_after_closing(three):
    port = three.port_v4
    three.close()
    again = open_udp_sockets(port, per_port=3)
    try:
        assert again.port_v4 == port
        assert len(again.fds_v4) == 3
    finally:
        again.close()


def test_udp_every_shared_socket_receives(three):
    senders = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(64)]
    try:
        for sender in senders:
            sender.sendto(b"x", ("127.0.0.1", three.port_v4))
        counts = []
        for sock in (three.v4, *three.more_v4):
            counts.append(0)
            with suppress(BlockingIOError):
                while sock.recv(10):
                    counts[-1] += 1
        assert sum(counts) == len(senders)
        assert all(counts)
    finally:
        for sender in senders:
            sender.close()


def test_udp_port_that_cannot_be_shared_has_one_socket(monkeypatch):
    real = socket.socket.setsockopt

    def refuse(self, level, option, value):
        if option == socket.SO_REUSEPORT:
            raise OSError(errno.ENOPROTOOPT, "no")
        return real(self, level, option, value)

    monkeypatch.setattr(socket, "socket", type("Refusing", (socket.socket,), {"setsockopt": refuse}))
    sockets = open_udp_sockets(0, per_port=3)
    assert sockets.per_port == 1
    sockets.close()
