"""Waking hosts."""

from __future__ import annotations

from typing import Self

import pytest

from meshd.base.addr import parse_ip
from meshd.io import wakeonlan
from meshd.io.wakeonlan import magic_packet, parse_mac, wake

MAC = bytes.fromhex("001122334455")


@pytest.mark.parametrize("text", ["00:11:22:33:44:55", "00-11-22-33-44-55"])
def test_mac_in_both_spellings(text: str) -> None:
    assert parse_mac(text) == MAC


@pytest.mark.parametrize("text", ["", "00:11:22:33:44", "00:11:22:33:44:5g", "001122334455", "00:11-22:33:44:55"])
def test_mac_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no hardware address"):
        parse_mac(text)


def test_wake_sends_one_packet_from_each_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    """c2n:/wol: not into the mesh, not to this host; what fails is told beside what was sent."""
    sent = []

    class Socket:
        def __init__(self, *_: int) -> None:
            self.source = ""

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def setsockopt(self, *_: int) -> None:
            pass

        def bind(self, address: tuple[str, int]) -> None:
            self.source = address[0]

        def sendto(self, data: bytes, to: tuple[str, int]) -> None:
            if self.source == "192.0.2.3":
                raise OSError(101, "Network is unreachable")
            sent.append((self.source, data, to))

    monkeypatch.setattr(wakeonlan.socket, "socket", Socket)
    places = [("lo", "127.0.0.1"), ("eth1", "192.0.2.2"), ("eth0", "192.0.2.1"), ("eth0", "192.0.2.9")]
    places += [("mesh0", "100.64.0.1"), ("down0", "192.0.2.3"), ("eth0", "2001:db8::1")]
    woken = wake([MAC], lambda: [(name, parse_ip(ip)) for name, ip in places])
    assert woken == (["eth0", "eth1"], ["down0: Network is unreachable"])
    assert sorted(sent) == [
        (source, b"\xff" * 6 + MAC * 16, ("255.255.255.255", 9)) for source in ("192.0.2.1", "192.0.2.2")
    ]
    assert len(magic_packet(MAC)) == 102


def test_interface_addresses_of_this_host_are_found() -> None:
    assert ("lo", parse_ip("127.0.0.1")) in wakeonlan.interface_addresses()
