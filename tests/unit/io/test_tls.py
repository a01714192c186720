"""TLS over memory buffers: handshake, pins, the relay's key in the chain."""

from __future__ import annotations

import asyncio
import hashlib
import ssl

import pytest

from meshd.base.errors import MeshdError
from meshd.base.keys import NodePrivate
from meshd.io import tls
from meshd.io.tls import CertificateCheck, TlsEngine, certificate_serial, relay_key
from meshd.io.tlsstream import TlsProtocol, TlsStream
from meshd.relay.certificate import self_signed

RELAY = NodePrivate(bytes(range(32)))


@pytest.fixture(scope="module")
def server_tls(tmp_path_factory):
    return self_signed(tmp_path_factory.mktemp("tls"), ["relay.test", "127.0.0.1"], RELAY.public())


class Server:
    """The other side of a TLS connection in memory."""

    def __init__(self, context):
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)

    def step(self, data):
        self.incoming.write(data)
        try:
            self.tls.do_handshake()
        except ssl.SSLError:
            pass  # wants more, or was told that its certificate is refused
        return self.outgoing.read()

    def write(self, data):
        self.tls.write(data)
        return self.outgoing.read()


def connect(context, check):
    server, engine = Server(context), TlsEngine(check)
    for _ in range(5):
        reply = server.step(engine.outgoing())
        if reply:
            engine.feed(reply)
    assert engine.established
    server.step(engine.outgoing())
    return server, engine


def pin(server_tls):
    return CertificateCheck("relay.test", f"sha256-raw:{server_tls.pin}")


def test_tls_pinned_certificate_is_accepted(server_tls):
    server, engine = connect(server_tls.context, pin(server_tls))
    assert engine.feed(server.write(b"hello")) == b"hello"
    engine.write(b"back")
    server.incoming.write(engine.outgoing())
    assert server.tls.read() == b"back"


def test_tls_other_pin_is_refused(server_tls):
    with pytest.raises(MeshdError, match="not the pinned one"):
        connect(server_tls.context, CertificateCheck("relay.test", "sha256-raw:" + "00" * 32))


def test_tls_unknown_authority_is_refused_with_a_hint(server_tls):
    with pytest.raises(MeshdError, match="not valid") as refused:
        connect(server_tls.context, CertificateCheck("relay.test"))
    assert refused.value.code == "tls"
    assert refused.value.hint


def test_tls_insecure_for_tests_takes_anything(server_tls):
    connect(server_tls.context, CertificateCheck("other.test", insecure=True))


def test_tls_session_keys_go_to_a_file_when_asked(server_tls, tmp_path, monkeypatch):
    """SSLKEYLOGFILE."""
    path = tmp_path / "keys"
    monkeypatch.setattr(tls, "_contexts", {})
    monkeypatch.setenv("SSLKEYLOGFILE", str(path))
    connect(server_tls.context, pin(server_tls))
    assert "CLIENT_HANDSHAKE_TRAFFIC_SECRET" in path.read_text()


@pytest.mark.parametrize("text", ["sha256-raw:zz", "sha256-raw:00"])
def test_tls_malformed_pin_is_an_error(text):
    with pytest.raises(MeshdError, match="no certificate pin"):
        CertificateCheck("relay.test", text)


def test_tls_garbage_is_an_error(server_tls):
    engine = TlsEngine(pin(server_tls))
    with pytest.raises(MeshdError):
        engine.feed(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def test_tls_relay_key_found_in_the_chain(server_tls):
    _, engine = connect(server_tls.context, pin(server_tls))
    assert relay_key(engine) == RELAY.public().raw


def test_tls_relay_key_not_believed_below_tls_1_3(server_tls, tmp_path):
    old = self_signed(tmp_path, ["relay.test"], RELAY.public())
    old.context.maximum_version = ssl.TLSVersion.TLSv1_2
    _, engine = connect(old.context, pin(old))
    assert relay_key(engine) is None


def test_tls_serial_of_certificates(server_tls):
    _, engine = connect(server_tls.context, pin(server_tls))
    leaf, meta = engine.peer_chain()
    assert hashlib.sha256(leaf).hexdigest() == server_tls.pin
    assert certificate_serial(meta) == 2
    for cut in range(0, 40):
        certificate_serial(meta[:cut])
    assert certificate_serial(b"") is None


def test_tls_large_data_arrives_whole(server_tls):
    server, engine = connect(server_tls.context, pin(server_tls))
    data = bytes(range(256)) * 1000
    assert engine.feed(server.write(data)) == data


def test_tls_close_is_noticed(server_tls):
    server, engine = connect(server_tls.context, pin(server_tls))
    with pytest.raises(ssl.SSLWantReadError):
        server.tls.unwrap()
    assert engine.feed(server.outgoing.read()) == b""
    assert engine.closed


class Pipe:
    """A ByteStream whose other end is a `Server`."""

    def __init__(self, server):
        self.server, self.replies, self.closed = server, asyncio.Queue(), False

    async def read(self):
        return await self.replies.get()

    def write(self, data):
        if data and (reply := self.server.step(data)):
            self.replies.put_nowait(reply)

    async def drain(self):
        pass

    def close(self):
        self.closed = True


def test_tlsstream_reads_and_writes(server_tls):
    async def scenario():
        server = Server(server_tls.context)
        inner = Pipe(server)
        stream = TlsStream(inner, pin(server_tls))
        await stream.handshake()
        stream.write(b"request")
        assert server.tls.read() == b"request"
        inner.replies.put_nowait(server.write(b"answer"))
        assert await stream.read() == b"answer"
        inner.replies.put_nowait(b"")
        assert await stream.read() == b""
        stream.close()
        assert inner.closed

    asyncio.run(scenario())


def test_tlsstream_refused_certificate_raises(server_tls):
    async def scenario():
        stream = TlsStream(Pipe(Server(server_tls.context)), CertificateCheck("relay.test"))
        with pytest.raises(MeshdError):
            await stream.handshake()

    asyncio.run(scenario())


@pytest.mark.parametrize("direct", [True, False])
def test_tlsprotocol_large_writes_keep_their_order(server_tls, direct):
    async def scenario():
        loop = asyncio.get_running_loop()
        received, done, ready = bytearray(), loop.create_future(), loop.create_future()

        async def serve(reader, writer):
            while data := await reader.read(1 << 20):
                received.extend(data)
                await asyncio.sleep(0)
                if len(received) >= len(data_sent):
                    done.set_result(None)
                    break
            writer.close()

        data_sent = b"".join(n.to_bytes(4, "big") for n in range(500_000))
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_tls.context)
        import socket

        sock = socket.create_connection(server.sockets[0].getsockname())
        sock.setblocking(False)
        lost = loop.create_future()
        protocol = TlsProtocol(
            pin(server_tls),
            on_established=lambda _: ready.set_result(None),
            on_data=lambda _: None,
            on_writable=lambda: None,
            on_lost=lost.set_result,
        )
        await loop.create_connection(lambda: protocol, sock=sock)
        await ready
        protocol.direct = sock if direct else None
        for start in range(0, len(data_sent), 100_000):
            protocol.write(data_sent[start : start + 100_000])
        await asyncio.wait_for(done, 10)
        assert bytes(received) == data_sent
        await asyncio.wait_for(lost, 10)
        server.close()
        await server.wait_closed()

    asyncio.run(scenario())


