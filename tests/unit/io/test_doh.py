"""Questions to public resolvers over HTTPS, against a server with a certificate that this test trusts."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from meshd.base.addr import AddrPort
from meshd.base.errors import MeshdError
from meshd.base.keys import NodePrivate
from meshd.io import doh, tls
from meshd.io.doh import DohClients
from meshd.io.http.h2server import H2Server, H2Stream
from meshd.relay.certificate import self_signed

URL = "https://dns.google/dns-query"
Handler = Callable[[H2Stream], None]


class Server:
    """HTTP/2 over TLS on 127.0.0.1."""

    def __init__(self, directory: Path, handler: Handler, names: tuple[str, ...] = ("dns.google",)) -> None:
        self.context = self_signed(directory, list(names), NodePrivate(bytes(range(32))).public()).context
        self.context.set_alpn_protocols(["h2"])
        self.handler = handler
        self.connections = 0
        self.writers: list[asyncio.StreamWriter] = []

    async def start(self) -> AddrPort:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.context)
        return AddrPort(ip_address("127.0.0.1"), self.server.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        server = H2Server(writer.write, writer.close, self.handler)
        try:
            while data := await reader.read(65536):
                server.data_received(data)
        except (OSError, ssl.SSLError):
            pass
        finally:
            server.connection_lost()
            writer.close()

    def drop(self) -> None:
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()

    def close(self) -> None:
        self.drop()
        self.server.close()


def answering(stream: H2Stream) -> None:
    assert (stream.method, stream.path) == ("POST", "/dns-query")
    assert stream.headers["content-type"] == stream.headers["accept"] == "application/dns-message"
    stream.respond(200, bytes(stream.body)[::-1], "application/dns-message")


def run(
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    test: Callable[[DohClients, Server, AddrPort], Awaitable[None]],
    handler: Handler = answering,
    **options: Any,
) -> Server:
    async def body() -> Server:
        server = Server(directory, handler, **options)
        monkeypatch.setenv("SSL_CERT_FILE", str(directory / "tls-cert.pem"))
        monkeypatch.setattr(tls, "_contexts", {})
        clients = DohClients()
        where = await server.start()
        try:
            await test(clients, server, where)
        finally:
            clients.close()
            server.close()
            await asyncio.sleep(0)
        return server

    return asyncio.run(body())


def test_doh_questions_share_one_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DN-12, RFC 8484 4.1: also those that come while it is made."""

    async def test(clients: DohClients, server: Server, where: AddrPort) -> None:
        questions = [b"question %d" % n for n in range(20)]
        answers = await asyncio.gather(*(clients.ask(URL, (where,), question) for question in questions))
        assert answers == [question[::-1] for question in questions]
        assert await clients.ask(URL, (where,), b"abc") == b"cba"

    assert run(tmp_path, monkeypatch, test).connections == 1


def test_doh_first_address_that_works_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DN-12: providers have several."""

    async def test(clients: DohClients, server: Server, where: AddrPort) -> None:
        nobody = AddrPort(where.ip, 9)
        assert await clients.ask(URL, (nobody, where), b"abc") == b"cba"
        with pytest.raises(ConnectionRefusedError):
            await clients.ask(URL + "2", (nobody,), b"abc")

    run(tmp_path, monkeypatch, test)


def test_doh_connection_that_broke_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(clients: DohClients, server: Server, where: AddrPort) -> None:
        assert await clients.ask(URL, (where,), b"abc") == b"cba"
        client = clients._clients[URL]
        server.drop()
        while client.usable:
            await asyncio.wait({client._reader})
        assert await clients.ask(URL, (where,), b"abc") == b"cba"

    assert run(tmp_path, monkeypatch, test).connections == 2


def test_doh_connection_that_gets_nowhere_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DN-12: as long as there were questions, each of them failed, until TCP gave up after a quarter of an hour."""
    monkeypatch.setattr(doh, "DOUBT_S", 0.05)
    monkeypatch.setattr(doh, "PROBE_PATIENCE_S", 0.1)

    async def test(clients: DohClients, server: Server, where: AddrPort) -> None:
        assert await clients.ask(URL, (where,), b"abc") == b"cba"
        monkeypatch.setattr(clients._clients[URL]._stream, "write", lambda data: None)
        async with asyncio.timeout(5):
            assert await clients.ask(URL, (where,), b"def") == b"fed"

    assert run(tmp_path, monkeypatch, test).connections == 2


def test_doh_answer_that_takes_its_time_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doh, "DOUBT_S", 0.05)
    monkeypatch.setattr(doh, "PROBE_PATIENCE_S", 0.1)

    def slow(stream: H2Stream) -> None:
        asyncio.get_running_loop().call_later(0.4, answering, stream)

    async def test(clients: DohClients, server: Server, where: AddrPort) -> None:
        assert await clients.ask(URL, (where,), b"abc") == b"cba"

    assert run(tmp_path, monkeypatch, test, slow).connections == 1


def test_doh_connection_without_questions_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doh, "IDLE_S", 0.01)

    async def test(clients: DohClients, server: Server, where: AddrPort) -> None:
        assert await clients.ask(URL, (where,), b"abc") == b"cba"
        await asyncio.wait({clients._clients[URL]._reader})
        assert not clients._clients

    run(tmp_path, monkeypatch, test)


def test_doh_server_must_be_who_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DN-12: the name in the certificate, and an authority that this host trusts."""

    async def other_name(clients: DohClients, server: Server, where: AddrPort) -> None:
        with pytest.raises(MeshdError, match="certificate of dns.google is not valid"):
            await clients.ask(URL, (where,), b"abc")

    run(tmp_path, monkeypatch, other_name, names=("evil.example",))

    async def nobodys(clients: DohClients, server: Server, where: AddrPort) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", "/dev/null")
        monkeypatch.setattr(tls, "_contexts", {})
        await other_name(clients, server, where)

    (tmp_path / "second").mkdir()
    run(tmp_path / "second", monkeypatch, nobodys)


def test_doh_old_tls_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DN-12: all providers have TLS 1.3."""

    async def test(clients: DohClients, server: Server, where: AddrPort) -> None:
        server.context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ConnectionError, match=r"TLSv1\.2"):
            await clients.ask(URL, (where,), b"abc")

    run(tmp_path, monkeypatch, test)


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [(503, "application/dns-message", "HTTP status 503"), (200, "text/html", "'text/html', not application/dns")],
)
def test_doh_answers_that_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, kind: str, words: str
) -> None:
    async def test(clients: DohClients, server: Server, where: AddrPort) -> None:
        with pytest.raises(MeshdError, match=words):
            await clients.ask(URL, (where,), b"abc")

    run(tmp_path, monkeypatch, test, lambda stream: stream.respond(status, b"x", kind))


def test_doh_answer_that_is_too_long_ends_the_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(clients: DohClients, server: Server, where: AddrPort) -> None:
        with pytest.raises(ConnectionError, match="longer than 65535"):
            await clients.ask(URL, (where,), b"abc")

    run(tmp_path, monkeypatch, test, lambda stream: stream.respond(200, bytes(70_000), "application/dns-message"))
