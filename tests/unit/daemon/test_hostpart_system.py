"""The part of a node that touches the host, as far as it can be tried without touching it."""

from __future__ import annotations

import asyncio
import errno
import os
import pwd
import struct
import sys
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from meshd.base.errors import MeshdError
from meshd.daemon.flags import parse_flags
from meshd.daemon.hostpart import HostPart, open_host
from meshd.host.linux import monitor, rtnetlink
from meshd.wire.netlink import IFF_LOWER_UP, IFF_UP, RTM_NEWADDR, InterfaceAddress, Link, Request


class NoEvents:
    def network_changed(self) -> None: ...

    def routing_lost(self) -> None: ...

    def interface_lost(self) -> None: ...

    def interface_renamed(self) -> None: ...

    def settings_changed(self) -> None: ...


def test_operator_is_looked_up_by_name_or_number() -> None:
    """PP-13: each time, since users come and go; a name that nobody has is nobody's."""
    host = HostPart()
    assert host.uid_of(pwd.getpwuid(os.getuid()).pw_name) == os.getuid()
    assert host.uid_of("4242") == 4242
    for nobody in ("no-such-user-here", "", "-1", "١", "\0", "\udcff", "9" * 5000):
        assert host.uid_of(nobody) is None


def test_tunnel_interface_on_another_system_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """RT-15: nothing is tried that would not work, and the way out is told."""
    monkeypatch.setattr(sys, "platform", "freebsd14")
    with pytest.raises(MeshdError, match="tunnel interfaces are not supported on freebsd14") as caught:
        open_host(parse_flags(["--tun=tun0"]), NoEvents())
    assert "--tun=userspace-networking" in str(caught.value)
    assert open_host(parse_flags(["--tun=tun0,userspace-networking"]), NoEvents()).router is None


def test_host_without_interface_has_no_addresses_to_offer() -> None:
    """PF-04: in userspace mode nothing of the host is let in by a default route."""
    host = HostPart()
    assert (host.attached(), host.own_addresses()) == ([], [])


def test_address_of_an_interface_that_is_down_cannot_be_used() -> None:
    """SM-06, HE-01 `network-status`: it stays on the interface, and is new again when that comes up."""

    class Kernel:
        def __init__(self, flags: int) -> None:
            self.flags = flags

        def links(self) -> list[Link]:
            return [Link(1, "lo", IFF_UP, 65536), Link(2, "eth0", self.flags, 1500), Link(9, "mesh0", IFF_UP, 1280)]

        def addresses(self) -> list[InterfaceAddress]:
            texts = {1: "127.0.0.1", 2: "192.168.1.7", 9: "100.64.0.1"}
            return [InterfaceAddress(number, ip_address(text), 24) for number, text in texts.items()]

    host = HostPart()
    assert host.reachable_addresses() == []
    host._own_index = 9
    for flags, found in ((IFF_UP | IFF_LOWER_UP, ["192.168.1.7"]), (IFF_UP, ["192.168.1.7"]), (0, [])):
        host._netlink = Kernel(flags)  # type: ignore[assignment]
        assert host.reachable_addresses() == list(map(ip_address, found))


def test_host_without_interface_tells_of_changes_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """SM-06: in userspace mode, too, and nobody's interface or routes are missed."""
    told: list[str] = []
    made: list[monitor.NetworkMonitor] = []

    class Watched(monitor.NetworkMonitor):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    class Events(NoEvents):
        def network_changed(self) -> None:
            told.append("changed")

        def interface_lost(self) -> None:
            told.append("lost")

    async def main() -> None:
        host = HostPart()
        host.watch_network(Events())
        watched = made[0]
        watched._look(Request(RTM_NEWADDR, 0, struct.pack("=4BI2H4s", 2, 24, 0, 0, 7, 8, 2, bytes(4))).pack(1))
        watched._networks = frozenset({(7, ip_address("192.0.2.1"), 24)})
        watched._look_again()
        watched._fire()
        assert told == ["changed"]
        host.close()
        assert watched._socket.fileno() == -1

    monkeypatch.setattr(monitor, "NetworkMonitor", Watched)
    asyncio.run(main())


def test_host_without_interface_goes_on_where_the_kernel_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox may have no AF_NETLINK."""

    class Refused:
        def __init__(self) -> None:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))

    async def main() -> None:
        host = HostPart()
        host.watch_network(NoEvents())
        assert host.reachable_addresses() == []
        host.close()

    monkeypatch.setattr(rtnetlink, "RtNetlink", Refused)
    asyncio.run(main())


def test_attached_network_is_that_of_the_far_end() -> None:
    """PF-04, RT-12: a link with an address at each end, as of PPP, leads to the other one's network."""

    class Kernel:
        def addresses(self) -> list[InterfaceAddress]:
            return [
                InterfaceAddress(2, ip_address("192.168.1.7"), 24),
                InterfaceAddress(3, ip_address("10.0.0.1"), 24, far=ip_address("10.9.0.1")),
            ]

    host = HostPart()
    host._netlink = Kernel()  # type: ignore[assignment]
    assert host.attached() == [ip_network("192.168.1.0/24"), ip_network("10.9.0.0/24")]
    assert host.own_addresses() == [ip_address("192.168.1.7"), ip_address("10.0.0.1")]
