"""Keeping own sockets out of the tunnel."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshd.base.addr import parse_ip
from meshd.io import mark

HEAD = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"


@pytest.fixture(autouse=True)
def forgotten_switch() -> Iterator[None]:
    mark._binds.cache_clear()
    yield
    mark._binds.cache_clear()


def routes(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "route"
    path.write_text(HEAD + "".join(line.replace(" ", "\t") + "\n" for line in lines))
    return path


def test_default_device_has_the_lowest_metric_and_is_up(tmp_path: Path) -> None:
    path = routes(
        tmp_path,
        "eth0 0000000A 00000000 0001 0 0 0 000000FF 0 0 0",
        "wlan0 00000000 0100000A 0003 0 0 600 00000000 0 0 0",
        "eth1 00000000 0100000A 0002 0 0 1 00000000 0 0 0",
        "eth0 00000000 0100000A 0003 0 0 100 00000000 0 0 0",
        "tun0 00000000 0100000A 0003 0 0 0 00000080 0 0 0",
        "broken",
    )
    assert mark.default_device(path) == "eth0"


def test_default_device_without_default_route_is_none(tmp_path: Path) -> None:
    assert mark.default_device(routes(tmp_path)) == ""
    assert mark.default_device(tmp_path / "none") == ""


def test_sockets_are_bound_to_the_outgoing_interface_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """TS_FORCE_LINUX_BIND_TO_DEVICE: instead of a mark; without a default route nothing leaves."""
    monkeypatch.setenv("TS_FORCE_LINUX_BIND_TO_DEVICE", "1")
    monkeypatch.setattr(mark, "default_device", lambda: "")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        assert mark.mark_socket(sock) is False
        assert sock.getsockopt(socket.SOL_SOCKET, mark.SO_BINDTODEVICE, 16).rstrip(b"\0") == b"lo"
        assert sock.getsockopt(socket.SOL_SOCKET, mark.SO_MARK) == 0
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        mark.mark_socket(sock, parse_ip("127.0.0.1"))
        assert sock.getsockopt(socket.SOL_SOCKET, mark.SO_BINDTODEVICE, 16) == b""
    monkeypatch.setattr(mark, "default_device", lambda: "eth7")
    assert mark.bound_device() == "eth7"


def test_sockets_carry_a_mark_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TS_FORCE_LINUX_BIND_TO_DEVICE", raising=False)
    assert mark.bound_device() == ""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        marked = mark.mark_socket(sock)
        assert sock.getsockopt(socket.SOL_SOCKET, mark.SO_MARK) == (mark.SOCKET_MARK if marked else 0)
