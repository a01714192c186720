"""Asking other resolvers."""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from meshd.node import dnsforwarder
from meshd.node.dnsforwarder import Forwarder
from meshd.wire import dnsmessage as dns
from meshd.wire import dnsresponse
from meshd.wire.control import Resolver
from tests.unit.node.dnsworld import FakeResolver, good, reply, silent


class World:
    def __init__(self, **options: Any) -> None:
        self.counters: Counter[str] = Counter()
        self.reports: list[str] = []
        self.forwarder = Forwarder(self.counters, self.reports.append, **options)

    async def ask(self, message: bytes, *resolvers: FakeResolver | Resolver, tcp: bool = False) -> bytes:
        chosen = [one.resolver if isinstance(one, FakeResolver) else one for one in resolvers]
        return await self.forwarder.ask(dns.decode_query(message), message, chosen, tcp=tcp)


def run(test: Callable[[World], Awaitable[None]], **options: Any) -> World:
    async def body() -> World:
        world = World(**options)
        try:
            await test(world)
        finally:
            world.forwarder.close()
        return world

    return asyncio.run(body())


def query(name: str = "Example.org", number: int = 7, payload: int = 0) -> bytes:
    message = dns.encode_query(number, name, dns.A)
    if not payload:
        return message
    return message[:10] + b"\0\1" + message[12:] + b"\0" + dns.RECORD.pack(dns.OPT, payload, 0, 0)


def code(response: bytes) -> int:
    return dnsresponse.code_of(response)


def test_forwarder_answer_has_the_number_and_spelling_of_its_asker() -> None:
    """DN-12: the number on the wire is another, at random, and so is the port."""

    async def test(world: World) -> None:
        async with FakeResolver(good) as resolver:
            for number in range(40):
                message = query(number=number)
                got = await world.ask(message, resolver)
                assert (got[:2], got[12 : len(message)]) == (message[:2], message[12:])
            numbers = {asked[:2] for asked in resolver.queries}
            ports = [port for _, port in resolver.sources]
            assert len(numbers) > 30
            assert len(set(ports)) > 30
            steps = {b - a for a, b in itertools.pairwise(ports)}
            assert len(steps) > 20, "ports that follow each other are easily guessed"

    world = run(test)
    assert world.counters["dns_forward_answers"] == 40
    assert set(world.reports) == {""}


def test_forwarder_takes_nothing_that_was_not_asked() -> None:
    """DN-12: wrong numbers, wrong questions, questions and junk are passed over and counted."""

    def noisy(asked: bytes) -> list[bytes]:
        other = reply(dns.encode_query(0, "evil.example", dns.A))
        right = reply(asked)
        wrong_number = bytes([asked[0] ^ 1]) + right[1:]
        return [b"junk", wrong_number, asked[:2] + other[2:], asked, right]

    async def test(world: World) -> None:
        async with FakeResolver(noisy) as resolver:
            assert (await world.ask(query(), resolver))[12:] == reply(query())[12:]

    assert run(test).counters["dns_stray_datagrams"] == 4


def test_forwarder_leaves_a_port_at_which_somebody_guesses() -> None:
    """DN-12: after a few wrong answers the question goes over TCP, where nobody can guess."""

    def forging(asked: bytes) -> list[bytes]:
        return [bytes([asked[0], asked[1] ^ n]) + reply(asked, ip=66)[2:] for n in range(1, 20)] + [reply(asked, ip=66)]

    async def test(world: World) -> None:
        async with FakeResolver(forging, good) as resolver:
            assert (await world.ask(query(), resolver)).endswith(bytes([192, 0, 0, 9]))
            assert len(resolver.tcp_queries) == 1

    run(test)


def test_forwarder_answers_from_elsewhere_never_arrive() -> None:
    """DN-12: a correct answer from another port of the same address."""

    async def test(world: World) -> None:
        async with FakeResolver(silent) as other, FakeResolver(silent, good) as resolver:

            def forged(asked: bytes) -> list[bytes]:
                other.transport.sendto(reply(asked, ip=66), resolver.sources[-1])
                return [reply(asked)]

            resolver.udp = forged
            assert (await world.ask(query(), resolver)).endswith(bytes([192, 0, 0, 9]))

    assert run(test).counters["dns_stray_datagrams"] == 0


