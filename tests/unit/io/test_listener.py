"""The listener of the servers: who may hold how many connections."""

from __future__ import annotations

import asyncio
import resource
import socket

import pytest

from meshd.io import listener as module
from meshd.io.descriptors import RESERVED_DESCRIPTORS, descriptors_for
from meshd.io.listener import SOURCE_SHARE, SniffingListener


class Silent(asyncio.Protocol):
    def __init__(self, released):
        self._released = released

    def connection_lost(self, exc):
        self._released()


async def settled(condition):
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the kernel's doing, which sets no event
            await asyncio.sleep(0.001)


def serve(scenario, maximum=16):
    async def main():
        listening = SniffingListener(lambda _, released: Silent(released), tls=None, max_connections=maximum)
        listening.listen("127.0.0.1", 0)
        clients = []

        def connect(first=b""):
            client = socket.create_connection(("127.0.0.1", listening.port))
            client.sendall(first)
            clients.append(client)
            return client

        try:
            await scenario(listening, connect)
        finally:
            for client in clients:
                client.close()
            listening.close()
            await listening.close_connections(1)
        assert listening.connections == 0

    asyncio.run(main())


def test_listener_one_source_cannot_take_every_connection(monkeypatch):
    monkeypatch.setattr(module, "source_of", lambda address: b"one and the same")

    async def scenario(listening, connect):
        share = 16 // SOURCE_SHARE
        held = [connect(b"x" * (i % 2)) for i in range(share)]  # some are still to say their first byte
        await settled(lambda: listening.connections == share)
        connect()
        await settled(lambda: listening.refused == 1)
        held[0].close()
        held[1].close()
        await settled(lambda: listening.connections == share - 2)
        connect(b"y")
        await settled(lambda: listening.connections == share - 1)
        assert listening.refused == 1

    serve(scenario)


def test_listener_this_host_may_take_every_connection():
    """A reverse proxy brings everybody's."""

    async def scenario(listening, connect):
        for _ in range(17):
            connect()
        await settled(lambda: listening.refused == 1)
        assert listening.connections == 16

    serve(scenario)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%lo", "fe80::2", True),
        ("127.0.0.1", "::1", True),
    ],
)
def test_listener_source_is_an_ipv6_network_or_an_ipv4_address(one, other, same):
    assert (module.source_of(one) == module.source_of(other)) is same


def test_listener_takes_no_more_connections_than_descriptors_allow(monkeypatch):
    """The last descriptors are for the state, not for strangers."""
    limits = {"now": (1024, 2000)}
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits["now"])
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.update(now=new))
    assert descriptors_for(500) == 500
    assert limits["now"] == (1024, 2000)
    assert descriptors_for(16384) == 2000 - RESERVED_DESCRIPTORS
    assert limits["now"] == (2000, 2000)
