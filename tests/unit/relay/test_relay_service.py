"""mesh-relay as a whole: its key and certificate stay, and a coordination server may say who gets in."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import ssl
from base64 import b64encode
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from meshd.base.errors import MeshdError
from meshd.base.keys import NodePrivate
from meshd.io.http.front import FrontConnection, Request, Response
from meshd.io.listenaddress import is_host
from meshd.io.listener import SniffingListener
from meshd.relay import admission, certificate, pages
from meshd.relay.admission import MAX_QUESTIONS, AskUrl
from meshd.relay.certificate import make_leaf
from meshd.relay.main import cli
from meshd.relay.pages import RelayPages
from meshd.relay.server import RelayServer
from meshd.relay.service import RelayOptions, RelayService


def _options(folder: Path, **changes: object) -> RelayOptions:
    values = {"listen_host": "127.0.0.1", "listen_port": 0, "hostname": "127.0.0.1", "stun_port": 0}
    return RelayOptions(state_dir=folder, **{**values, **changes})


def test_relay_service_keeps_key_and_pin_over_a_restart(tmp_path):
    async def whole():
        seen = []
        for _ in range(2):
            service = RelayService(_options(tmp_path / "state"))
            await service.start()
            seen.append((service.relay.public, service.pin))
            assert service.port
            assert service.stun_port
            await service.close()
        return seen

    first, second = asyncio.run(whole())
    assert first == second
    assert (tmp_path / "state/relay.key").stat().st_mode & 0o777 == 0o600


def test_relay_service_new_hostname_gets_a_new_certificate(tmp_path):
    async def pin(hostname):
        service = RelayService(_options(tmp_path, hostname=hostname))
        await service.start()
        await service.close()
        return service.pin

    assert asyncio.run(pin("relay.example")) != asyncio.run(pin("other.example"))


def test_relay_service_taken_port_and_bad_certificate_are_refused(tmp_path):
    async def start(**changes):
        service = RelayService(_options(tmp_path, **changes))
        await service.start()
        await service.close()

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(MeshdError, match="cannot listen"):
            asyncio.run(start(listen_port=taken.getsockname()[1]))
    (tmp_path / "bad.pem").write_text("nonsense")
    with pytest.raises(MeshdError, match="cannot use the TLS certificate"):
        asyncio.run(start(certificate=tmp_path / "bad.pem", key=tmp_path / "bad.pem"))


def test_relay_service_on_every_address_of_a_host_without_ipv6_has_those_of_ipv4(tmp_path, monkeypatch):
    """It did not start."""
    make = socket.socket

    def without_ipv6(family=socket.AF_INET, *args, **kwargs):
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return make(family, *args, **kwargs)

    async def whole():
        service = RelayService(_options(tmp_path, listen_host=""))
        monkeypatch.setattr(socket, "socket", without_ipv6)
        await service.start()
        monkeypatch.setattr(socket, "socket", make)
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(b"GET /derp/probe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
        writer.close()
        assert service.stun_port
        await service.close()

    asyncio.run(whole())


@pytest.mark.parametrize(
    "hostname",
    [
        "",
        "bücher.example",
        "a b",
        "https://relay.example",
        "relay.example:443",
        "[::1]",
        "fe80::1%lo",
        "*",
        "-x",
        "x." * 200,
        "10.0.0.300",
        "a\nb",
    ],
)
def test_relay_hostname_that_no_client_can_use_is_refused(tmp_path, hostname):
    result = CliRunner().invoke(
        cli, ["--state-dir", str(tmp_path), "--listen", "127.0.0.1:0", "--hostname", hostname], standalone_mode=False
    )
    assert isinstance(result.exception, MeshdError)
    assert result.exception.code == "usage"
    assert "--hostname" in result.exception.message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("hostname", ["relay.example", "_a.example", "xn--bcher-kva.de", "192.0.2.1", "2001:db8::1"])
def test_relay_hostname_may_be_a_name_or_an_address(hostname):
    assert is_host(hostname)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h/",
        "http://h:99999/",
        "http://[::1",
        "http://h/a b",
        "http://h/ü",
        "http:///x",
        "http://a b/",
        "http://user:secret@:80/",
    ],
)
def test_admission_url_that_cannot_be_asked_is_refused_without_its_password(url):
    with pytest.raises(MeshdError, match="--verify-url") as caught:
        AskUrl(url)
    assert caught.value.code == "usage"
    assert "secret" not in str(caught.value)


def test_admission_asks_a_bounded_number_of_questions_at_a_time(monkeypatch):
    """Clients with made-up keys used up the file descriptors that a server which is slow to answer left."""
    monkeypatch.setattr(admission, "TIMEOUT_S", 60.0)

    async def whole():
        open_now, most, full, go_on = 0, 0, asyncio.Event(), asyncio.Event()

        async def handle(request):
            nonlocal open_now, most
            open_now += 1
            most = max(most, open_now)
            if most == MAX_QUESTIONS:
                full.set()
            await go_on.wait()
            open_now -= 1
            return Response(200, b'{"Allow":true}', "application/json")

        listener = SniffingListener(
            lambda encrypted, released: FrontConnection(handle, encrypted, released), tls=None, max_connections=999
        )
        listener.listen("127.0.0.1", 0)
        ask, key = AskUrl(f"http://127.0.0.1:{listener.port}/verify"), NodePrivate.generate().public()
        asking = [asyncio.create_task(ask(key, "192.0.2.1")) for _ in range(200)]
        await asyncio.wait_for(full.wait(), 30)
        await asyncio.sleep(0.1)
        assert most == MAX_QUESTIONS
        go_on.set()
        assert await asyncio.gather(*asking) == [True] * 200
        listener.close()
        await listener.close_connections(0.1)

    asyncio.run(whole())


def test_admission_sends_the_credentials_of_the_url():
    """They were left out, so that a server which wants some admitted nobody."""

    async def whole():
        asked = []

        async def handle(request):
            asked.append(request.headers.get("authorization"))
            return Response(200, b'{"Allow":true}', "application/json")

        listener = SniffingListener(
            lambda encrypted, released: FrontConnection(handle, encrypted, released), tls=None, max_connections=4
        )
        listener.listen("127.0.0.1", 0)
        key = NodePrivate.generate().public()
        assert await AskUrl(f"http://relay:p%40ss@127.0.0.1:{listener.port}/verify")(key, "192.0.2.1")
        assert asked == ["Basic " + b64encode(b"relay:p@ss").decode()]
        listener.close()
        await listener.close_connections(0.1)

    asyncio.run(whole())


@pytest.mark.parametrize(
    ("answer", "allowed"),
    [
        (Response(200, b'{"Allow":true}', "application/json"), True),
        (Response(200, b'{"Allow":false}', "application/json"), False),
        (Response(200, b"nonsense"), False),
        (Response(500, b"{}"), False),
        (Response(200, b" " * 100_000), False),
    ],
)
def test_admission_asks_the_url_with_key_and_source(answer, allowed):
    async def whole():
        asked = []

        async def handle(request):
            asked.append((request.method, request.path, request.body))
            return answer

        listener = SniffingListener(
            lambda encrypted, released: FrontConnection(handle, encrypted, released), tls=None, max_connections=4
        )
        listener.listen("127.0.0.1", 0)
        key = NodePrivate.generate().public()
        ask = AskUrl(f"http://127.0.0.1:{listener.port}/verify")
        assert await ask(key, "192.0.2.1") is allowed
        ((method, path, body),) = asked
        assert (method, path) == ("POST", "/verify")
        assert body == b'{"NodePublic":"%s","Source":"192.0.2.1"}' % key.text().encode()
        listener.close()
        await listener.close_connections(0.1)
        assert await ask(key, "192.0.2.1") is False
        assert await AskUrl(f"http://127.0.0.1:{ask._port}/verify", fail_open=True)(key, "192.0.2.1") is True

    asyncio.run(whole())


def _shown(port):
    pem = ssl.get_server_certificate(("127.0.0.1", port))
    return x509.load_pem_x509_certificate(pem.encode()).subject.rfc4514_string()


def test_relay_shows_a_renewed_certificate_without_a_restart(tmp_path, caplog):
    """It showed the old one until the next start, when that had ended long ago."""

    async def whole():
        paths = tmp_path / "cert.pem", tmp_path / "key.pem"

        def write(*contents):
            for path, content in zip(paths, contents, strict=True):
                path.unlink(missing_ok=True)
                if content is not None:
                    path.write_bytes(content)

        first, second = make_leaf(["first"]), make_leaf(["second"])
        write(*first)
        service = RelayService(_options(tmp_path / "state", certificate=paths[0], key=paths[1]))
        await service.start()
        seen = []
        for contents in (first, (second[0], first[1]), (None, second[1]), second):
            write(*contents)
            service.reload()
            seen.append(await asyncio.to_thread(_shown, service.port))
        assert seen == ["CN=first", "CN=first", "CN=first", "CN=second"]
        assert [record.getMessage() for record in caplog.records].count("certificate_refused") == 2
        await service.close()

    asyncio.run(whole())


def test_relay_looks_for_a_renewed_certificate_by_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(certificate, "CHECK_S", 0.01)

    async def whole():
        paths = tmp_path / "cert.pem", tmp_path / "key.pem"
        service = RelayService(_options(tmp_path / "state", certificate=paths[0], key=paths[1]))
        for name in ("first", "second"):
            for path, content in zip(paths, make_leaf([name]), strict=True):
                path.write_bytes(content)
            if name == "first":
                await service.start()
        async with asyncio.timeout(10):
            while await asyncio.to_thread(_shown, service.port) != "CN=second":
                pass
        await service.close()

    asyncio.run(whole())


@pytest.mark.parametrize("name", ["tls-key.pem", "tls-cert.pem"])
@pytest.mark.parametrize("content", [b"", b"nonsense", make_leaf(["other"])[1]])
def test_relay_makes_a_new_certificate_when_its_own_got_damaged(tmp_path, name, content):
    async def pin():
        service = RelayService(_options(tmp_path))
        await service.start()
        await service.close()
        return service.pin

    first = asyncio.run(pin())
    (tmp_path / name).write_bytes(content)
    second = asyncio.run(pin())
    assert second != first
    assert asyncio.run(pin()) == second


def test_relay_key_with_a_pass_phrase_is_refused_and_nobody_is_asked(tmp_path):
    leaf, key = make_leaf(["relay.example"])
    loaded = serialization.load_pem_private_key(key, None)
    (tmp_path / "cert.pem").write_bytes(leaf)
    (tmp_path / "key.pem").write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )

    async def start():
        await RelayService(_options(tmp_path, certificate=tmp_path / "cert.pem", key=tmp_path / "key.pem")).start()

    with pytest.raises(MeshdError, match="pass phrase"):
        asyncio.run(start())


def test_relay_pages_ask_the_resolver_once_for_everybody(monkeypatch):
    """A resolver that did not answer kept each request's lookup for half a minute, in a queue without an end."""
    monkeypatch.setattr(pages, "BOOTSTRAP_TIMEOUT_S", 0.05)

    async def whole():
        answers = [OSError("no name server"), "192.0.2.1", "192.0.2.2"]
        asked = []
        go_on = asyncio.Event()

        async def getaddrinfo(name, port, **kwargs):
            asked.append(name)
            await go_on.wait()
            answer = answers.pop(0)
            if isinstance(answer, OSError):
                raise answer
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (answer, 0))]

        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
        relay = RelayPages(RelayServer(NodePrivate.generate()), ("relay.example",))

        async def ask():
            request = Request("GET", "/bootstrap-dns", {"q": "relay.example"}, {}, b"", "192.0.2.9", encrypted=True)
            return json.loads((await relay.handle(request)).body)

        assert await asyncio.gather(*(ask() for _ in range(100))) == [{}] * 100
        assert len(asked) == 1
        go_on.set()
        assert await ask() == {}
        assert len(asked) == 1
        for seconds, expected, times in ((6, "192.0.2.1", 2), (50, "192.0.2.1", 2), (61, "192.0.2.2", 3)):
            relay._fresh_until["relay.example"] -= seconds
            assert await ask() == {"relay.example": [expected]}
            assert len(asked) == times

    asyncio.run(whole())
