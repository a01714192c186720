"""The SOCKS5 server against a real echo server on the loopback interface."""

from __future__ import annotations

import asyncio
import resource
import socket

import pytest

from meshd.base.errors import MeshdError
from meshd.feature.proxy import listener
from meshd.feature.proxy.listener import Connection, ProxyListener
from meshd.feature.proxy.socks5 import socks5


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1000):
        writer.write(data)
        await writer.drain()
    writer.close()


async def dial(host: str, port: int) -> Connection:
    if host == "refuse":
        raise ConnectionRefusedError(111, "refused")
    host.encode("idna")  # as a lookup by the system does
    return await asyncio.open_connection("127.0.0.1", port)


async def talk(request: bytes, after: bytes = b"") -> bytes:
    """Everything that a client sees which sends the request and then closes its side."""
    target = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = target.sockets[0].getsockname()[1]
    server = ProxyListener(socks5(dial), "--socks5-server")
    await server.start("127.0.0.1:0")
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request.replace(b"PP", port.to_bytes(2, "big")) + after)
    writer.write_eof()
    try:
        async with asyncio.timeout(5):
            return await reader.read()
    finally:
        writer.close()
        await server.close()
        target.close()


def test_socks5_connect_by_name_carries_data_both_ways() -> None:
    """flag:--socks5-server."""
    seen = asyncio.run(talk(b"\x05\x01\x00" + b"\x05\x01\x00\x03\x04nodePP", b"hello"))
    assert seen.startswith(b"\x05\x00\x05\x00\x00\x01\x7f\x00\x00\x01")
    assert seen.endswith(b"hello")


@pytest.mark.parametrize(
    ("request_bytes", "answer"),
    [
        (b"\x05\x01\x02", b"\x05\xff"),
        (b"\x05\x01\x00\x05\x02\x00\x03\x04nodePP", b"\x05\x00\x05\x07\x00\x01" + bytes(6)),
        (b"\x05\x01\x00\x05\x01\x00\x03\x06refusePP", b"\x05\x00\x05\x05\x00\x01" + bytes(6)),
        (b"\x05\x01\x00\x05\x01\x00\x03\x04a..bPP", b"\x05\x00\x05\x04\x00\x01" + bytes(6)),
        (b"\x05\x01\x00\x05\x01\x00\x03\x40" + b"a" * 64 + b"PP", b"\x05\x00\x05\x04\x00\x01" + bytes(6)),
        (b"GET / HTTP/1.1\r\n\r\n", b""),
        (b"\x05\x01\x00\x05\x01\x00\x07\x00\x00", b"\x05\x00"),
    ],
    ids=["no method", "udp associate", "refused", "empty label", "long label", "http", "address type"],
)
def test_socks5_refusals_are_by_the_book(request_bytes: bytes, answer: bytes) -> None:
    assert asyncio.run(talk(request_bytes)) == answer


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("nonsense", "is not of the form"),
        ("host:", "is not of the form"),
        ("host:70000", "is not of the form"),
        ("1080", "is not of the form"),
        ("[::1:1080", "is not of the form"),
        ("ä" * 80 + ":1080", "there can be no such host"),
    ],
)
def test_socks5_bad_listen_address_is_named(address: str, complaint: str) -> None:
    with pytest.raises(MeshdError, match=f"--socks5-server.*{complaint}"):
        asyncio.run(ProxyListener(socks5(dial), "--socks5-server").start(address))


def test_socks5_port_in_use_is_a_clear_error() -> None:
    async def run() -> None:
        first, second = ProxyListener(socks5(dial), "--socks5-server"), ProxyListener(socks5(dial), "--socks5-server")
        await first.start("127.0.0.1:0")
        try:
            with pytest.raises(MeshdError, match="cannot listen on"):
                await second.start(f"127.0.0.1:{first.port}")
        finally:
            await first.close()

    asyncio.run(run())


def test_proxy_client_that_does_not_take_the_rest_counts_until_it_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "LAST_BYTE_S", 0.2)
    monkeypatch.setattr(listener, "MAX_CONNECTIONS", 1)
    sent, stuck = 0, asyncio.Event()

    async def serve(first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        del first, reader
        while not writer.transport.get_write_buffer_size():
            writer.write(bytes(60_000))
            sent += 60_000
        stuck.set()

    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = ProxyListener(serve, "--socks5-server")
        await server.start("127.0.0.1:0")
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"x")
            client.setblocking(False)
            await stuck.wait()
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            assert await asyncio.wait_for(reader.read(), 5) == b"", "the only place is taken"
            writer.close()
            await asyncio.sleep(0.4)
            taken = 0
            async with asyncio.timeout(5):
                while data := await loop.sock_recv(client, 1 << 20):
                    taken += len(data)
            assert taken < sent
        await server.close()

    asyncio.run(run())


def test_proxy_leaves_descriptors_for_others_where_there_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any user of the host may connect; root is to reach the daemon all the same."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)

    async def run() -> None:
        server = ProxyListener(socks5(dial), "--socks5-server")
        await server.start("127.0.0.1:0")
        held = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(200)]
        refused = await asyncio.wait_for(held[-1][0].read(), 5)
        assert refused == b""
        assert not held[100][0].at_eof()
        for _, writer in held:
            writer.close()
        await server.close()

    asyncio.run(run())
