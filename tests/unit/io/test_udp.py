"""UDP sockets and interface addresses."""

from __future__ import annotations

import errno
import socket

import pytest

from meshd.base.addr import AddrPort, parse_ip
from meshd.base.errors import MeshdError
from meshd.io.interfaces import local_addresses
from meshd.io.mark import mark_socket
from meshd.io.udp import UdpSockets, open_udp_sockets


def test_udp_any_port_is_the_same_for_both_families():
    sockets = open_udp_sockets(0)
    try:
        assert sockets.port_v4
        assert sockets.port_v6 in (0, sockets.port_v4) or sockets.port_v6 > 0
        assert sockets.fd_v4 >= 0
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


def test_interfaces_list_loopback():
    assert parse_ip("127.0.0.1") in local_addresses()