def test_forwarder_equal_questions_are_asked_once() -> None:
    """DN-12."""

    async def test(world: World) -> None:
        async with FakeResolver(silent) as resolver:
            asked: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

            def later(message: bytes) -> list[bytes]:
                asked.set_result(message)
                return []

            resolver.udp = later
            messages = [query("eXample.org" if n % 2 else "example.ORG", number=n) for n in range(50)]
            tasks = [asyncio.create_task(world.ask(message, resolver)) for message in messages]
            resolver.transport.sendto(reply(await asked), resolver.sources[0])
            for message, task in zip(messages, tasks, strict=True):
                assert (await task)[: len(message)] == reply(message)[: len(message)]
            assert len(resolver.queries) == 1
            assert world.forwarder.under_way == 0

    assert run(test).counters["dns_joined"] == 49


def test_forwarder_one_asker_that_leaves_takes_nothing_from_others() -> None:
    async def test(world: World) -> None:
        async with FakeResolver(silent) as resolver:
            first = asyncio.create_task(world.ask(query(), resolver))
            second = asyncio.create_task(world.ask(query(), resolver))
            await resolver.asked.wait()
            first.cancel()
            resolver.transport.sendto(reply(resolver.queries[0]), resolver.sources[0])
            assert code(await second) == dns.SUCCESS

    run(test)


def test_forwarder_asks_the_next_resolver_when_one_fails() -> None:
    """DN-12: refusals and failures are not told while another one may know."""

    async def test(world: World) -> None:
        async with (
            FakeResolver(lambda q: [reply(q, code=dns.REFUSED, answers=0)]) as refusing,
            FakeResolver(lambda q: [reply(q, code=dns.SERVER_FAILURE, answers=0)]) as failing,
            FakeResolver(lambda q: [reply(q, code=dns.NAME_ERROR, answers=0)]) as knowing,
        ):
            assert code(await world.ask(query("a.test"), refusing, failing, knowing)) == dns.NAME_ERROR
            assert code(await world.ask(query("b.test"), refusing, failing)) == dns.SERVER_FAILURE
            assert code(await world.ask(query("c.test"), refusing)) == dns.REFUSED

    world = run(test)
    assert world.counters["dns_forward_failures"] == 2
    assert set(world.reports) == {""}, "they are there"


def test_forwarder_resolver_that_is_slower_than_others_is_asked_after_them() -> None:
    """DN-12: a dead resolver costs the first question a moment, not every one."""

    async def test(world: World) -> None:
        async with FakeResolver(silent) as dead, FakeResolver(good) as alive:
            for n in range(5):
                assert code(await world.ask(query(f"n{n}.test"), dead, alive)) == dns.SUCCESS
            assert len(dead.queries) == 1
            assert len(alive.queries) == 5

    run(test)


def test_forwarder_without_any_answer_says_so_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """DN-12."""
    monkeypatch.setattr(dnsforwarder, "PATIENCE_S", 0.05)

    async def test(world: World) -> None:
        async with FakeResolver(silent) as dead:
            assert code(await world.ask(query(), dead)) == dns.SERVER_FAILURE
            assert world.reports == [f"127.0.0.1:{dead.port}"]
            dead.udp = good
            assert code(await world.ask(query(), dead)) == dns.SUCCESS

    world = run(test)
    assert world.reports[1:] == [""]
    assert world.counters["dns_forward_timeouts"] == 1


def test_forwarder_without_a_resolver_that_can_be_asked() -> None:
    async def test(world: World) -> None:
        for addr in ("https://no.example/dns-query", "100.100.100.100", "nonsense"):
            assert code(await world.ask(query(), Resolver(addr=addr))) == dns.SERVER_FAILURE
        assert code(await world.ask(query())) == dns.SERVER_FAILURE

    assert run(test).counters["dns_no_resolver"] == 4


def big(asked: bytes) -> list[bytes]:
    return [reply(asked, answers=200)]


def cut(asked: bytes) -> list[bytes]:
    return [reply(asked, flags=dns.TRUNCATED)]


