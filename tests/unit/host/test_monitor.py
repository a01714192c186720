"""Which changes of the host's network are told, and when; the kernel's messages are in tests/e2e/test_router.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from meshd.base.addr import parse_ip
from meshd.host.linux.monitor import NetworkMonitor
from meshd.testing.clock import FakeClock
from meshd.testing.loop import FakeTimeLoop
from meshd.wire.netlink import InterfaceAddress

UPLINK = InterfaceAddress(2, parse_ip("192.0.2.7"), 24)
BRIDGE = InterfaceAddress(3, parse_ip("172.18.0.1"), 16)
OWN = 99


class Host:
    """An uplink and, at times, a bridge. ``told`` are the times at which a change was told."""

    def __init__(self) -> None:
        self.loop = FakeTimeLoop(FakeClock())
        self.addresses = [UPLINK]
        self.way_out = {UPLINK.local}
        self.told: list[float] = []
        self.looks = 0
        self.monitor = NetworkMonitor(
            self.loop,
            OWN,
            "mesh0",
            52,
            lambda: self.told.append(self.loop.time()),
            lambda route: True,
            lambda: None,
            lambda: None,
            lambda name: None,
            lambda: None,
            self.look,
            lambda: frozenset(self.way_out),
        )

    def look(self) -> list[InterfaceAddress]:
        self.looks += 1
        return self.addresses

    def set(self, *addresses: InterfaceAddress) -> None:
        changed = {address.interface for address in set(self.addresses).symmetric_difference(addresses)}
        self.addresses = list(addresses)
        for interface in changed:
            self.monitor._note_change_of(interface)
        self.loop.run_for(0.5)

    def flap(self, times: int) -> None:
        for _ in range(times):
            self.set(UPLINK, BRIDGE)
            self.set(UPLINK)

    def close(self) -> None:
        self.monitor.close()
        self.loop.close()


@pytest.fixture
def host() -> Iterator[Host]:
    made = Host()
    yield made
    made.close()


def test_monitor_tells_a_few_changes_of_bridges_as_they_come(host: Host) -> None:
    host.flap(3)
    assert len(host.told) == 6


def test_monitor_tells_of_bridges_that_flap_every_ten_seconds(host: Host) -> None:
    host.flap(120)
    assert 6 + 10 <= len(host.told) <= 6 + 12
    assert host.looks <= 1 + 6 + 2 * 12, "every look reads all addresses of the host"


def test_monitor_tells_of_the_last_change_in_the_end(host: Host) -> None:
    host.flap(5)
    host.set(UPLINK, BRIDGE)
    before = len(host.told)
    host.loop.run_for(10)
    assert len(host.told) == before + 1
    host.loop.run_for(60)
    assert len(host.told) == before + 1


@pytest.mark.parametrize("change", ["address", "more", "route"])
def test_monitor_tells_of_the_way_out_at_once_however_bridges_flap(host: Host, change: str) -> None:
    host.flap(20)
    before = len(host.told)
    if change == "address":
        host.way_out = {parse_ip("192.0.2.8")}
        host.set(InterfaceAddress(2, parse_ip("192.0.2.8"), 24))
    elif change == "more":
        host.set(UPLINK, InterfaceAddress(2, parse_ip("192.0.2.9"), 24))
    else:
        host.monitor._note_change(certain=True)
        host.loop.run_for(0.5)
    assert len(host.told) == before + 1
    host.loop.run_for(60)
    assert len(host.told) == before + 1, "and nothing waits any more"


def test_monitor_without_a_way_out_tells_everything_at_once(host: Host) -> None:
    host.way_out = set()
    host.set(BRIDGE)
    before = len(host.told)
    for _ in range(10):
        host.set()
        host.set(BRIDGE)
    assert len(host.told) == before + 20
