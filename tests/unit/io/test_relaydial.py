"""Which server of a region is connected to, and how."""

from __future__ import annotations

import asyncio
import gc
import socket

import pytest

from meshd.base.addr import parse_ip
from meshd.base.errors import MeshdError
from meshd.core.relaymap import RelayNode, RelayRegion
from meshd.io.clientlookup import ClientLookups
from meshd.io.dial import dial_tcp
from meshd.io.relaydial import dial_region, resolve


def node(name, port, **changes):
    options = {"host": "127.0.0.1", "ipv4": "127.0.0.1", "ipv6": "none"} | changes
    return RelayNode(name=name, region=1, derp_port=port, **options)


def region(*nodes):
    return RelayRegion(1, "one", "One", nodes)


def unused_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def with_server(scenario, answer=None):
    """Run ``scenario(port)`` beside a TCP server; ``answer(reader, writer)`` serves a connection."""

    async def main():
        async def quiet(reader, writer):
            await reader.read()
            writer.close()

        server = await asyncio.start_server(answer or quiet, "127.0.0.1", 0)
        try:
            async with asyncio.timeout(10):
                await scenario(server.sockets[0].getsockname()[1])
        finally:
            server.close()
            await asyncio.sleep(0.01)

    asyncio.run(main())


def test_dial_falls_over_to_the_next_server():
    async def scenario(port):
        dialled = await dial_region(region(node("dead", unused_port()), node("alive", port)), mark=False)
        assert dialled.node.name == "alive"
        dialled.sock.close()

    with_server(scenario)


@pytest.mark.skipif(not hasattr(socket, "TCP_KEEPIDLE"), reason="the times of the host")
def test_dial_asks_every_15_s_whether_the_relay_is_there():
    """A router that forgot the connection lets nothing in until this host sends something."""

    async def scenario(port):
        dialled = await dial_region(region(node("alive", port)), mark=False)
        assert dialled.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL):
            assert dialled.sock.getsockopt(socket.IPPROTO_TCP, option) == 15
        dialled.sock.close()

    with_server(scenario)


def test_dial_skips_servers_that_only_answer_stun():
    async def scenario(port):
        dialled = await dial_region(region(node("stun", port, stun_only=True), node("relay", port)), mark=False)
        assert dialled.node.name == "relay"
        dialled.sock.close()

    with_server(scenario)


def test_dial_leaves_the_address_for_stun_alone():
    async def scenario(port):
        dialled = await dial_region(region(node("a", port, stun_test_ip="127.0.0.9")), mark=False)
        assert dialled.sock.getpeername() == ("127.0.0.1", port)
        dialled.sock.close()

    with_server(scenario)


def test_dial_without_any_server_says_so():
    async def scenario(port):
        with pytest.raises(MeshdError, match="no server to connect to"):
            await dial_region(region(), mark=False)
        with pytest.raises(MeshdError, match="refused") as failed:
            await dial_region(region(node("dead", unused_port())), mark=False)
        assert failed.value.code == "relay-unreachable"

    with_server(scenario)


def test_dial_unused_families_are_not_tried():
    async def scenario(port):
        with pytest.raises(MeshdError, match="no address"):
            await dial_region(region(node("none", port, ipv4="none", ipv6="none")), mark=False)

    with_server(scenario)


@pytest.mark.parametrize("status", [200, 403])
def test_dial_through_a_proxy(monkeypatch, status):
    asked = []

    async def proxy(reader, writer):
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 %d Whatever\r\nX: y\r\n\r\n" % status)
        await writer.drain()
        writer.write(await reader.read(5))
        writer.close()

    async def scenario(port):
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:secret@127.0.0.1:{port}")
        wanted = region(node("a", 8443, host="relay.test", ipv4=""))
        if status != 200:
            with pytest.raises(MeshdError, match="the proxy refused: 403"):
                await dial_region(wanted, mark=False)
            return
        dialled = await dial_region(wanted, mark=False)
        assert asked[0].startswith(b"CONNECT relay.test:8443 HTTP/1.1\r\n")
        assert b"\r\nProxy-Authorization: Basic dXNlcjpzZWNyZXQ=\r\n" in asked[0]
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(dialled.sock, b"hello")
        assert await loop.sock_recv(dialled.sock, 5) == b"hello"
        dialled.sock.close()

    with_server(scenario, proxy)


def test_dial_tries_every_address_of_a_proxy(monkeypatch):
    """As the control connection does: a proxy may have an IPv6 address that this host cannot reach."""

    async def proxy(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")

    async def scenario(port):
        addresses = [("127.0.0.2", port), ("127.0.0.1", port)]
        entries = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: entries)
        monkeypatch.setenv("HTTPS_PROXY", f"http://proxy.test:{port}")
        dialled = await dial_region(region(node("a", 443, host="relay.test")), mark=False)
        assert dialled.sock.getpeername() == addresses[1]
        dialled.sock.close()

    with_server(scenario, proxy)


@pytest.mark.parametrize("value", ["http://proxy..corp:3128", "http://[fd00::1:3128"])
def test_dial_through_an_impossible_proxy_is_an_ordinary_error(monkeypatch, value):
    monkeypatch.setenv("HTTPS_PROXY", value)
    with pytest.raises(MeshdError, match="cannot be reached"):
        asyncio.run(dial_region(region(node("a", 443, host="relay.test")), mark=False))


@pytest.mark.parametrize(
    ("changes", "family", "expected"),
    [
        ({}, 4, "127.0.0.1"),
        ({}, 6, None),
        ({"ipv6": ""}, 6, None),
        ({"host": "relay..test", "ipv4": ""}, 4, None),
        ({"host": "192.0.2.9", "ipv4": ""}, 4, "192.0.2.9"),
        ({"host": "2001:db8::9", "ipv4": "", "ipv6": ""}, 6, "2001:db8::9"),
        ({"host": "x.test", "ipv4": "192.0.2.1", "stun_test_ip": "192.0.2.2"}, 4, "192.0.2.1"),
    ],
)
def test_resolve_uses_the_map_before_dns(changes, family, expected):
    found = asyncio.run(resolve(node("a", 1, **changes), family))
    assert found == (parse_ip(expected) if expected else None)


def test_dial_that_fails_leaves_nothing_to_the_cycle_collector():
    async def refused(dial):
        with pytest.raises((MeshdError, OSError)):
            await dial

    async def scenario(_):
        where = unused_port()
        for dial in (
            lambda: dial_region(region(node("dead", where), node("dead", where)), mark=False),
            lambda: dial_tcp("127.0.0.1", where),
            lambda: ClientLookups().connect("localhost", where),
        ):
            await refused(dial())
            gc.collect()
            for _ in range(3):
                await refused(dial())
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            gc.set_debug(0)
            left, gc.garbage[:] = [type(found).__name__ for found in gc.garbage], []
            assert "frame" not in left
            assert "traceback" not in left

    gc.disable()
    try:
        with_server(scenario)
    finally:
        gc.enable()
