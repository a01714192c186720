"""One question to one resolver."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Any

import pytest

from meshd.base.addr import AddrPort, parse_zoned_ip
from meshd.io import dnsexchange
from meshd.io.dnsexchange import MAX_STRAY, UdpQuestion, ask_tcp, is_answer
from meshd.wire import dnsmessage as dns
from tests.unit.node.dnsworld import Behaviour, FakeResolver, good, reply, silent

QUERY = dns.encode_query(77, "Example.org", dns.A)
QUESTION = QUERY[12:]


async def ask_udp(server: AddrPort, stray: Callable[[], None] = lambda: None) -> bytes:
    asked = UdpQuestion(server, QUERY, QUESTION, stray)
    try:
        return await asked.answered
    finally:
        asked.close()


def run(test: Callable[[FakeResolver, AddrPort], Awaitable[None]], udp: Behaviour, tcp: Behaviour = silent) -> None:
    async def body() -> None:
        async with FakeResolver(udp, tcp) as fake:
            await test(fake, AddrPort(ip_address("127.0.0.1"), fake.port))

    asyncio.run(body())


def test_ask_udp_takes_the_answer_and_counts_the_rest() -> None:
    """DN-12."""
    strays: list[int] = []

    async def test(fake: FakeResolver, server: AddrPort) -> None:
        assert await ask_udp(server, lambda: strays.append(1)) == reply(QUERY)

    run(test, lambda q: [b"x", q, reply(q)])
    assert len(strays) == 2


def test_ask_udp_gives_up_where_somebody_guesses() -> None:
    """DN-12."""

    async def test(fake: FakeResolver, server: AddrPort) -> None:
        with pytest.raises(ConnectionError, match="no answer"):
            await ask_udp(server)

    run(test, lambda q: [b"x"] * MAX_STRAY + [reply(q)])


def test_ask_udp_of_nobody_fails_at_once() -> None:
    """The kernel says that nobody listens there; waiting would be in vain."""

    async def test(fake: FakeResolver, server: AddrPort) -> None:
        fake.transport.close()
        await asyncio.sleep(0)
        with pytest.raises(ConnectionRefusedError):
            await ask_udp(server)

    run(test, good)


def test_ask_udp_that_cannot_leave_fails_at_once() -> None:
    async def body() -> None:
        with pytest.raises(OSError, match="Invalid argument|Permission|unreachable"):
            UdpQuestion(AddrPort(ip_address("255.255.255.255"), 53), QUERY, QUESTION, lambda: None)

    asyncio.run(body())


@pytest.mark.parametrize("zone", ["lo", "{index}"])
def test_ask_link_local_goes_to_the_interface_of_its_zone(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """DN-12: names and numbers, as resolv.conf(5) has them."""
    went: list[object] = []

    class Spied(socket.socket):
        def connect(self, address: Any) -> None:
            went.append(address)
            raise OSError("not here")

    monkeypatch.setattr(dnsexchange.socket, "socket", Spied)
    server = AddrPort(parse_zoned_ip("fe80::53%" + zone.format(index=socket.if_nametoindex("lo"))), 53)
    with pytest.raises(OSError, match="not here"):
        asyncio.run(ask_udp(server))
    with pytest.raises(OSError, match="not here"):
        asyncio.run(ask_tcp(server, QUERY, QUESTION))
    assert went == [("fe80::53", 53, 0, socket.if_nametoindex("lo"))] * 2


@pytest.mark.parametrize("zone", ["none-such", "9" * 12])
def test_ask_link_local_of_no_interface_fails_at_once(zone: str) -> None:
    with pytest.raises(OSError, match="no interface"):
        asyncio.run(ask_udp(AddrPort(parse_zoned_ip(f"fe80::53%{zone}"), 53)))


def test_ask_udp_that_nobody_waits_for_is_let_go() -> None:
    async def test(fake: FakeResolver, server: AddrPort) -> None:
        asked = UdpQuestion(server, QUERY, QUESTION, lambda: None)
        asked.close()
        asked.close()
        assert asked.answered.cancelled()

    run(test, good)


def test_ask_tcp_reads_exactly_one_answer() -> None:
    async def test(fake: FakeResolver, server: AddrPort) -> None:
        assert await ask_tcp(server, QUERY, QUESTION) == reply(QUERY)
        assert fake.tcp_queries == [QUERY]

    run(test, silent, lambda q: [reply(q), b"more"])


def test_ask_tcp_of_others_answers_fails() -> None:
    """DN-12."""
    for answer, words in ((b"", "another question"), (b"x" * 50, "another question")):

        async def test(fake: FakeResolver, server: AddrPort, words: str = words) -> None:
            with pytest.raises(ConnectionError, match=words):
                await ask_tcp(server, QUERY, QUESTION)

        run(test, silent, lambda _, answer=answer: [answer])  # type: ignore[misc]

    async def closed(fake: FakeResolver, server: AddrPort) -> None:
        with pytest.raises(ConnectionError, match="closed"):
            await ask_tcp(server, QUERY, QUESTION)

    run(closed, silent, silent)


def test_is_answer_also_takes_failures_without_a_question() -> None:
    assert is_answer(QUERY, QUESTION, reply(QUERY))
    assert is_answer(QUERY, QUESTION, QUERY[:2] + b"\x81\x04" + bytes(8))
    assert not is_answer(QUERY, QUESTION, b"")
