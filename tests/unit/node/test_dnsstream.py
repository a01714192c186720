"""Questions over TCP."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from meshd.core.dnscompile import ResolverConfig
from meshd.node import dnsstream
from meshd.node.dnsresolver import NodeResolver
from meshd.node.dnsstream import DnsStream
from meshd.wire import dnsmessage as dns
from meshd.wire.control import Resolver
from tests.unit.core.mapworld import joined, node
from tests.unit.node.dnsworld import FakeResolver, reply, silent


class World:
    def __init__(self) -> None:
        netmap = joined(node(2), DNSConfig={"Proxied": True}).netmap
        self.resolver = NodeResolver(lambda: netmap, lambda _: None, {})
        self.gone = asyncio.Event()
        self.used = 0
        ours, self.theirs = socket.socketpair()
        for sock in (ours, self.theirs):
            sock.setblocking(False)
        self.stream = DnsStream(self.resolver, ours, self._used, lambda _: self.gone.set())

    def _used(self, _: DnsStream) -> None:
        self.used += 1

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(sock=self.theirs)


def run(test: Callable[[World, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> World:
    async def body() -> World:
        world = World()
        reader, writer = await world.open()
        try:
            await test(world, reader, writer)
        finally:
            writer.close()
            world.stream.abort()
            await world.gone.wait()
            world.resolver.close()
        return world

    return asyncio.run(body())


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


async def message(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))


OWN = dns.encode_query(1, "n2.mesh.test", dns.A)


def test_stream_pieces_of_questions_make_questions() -> None:
    """RFC 7766 8: bytes arrive as they like."""

    async def test(world: World, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for byte in framed(OWN):
            writer.write(bytes([byte]))
            await writer.drain()
        assert (await message(reader)).endswith(bytes([100, 64, 0, 2]))

    assert run(test).used == 1


def test_stream_answers_come_as_they_are_ready_and_after_the_client_closed_its_side() -> None:
    """RFC 7766 6.2.1.1, 7."""

    async def test(world: World, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held, release = asyncio.Event(), asyncio.Event()

        async def later(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            query = await message(reader)
            held.set()
            await release.wait()
            writer.write(framed(reply(query)))
            writer.close()

        server = await asyncio.start_server(later, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        world.resolver.configure(ResolverConfig({"": (Resolver(addr=f"127.0.0.1:{port}"),)}))
        writer.write(framed(dns.encode_query(2, "example.org", dns.A)) + framed(OWN))
        writer.write_eof()
        assert (await message(reader))[:2] == b"\0\1"
        await held.wait()
        release.set()
        assert (await message(reader))[:2] == b"\0\2"
        assert await reader.read() == b""
        await world.gone.wait()
        server.close()

    run(test)


def test_stream_of_nonsense_ends() -> None:
    async def test(world: World, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(framed(b"x" * 40) + (dnsstream.MAX_QUESTION + 1).to_bytes(2, "big"))
        assert (await message(reader))[2:4] != b""
        assert await reader.read() == b""
        await world.gone.wait()

    assert run(test).resolver.counters["dns_malformed"] == 2


def test_stream_reads_no_more_than_it_can_answer() -> None:
    """DN-12: so many questions under way for one connection, the others wait."""

    async def test(world: World, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with FakeResolver(silent) as fake:
            enough = asyncio.Event()

            def hold(query: bytes) -> list[bytes]:
                if len(fake.queries) == dnsstream.MAX_WAITING:
                    enough.set()
                return []

            fake.udp, fake.tcp = hold, silent
            world.resolver.configure(ResolverConfig({"": (fake.resolver,)}))
            for n in range(dnsstream.MAX_WAITING + 10):
                writer.write(framed(dns.encode_query(n, f"n{n}.test", dns.A)))
            await enough.wait()
            assert world.stream.waiting == dnsstream.MAX_WAITING

    assert run(test).used == dnsstream.MAX_WAITING


@pytest.mark.parametrize("speaks", [False, True])
def test_stream_that_is_idle_ends(monkeypatch: Any, speaks: bool) -> None:
    """RFC 7766 6.2.3: silent ones, and those that never end a question."""
    monkeypatch.setattr(dnsstream, "IDLE_S", 0.02)

    async def test(world: World, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if speaks:
            writer.write(b"\0")
        assert await reader.read() == b""
        await world.gone.wait()

    run(test)