@pytest.mark.parametrize("name", [".starts.with.a.dot", "two..dots", "x" * 300, "a" * 64 + ".example", "nul\0byte"])
def test_tls_name_that_no_certificate_can_have_is_an_ordinary_error(name):
    """Names come from the coordination server; any other exception would end the relay link for good."""
    with pytest.raises(MeshdError):
        TlsEngine(CertificateCheck(name))


@pytest.fixture
def trusted(server_tls, tmp_path, monkeypatch):
    """The server's certificate is one that this system trusts; what it was asked for (SNI) comes in a list."""
    path = tmp_path / "roots.pem"
    path.write_text(ssl.DER_cert_to_PEM_cert(connect(server_tls.context, pin(server_tls))[1].peer_chain()[0]))
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    monkeypatch.setattr(tls, "_contexts", {})
    asked = []
    monkeypatch.setattr(server_tls.context, "sni_callback", lambda _, name, __: asked.append(name))
    return asked


@pytest.mark.parametrize(
    ("host", "cert_name", "asked"),
    [
        ("relay.test", "", "relay.test"),
        ("front.test", "relay.test", "front.test"),
        ("front.test", "127.0.0.1", "front.test"),
        ("", "relay.test", "relay.test"),
        ("192.0.2.1", "relay.test", None),
    ],
)
def test_tls_certificate_may_be_for_another_name_than_the_server_is_asked_for(
    server_tls, trusted, host, cert_name, asked
):
    """CertName of the map: a relay behind a front is found by the front's name."""
    connect(server_tls.context, CertificateCheck(host, cert_name))
    assert trusted == [asked]


@pytest.mark.parametrize(
    ("host", "cert_name"),
    [("front.test", ""), ("relay.test", "other.test"), ("front.test", "127.0.0.2"), ("relay.test", "two..dots")],
)
def test_tls_certificate_for_another_name_is_refused(server_tls, trusted, host, cert_name):
    with pytest.raises(MeshdError, match="not valid") as refused:
        connect(server_tls.context, CertificateCheck(host, cert_name))
    assert refused.value.code == "tls"


def test_tls_certificate_for_another_name_needs_an_authority_all_the_same(server_tls):
    with pytest.raises(MeshdError, match="not valid"):
        connect(server_tls.context, CertificateCheck("front.test", "relay.test"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.example", True),
        ("A.Example.", True),
        ("b.example", False),
        ("x.w.example", True),
        ("w.example", False),
        (".w.example", False),
        ("y.x.w.example", False),
        ("x.test", False),
        ("xy.p.example", False),
        ("192.0.2.1", True),
        ("192.0.2.2", False),
        ("192.0.2.3", False),
        ("2001:db8::1", True),
        ("2001:db8::2", False),
        ("", False),
    ],
)
def test_tls_names_of_a_certificate(name, expected):
    """RFC 6125 6.4: a star is the whole first label; addresses are no names."""
    certificate = {
        "subject": ((("commonName", "b.example"),),),
        "subjectAltName": (
            ("DNS", "a.EXAMPLE"),
            ("DNS", "*.w.example"),
            ("DNS", "*.test"),
            ("DNS", "x*.p.example"),
            ("DNS", "192.0.2.3"),
            ("email", "b.example"),
            ("IP Address", "192.0.2.1"),
            ("IP Address", "2001:DB8:0:0:0:0:0:1\n"),
            ("IP Address", "<invalid>"),
        ),
    }
    assert tls.certificate_is_for(certificate, name) is expected
    assert not tls.certificate_is_for({}, name)
