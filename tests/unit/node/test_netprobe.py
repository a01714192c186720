"""Where the questions of a network check go."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from meshd.base.addr import AddrPort, IPAddress, parse_ip
from meshd.core.relaymap import RelayMap, RelayNode, RelayRegion
from meshd.io.systemclock import SystemClock
from meshd.node import netprobe
from meshd.node.netprobe import NetProber


class Underlay:
    """Sockets that note where something was sent."""

    port_v4, port_v6 = 1, 1

    def __init__(self) -> None:
        self.asked: set[str] = set()

    def send(self, data: bytes, to: AddrPort) -> int:
        self.asked.add(str(to.ip))
        return 0


async def unmeasured(region: RelayRegion) -> float:
    raise OSError("not in this test")


@pytest.mark.parametrize(
    ("stun_test_ip", "asked"),
    [("", {"192.0.2.1", "2001:db8::9"}), ("192.0.2.7", {"192.0.2.7"}), ("2001:db8::7", {"2001:db8::7"})],
)
def test_probe_asks_stun_where_the_map_says(
    monkeypatch: pytest.MonkeyPatch, stun_test_ip: str, asked: set[str]
) -> None:
    """STUNTestIP is the only place where STUN is asked for then, whatever the name leads to."""

    async def resolve(node: RelayNode, family: int) -> IPAddress:
        return parse_ip("2001:db8::9" if family == 6 else "192.0.2.9")

    async def main() -> None:
        monkeypatch.setattr(netprobe, "resolve", resolve)
        underlay, events = Underlay(), Any
        prober = NetProber(
            asyncio.get_running_loop(), SystemClock(), lambda: underlay, events, random=bytes, measure=unmeasured
        )
        relay = RelayNode("a", 1, "relay.test", ipv4="192.0.2.1", stun_test_ip=stun_test_ip)
        prober.set_map(RelayMap({1: RelayRegion(1, "one", "One", (relay,))}))
        prober.start()
        await asyncio.sleep(0.02)
        assert underlay.asked == asked
        prober.abort()

    asyncio.run(main())


def test_probe_forgets_the_addresses_of_relays_that_left_the_map(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that renames its relays for years, and a name that comes back with another address."""

    async def resolve(node: RelayNode, family: int) -> IPAddress:
        return parse_ip("2001:db8::9" if family == 6 else "192.0.2.9")

    def relays(*hosts: str) -> RelayMap:
        nodes = enumerate(hosts, 1)
        return RelayMap({n: RelayRegion(n, "r", "R", (RelayNode("a", n, host),)) for n, host in nodes})

    async def main() -> None:
        monkeypatch.setattr(netprobe, "resolve", resolve)
        prober = NetProber(asyncio.get_running_loop(), SystemClock(), Underlay, Any, random=bytes, measure=unmeasured)
        prober.set_map(relays("old.test", "kept.test"))
        prober.start()
        await asyncio.sleep(0.02)
        assert {host for host, _ in prober._dns} == {"old.test", "kept.test"}
        prober.set_map(relays("kept.test", "new.test"))
        assert {host for host, _ in prober._dns} == {"kept.test"}
        prober.abort()

    asyncio.run(main())