def test_forwarder_answer_that_was_cut_is_fetched_by_tcp() -> None:
    """DN-12: for those who can take it: they asked by TCP, or for more than we ask others for over UDP."""

    async def test(world: World) -> None:
        async with FakeResolver(cut, big) as resolver:
            assert len(await world.ask(query("a.test", payload=4096), resolver)) > 3000
            assert dns.decode_query(resolver.queries[0]).payload == dns.OWN_PAYLOAD
            assert len(await world.ask(query("b.test"), resolver, tcp=True)) > 3000
            assert len(resolver.tcp_queries) == 2
            assert len(resolver.queries) == 2
            assert dnsresponse.is_truncated(await world.ask(query("c.test"), resolver))
            assert dnsresponse.is_truncated(await world.ask(query("d.test", payload=1232), resolver))
            assert len(resolver.tcp_queries) == 2

    run(test)


def test_forwarder_answer_that_was_cut_is_better_than_none() -> None:
    """DN-12: TCP is tried, and the resolver does not speak it."""

    async def test(world: World) -> None:
        async with FakeResolver(cut, silent) as resolver:
            assert dnsresponse.is_truncated(await world.ask(query("a.test", payload=4096), resolver))
            assert dnsresponse.is_truncated(await world.ask(query("b.test"), resolver, tcp=True))
            assert resolver.tcp_queries

    run(test)


def test_forwarder_uses_no_tcp_where_the_network_forbids_it() -> None:
    """DN-12: dns-forwarder-disable-tcp-retries."""

    async def test(world: World) -> None:
        async with FakeResolver(cut, big) as resolver:
            assert dnsresponse.is_truncated(await world.ask(query("a.test", payload=9000), resolver))
            assert dnsresponse.is_truncated(await world.ask(query("b.test"), resolver, tcp=True))
            assert dns.decode_query(resolver.queries[0]).payload == dnsforwarder.LONGEST_UDP
            assert resolver.tcp_queries == []

    run(test, retries_tcp=lambda: False)


def test_forwarder_silence_over_udp_leads_to_tcp(monkeypatch: pytest.MonkeyPatch) -> None:
    """DN-12."""
    monkeypatch.setattr(dnsforwarder, "TCP_HEAD_START_S", 0.01)

    async def test(world: World) -> None:
        async with FakeResolver(silent, good) as resolver:
            assert code(await world.ask(query(), resolver)) == dns.SUCCESS
        async with FakeResolver(good, silent) as resolver:
            assert code(await world.ask(query(), resolver, tcp=True)) == dns.SUCCESS

    run(test)


def test_forwarder_tcp_answers_are_checked_too() -> None:
    async def test(world: World) -> None:
        for answer in (b"", b"x" * 40, reply(dns.encode_query(0, "evil.example", dns.A))):
            async with FakeResolver(cut, lambda q, answer=answer: [q[:2] + answer[2:]]) as resolver:  # type: ignore[misc]
                assert dnsresponse.is_truncated(await world.ask(query("a.test", payload=4096), resolver))

    run(test)


def test_forwarder_failure_without_a_question_becomes_a_whole_answer() -> None:
    """Servers that do not understand a request answer with a header alone."""

    async def test(world: World) -> None:
        async with FakeResolver(lambda q: [q[:2] + b"\x81\x01" + bytes(8)]) as resolver:
            message = query(payload=1232)
            got = await world.ask(message, resolver)
            assert code(got) == dns.FORMAT_ERROR
            assert got[12 : 12 + 17] == message[12 : 12 + 17]

    run(test)


def test_forwarder_failure_with_nothing_but_its_reason_becomes_a_whole_answer() -> None:
    """RFC 8914: the reason stands in an OPT record, which is longer than a short question."""
    reason = struct.pack("!HHH", 15, 12, 18) + b"Prohibited"
    extra = b"\0" + dns.RECORD.pack(dns.OPT, 1232, 0, len(reason)) + reason

    async def test(world: World) -> None:
        async with FakeResolver(lambda q: [q[:2] + b"\x81\x05" + bytes(7) + b"\1" + extra]) as resolver:
            message = query("a.io", payload=1232)
            got = await world.ask(message, resolver)
            assert code(got) == dns.REFUSED
            assert got[12:22] == message[12:22]
            assert struct.unpack_from("!4H", got, 4) == (1, 0, 0, 1)
            assert dns.skip_record(got, 22)[0] == dns.OPT

    run(test)


