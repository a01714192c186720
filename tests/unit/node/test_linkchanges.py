"""What a change of the host's addresses does to sockets and paths."""

from __future__ import annotations

import asyncio

import pytest

from meshd.base.addr import parse_ip
from tests.unit.node.pathhost import PathHost, until

UPLINK, OTHER_UPLINK, BRIDGE = map(parse_ip, ("192.0.2.7", "192.0.2.8", "172.18.0.1"))


def at(host, own, *way_out):
    """The host has these addresses, and packets to the internet leave from ``way_out`` while it is there."""
    host.magic._local_addresses = lambda: own
    host.magic._way_out = lambda: frozenset(way_out).intersection(own)
    host.magic._known_addresses, host.magic._sources = own[:], host.magic._way_out()


@pytest.mark.parametrize(
    ("gone", "way_out", "rebinds"), [(BRIDGE, (UPLINK,), False), (UPLINK, (UPLINK,), True), (BRIDGE, (), True)]
)
def test_magicsock_sockets_are_opened_anew_when_the_way_out_is_gone(gone, way_out, rebinds):
    """Bridges of containers come and go, and nothing of ours depends on them."""

    async def main():
        host, rebound, own = PathHost(1), [], [UPLINK, BRIDGE]
        at(host, own, *way_out)
        host.magic.rebind = lambda: rebound.append(True)
        own.remove(gone)
        host.magic.link_changed()
        assert bool(rebound) is rebinds
        host.close()

    asyncio.run(main())


def test_magicsock_path_from_an_address_that_is_gone_is_found_again():
    """Its peer sends there, although our own packets leave from elsewhere by now."""

    async def main():
        a, b = PathHost(1), PathHost(2)
        own = [UPLINK, OTHER_UPLINK, BRIDGE]
        at(a, own, OTHER_UPLINK)
        a.magic._address_towards = lambda far: UPLINK
        a.know(b, endpoints=[b.udp_address], home=0)
        b.know(a, endpoints=[a.udp_address], home=0)
        await a.magic.ping(b.key)
        await until(lambda: a.magic.status(b.key).address is not None)
        own.remove(BRIDGE)
        a.magic.link_changed()
        assert a.magic.status(b.key).address is not None
        own.remove(UPLINK)
        a.magic.link_changed()
        assert a.magic.status(b.key).address is None
        await until(lambda: a.magic.status(b.key).address is not None)
        a.close()
        b.close()

    asyncio.run(main())
