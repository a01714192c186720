"""The resolver of a node: questions as they come over the wire and from the LocalAPI."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from meshd.base.errors import MeshdError
from meshd.core.dnscompile import ResolverConfig
from meshd.node.dnsresolver import Asking, NodeResolver
from meshd.wire import dnsmessage as dns
from meshd.wire import dnsresponse
from meshd.wire.control import Resolver
from tests.unit.core.mapworld import joined, node
from tests.unit.node.dnsworld import FakeResolver, good, reply

CONFIG: dict[str, Any] = {"Proxied": True}
LOCAL = ResolverConfig(local_domains=("mesh.test",))


def run(
    test: Callable[[NodeResolver], Awaitable[None]], environment: Mapping[str, str] | None = None, **fields: Any
) -> NodeResolver:
    async def body() -> NodeResolver:
        netmap = joined(node(2), DNSConfig=CONFIG | fields).netmap
        made = NodeResolver(lambda: netmap, lambda _: None, environment or {})
        made.configure(LOCAL)
        try:
            await test(made)
        finally:
            made.close()
        return made

    return asyncio.run(body())


def test_resolver_query_of_the_network_is_answered_here() -> None:
    """LA dns-query, DN-14."""

    async def test(made: NodeResolver) -> None:
        got = await made.query_json("n2.mesh.test", "")
        assert b64decode(got["Bytes"]).endswith(bytes([100, 64, 0, 2]))
        assert got["Resolvers"] is None
        assert dnsresponse.code_of(b64decode((await made.query_json("n2", "aaaa"))["Bytes"])) == dns.SUCCESS

    run(test)


def test_resolver_query_of_others_is_forwarded() -> None:
    """LA dns-query, DN-14: whoever is in charge is named, also those that we cannot ask."""

    async def test(made: NodeResolver) -> None:
        async with FakeResolver(good) as fake:
            made.configure(ResolverConfig({"": (Resolver(addr="https://no.example"), fake.resolver)}))
            got = await made.query_json("example.org", "mx")
            assert dns.decode_query(fake.queries[0]).kind == 15
            assert dnsresponse.code_of(b64decode(got["Bytes"])) == dns.SUCCESS
            assert [r["Addr"] for r in got["Resolvers"]] == ["https://no.example", f"127.0.0.1:{fake.port}"]

    run(test)


def test_resolver_query_that_nobody_can_answer() -> None:
    """LA dns-query."""

    async def test(made: NodeResolver) -> None:
        got = await made.query_json("example.org", "A")
        assert dnsresponse.code_of(b64decode(got["Bytes"])) == dns.SERVER_FAILURE
        for name, kind, words in (("a", "nonsense", "unknown DNS message type: NONSENSE"), ("a..b", "A", "label")):
            with pytest.raises(MeshdError, match=words):
                await made.query_json(name, kind)

    run(test)


def test_resolver_messages_that_are_no_questions() -> None:
    async def test(made: NodeResolver) -> None:
        assert made.look(b"", tcp=False) is None
        assert made.look(reply(dns.encode_query(1, "a", dns.A)), tcp=False) is None, "a response"
        refused = made.look(dns.HEADER.pack(9, 0x0100, 2, 0, 0, 0), tcp=False)
        assert isinstance(refused, bytes)
        assert (refused[:2], dnsresponse.code_of(refused)) == (b"\0\x09", dns.FORMAT_ERROR)

    counters = run(test).counters
    assert (counters["dns_questions"], counters["dns_malformed"]) == (3, 3)


def test_resolver_answers_fit_what_askers_take() -> None:
    """DN-12: 512 bytes, what EDNS says, 4095 bytes; TCP takes all."""
    records = [{"Name": "many.test", "Value": f"10.0.{n >> 8}.{n & 255}"} for n in range(1000)]

    async def test(made: NodeResolver) -> None:
        plain = dns.encode_query(1, "many.test", dns.A)
        sizes = []
        for payload in (0, 1232, 65535):
            opt = b"\0" + dns.RECORD.pack(dns.OPT, payload, 0, 0) if payload else b""
            message = plain[:10] + bytes([0, bool(payload)]) + plain[12:] + opt
            got = made.look(message, tcp=False)
            assert isinstance(got, bytes)
            assert dnsresponse.is_truncated(got)
            sizes.append(len(got))
        assert [512 - sizes[0] < 16, 1232 - sizes[1] < 16, 4095 - sizes[2] < 16] == [True] * 3
        assert max(sizes) <= 4095
        whole = made.look(plain, tcp=True)
        assert isinstance(whole, bytes)
        assert not dnsresponse.is_truncated(whole)
        assert len(whole) > 16000

    run(test, ExtraRecords=records)


def test_resolver_forwarded_answers_fit_what_askers_take() -> None:
    """DN-12: the reference hands on what is too long, marked only."""

    async def test(made: NodeResolver) -> None:
        async with FakeResolver(lambda q: [reply(q, answers=100)]) as fake:
            made.configure(ResolverConfig({"": (fake.resolver,)}))
            asking = made.look(dns.encode_query(1, "example.org", dns.A), tcp=False)
            assert isinstance(asking, Asking)
            got = await made.ask(asking)
            assert len(got) <= 512
            assert dnsresponse.is_truncated(got)

    run(test)


@pytest.mark.parametrize("by", ["network", "environment"])
def test_resolver_obeys_those_who_forbid_tcp(by: str) -> None:
    """DN-12: dns-forwarder-disable-tcp-retries and TS_DNS_FORWARD_SKIP_TCP_RETRY."""
    from tests.unit.core.mapworld import own, send

    async def body() -> None:
        session = joined(node(2), DNSConfig=CONFIG)
        if by == "network":
            send(session, Node=own(CapMap={"dns-forwarder-disable-tcp-retries": None}))
        environment = {"TS_DNS_FORWARD_SKIP_TCP_RETRY": "1"} if by == "environment" else {}
        made = NodeResolver(lambda: session.netmap, lambda _: None, environment)
        async with FakeResolver(lambda q: [reply(q, flags=dns.TRUNCATED)], good) as fake:
            made.configure(ResolverConfig({"": (fake.resolver,)}))
            asking = made.look(dns.encode_query(1, "example.org", dns.A), tcp=True)
            assert isinstance(asking, Asking)
            assert dnsresponse.is_truncated(await made.ask(asking))
            assert fake.tcp_queries == []
        made.close()

    asyncio.run(body())


def test_resolver_names_of_the_network_never_leave() -> None:
    """DN-12: unknown ones neither."""

    async def test(made: NodeResolver) -> None:
        async with FakeResolver(good) as fake:
            made.configure(ResolverConfig({"": (fake.resolver,)}, ("mesh.test", "64.100.in-addr.arpa")))
            for name in ("n2.mesh.test", "no.mesh.test", "1.2.64.100.in-addr.arpa", "x.onion", "b._dns-sd._udp.x"):
                for kind in (dns.A, dns.AAAA, dns.PTR, dns.ANY, 65):
                    assert isinstance(made.look(dns.encode_query(1, name, kind), tcp=False), bytes)
            assert fake.queries == []

    run(test)


def test_resolver_asks_beside_the_network_for_what_the_network_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """DN-12, EX-07: by marked sockets, over plain DNS, and never for names of the network."""
    marked: list[str] = []
    monkeypatch.setattr("meshd.io.dnsexchange.mark_socket", lambda sock, ip: marked.append(str(ip)))

    async def body() -> None:
        netmap = joined(node(2), DNSConfig=CONFIG).netmap
        async with FakeResolver(lambda q: [reply(q, flags=dns.TRUNCATED)], good) as fake:
            made = NodeResolver(
                lambda: netmap,
                lambda _: None,
                {},
                lambda name: (fake.resolver,) if name.startswith(("c", "n2")) else (),
            )
            for name, kind in (("control.test", Asking), ("other.test", bytes), ("n2.mesh.test", bytes)):
                assert isinstance(made.look(dns.encode_query(1, name, dns.A), tcp=True), kind)
            asking = made.look(dns.encode_query(1, "control.test", dns.A), tcp=True)
            assert isinstance(asking, Asking)
            assert not dnsresponse.is_truncated(await made.ask(asking))
            assert set(marked) == {"127.0.0.1"}
            assert len(marked) == 2, "UDP and TCP"
            public = asking._replace(resolvers=(Resolver(addr="https://dns.google/dns-query"),))
            assert dnsresponse.code_of(await made.ask(public)) == dns.SERVER_FAILURE
            made.close()

    asyncio.run(body())
