"""Resolvers on 127.0.0.1 that do what a test wants."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Self

from meshd.wire import dnsmessage as dns
from meshd.wire.control import Resolver


def reply(query: bytes, *, code: int = dns.SUCCESS, answers: int = 1, flags: int = 0, ip: int = 9) -> bytes:
    """A response with some addresses for any question."""
    asked = dns.decode_query(query)
    records = [dns.Record(dns.A, 60, bytes([192, 0, n >> 8, n & 255 or ip])) for n in range(answers)]
    response = dns.encode_response(asked._replace(opt_at=0), code, records)
    return response[:2] + (int.from_bytes(response[2:4], "big") | flags).to_bytes(2, "big") + response[4:]


Behaviour = Callable[[bytes], list[bytes]]


class FakeResolver(asyncio.DatagramProtocol):
    """UDP and TCP on one port; ``udp`` and ``tcp`` give the datagrams or messages for a query."""

    def __init__(self, udp: Behaviour, tcp: Behaviour | None = None) -> None:
        self.udp = udp
        self.tcp = tcp
        self.queries: list[bytes] = []
        self.asked = asyncio.Event()
        self.sources: list[tuple[str, int]] = []
        self.tcp_queries: list[bytes] = []

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        self.transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", self.port))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.transport.close()
        self.server.close()
        await self.server.wait_closed()

    @property
    def resolver(self) -> Resolver:
        return Resolver(addr=f"127.0.0.1:{self.port}")

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.queries.append(data)
        self.sources.append(addr)
        self.asked.set()
        for answer in self.udp(data):
            self.transport.sendto(answer, addr)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            query = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
            self.tcp_queries.append(query)
            for answer in (self.tcp or self.udp)(query):
                writer.write(len(answer).to_bytes(2, "big") + answer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def silent(_: bytes) -> list[bytes]:
    return []


def good(query: bytes) -> list[bytes]:
    return [reply(query)]