def test_forwarder_types_are_no_letters() -> None:
    """DN-12: type 97 is not type 65 in another case."""

    async def test(world: World) -> None:
        async with FakeResolver(silent) as resolver:

            def when_both_came(_: bytes) -> list[bytes]:
                if len(resolver.queries) == 2:
                    for asked, source in zip(resolver.queries, resolver.sources, strict=True):
                        resolver.transport.sendto(reply(asked, ip=asked[-3]), source)
                return []

            resolver.udp = when_both_came
            messages = [dns.encode_query(7, "a.test", kind) for kind in (65, 97)]
            tasks = [asyncio.create_task(world.ask(message, resolver)) for message in messages]
            for message, task in zip(messages, tasks, strict=True):
                assert (await task)[-1] == message[-3]

    assert run(test).counters["dns_joined"] == 0


def test_forwarder_flood_is_bounded() -> None:
    """DN-12: beyond so many exchanges askers are told at once, and nothing more goes out."""

    async def test(world: World) -> None:
        async with FakeResolver(silent) as resolver:
            tasks = [
                asyncio.create_task(world.ask(query(f"n{n}.test"), resolver))
                for n in range(dnsforwarder.MAX_UNDER_WAY + 100)
            ]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            while len(done) < 100:
                more, _ = await asyncio.wait(set(tasks) - done, return_when=asyncio.FIRST_COMPLETED)
                done |= more
            assert {code(task.result()) for task in done} == {dns.SERVER_FAILURE}
            assert world.forwarder.under_way == dnsforwarder.MAX_UNDER_WAY
            for task in tasks:
                task.cancel()

    assert run(test).counters["dns_refused_too_many"] == 100


def test_forwarder_question_that_comes_back_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver of the host that asks us again: the question waits for itself, once, until time is up."""
    monkeypatch.setattr(dnsforwarder, "PATIENCE_S", 0.2)

    async def test(world: World) -> None:
        tasks: list[asyncio.Task[bytes]] = []
        async with FakeResolver(silent) as resolver:

            def back_to_us(asked: bytes) -> list[bytes]:
                tasks.append(asyncio.create_task(world.ask(asked, resolver)))
                return []

            resolver.udp = back_to_us
            assert code(await world.ask(query(), resolver)) == dns.SERVER_FAILURE
            await asyncio.gather(*tasks)
            assert len(resolver.queries) == 1

    run(test)


def test_forwarder_exit_node_is_asked_over_http() -> None:
    """DN-05, EX-07."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        heads.append(head)
        body = reply(await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])))
        kind = b"text/html" if b"/bad" in head else b"application/dns-message"
        status = b"403 No" if b"/no" in head else b"200 OK"
        writer.write(
            b"HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" % (status, kind, len(body)) + body
        )
        writer.close()

    async def test(world: World) -> None:
        server = await asyncio.start_server(serve, "127.0.0.2", 0)
        base = f"http://127.0.0.2:{server.sockets[0].getsockname()[1]}"
        assert code(await world.ask(query(), Resolver(addr=f"{base}/dns-query"))) == dns.SUCCESS
        for bad in ("/bad", "/no"):
            assert code(await world.ask(query(), Resolver(addr=base + bad))) == dns.SERVER_FAILURE
        server.close()

    run(test, is_peer=lambda ip: str(ip) == "127.0.0.2")
    assert heads[0].startswith(b"POST /dns-query HTTP/1.1\r\n")


@pytest.mark.parametrize("claimed", [False, True])
def test_forwarder_local_service_gets_no_request_as_if_it_were_an_exit_node(claimed: bool) -> None:
    """A coordination server names resolvers, and what peers there are; it does not reach what trusts this host."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(1000))
        writer.close()

    async def test(world: World) -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/containers/1/stop"
        assert code(await world.ask(query(), Resolver(addr=address))) == dns.SERVER_FAILURE
        await asyncio.sleep(0.05)
        server.close()

    run(test, is_peer=lambda _: claimed)
    assert [data for data in heard if data] == []
