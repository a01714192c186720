"""The HTTP server of ``--debug``."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from pathlib import Path

import pytest

from meshd.base.errors import MeshdError
from meshd.daemon import debugserver
from meshd.daemon.debugserver import DebugServer, Page
from tests.unit.daemon.process import running


async def ask(port: int, *lines: str, path: str = "/debug/metrics") -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write("\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode())
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return answer.decode().partition("\r\n")[0].split(" ", 2)[1]


def test_debug_server_answers_only_who_knows_where_it_is() -> None:
    """A page whose name suddenly leads to 127.0.0.1 (DNS rebinding) reads nothing, nor does one that says so."""

    async def run() -> None:
        server = DebugServer({"/debug/metrics": Page("counters", "text/plain", lambda: "x 1\n")})
        await server.start("127.0.0.1:0")
        port = server.port
        for host in (f"127.0.0.1:{port}", "localhost", f"localhost:{port}", f"[::1]:{port}", "127.0.0.1"):
            assert await ask(port, f"Host: {host}") == "200", host
        strangers = ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "", "localhost.evil", "10.0.0.1")
        for host in strangers:
            assert await ask(port, f"Host: {host}") == "403", host
        assert await ask(port, "Host: localhost", "Host: evil.example") == "403"
        assert await ask(port, "Host: localhost", "Origin: http://evil.example") == "403"
        assert await ask(port, "host:localhost", "REFERER: http://evil.example/") == "403"
        assert await ask(port, "Host: localhost", path="/etc/passwd") == "404"
        assert await ask(port, "Host: evil.example", path="http://localhost/debug/metrics") == "200"
        assert await ask(port, "Host: localhost", path="http://evil.example/debug/metrics") == "403"
        assert await ask(port, "Host: localhost", path="debug/metrics") == "400"
        await server.close()

    asyncio.run(run())


SIZE = 32 << 20  # more than the kernel holds of a connection


def test_debug_server_client_that_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debugserver, "REQUEST_S", 0.1)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = DebugServer({"/debug/netmap": Page("much", "text/plain", lambda: "x" * SIZE)})
        await server.start("127.0.0.1:0")
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"GET /debug/netmap HTTP/1.1\r\n\r\n")
            client.setblocking(False)
            await asyncio.sleep(0.5)
            taken = 0
            async with asyncio.timeout(5):
                while taken < SIZE and (data := await loop.sock_recv(client, 1 << 20)):
                    taken += len(data)
            assert taken < SIZE
        await server.close()

    asyncio.run(run())


def test_debug_server_with_too_many_clients_refuses_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debugserver, "MAX_CONNECTIONS", 2)

    async def run() -> None:
        server = DebugServer({"/debug/metrics": Page("counters", "text/plain", lambda: "x 1\n")})
        await server.start("127.0.0.1:0")
        idle = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(2)]
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        assert await asyncio.wait_for(reader.read(), 2) == b""
        for _, one in (*idle, (reader, writer)):
            one.close()
            await one.wait_closed()
        await asyncio.sleep(0.05)
        assert await ask(server.port, "Host: localhost") == "200"
        await server.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    "address", ["0.0.0.0:9", "192.0.2.1:9", "localhost", "x:y", "127.0.0.1:70000", "", "*:9", "[::1:9"]
)
def test_debug_server_listens_on_loopback_only(address: str) -> None:
    with pytest.raises(MeshdError, match="loopback"):
        asyncio.run(DebugServer({}).start(address))


def get(port: int, path: str) -> tuple[int, str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.headers["Content-Type"], answer.read().decode()
    finally:
        connection.close()


def test_daemon_shows_its_state_below_debug(tmp_path: Path) -> None:
    """flag:--debug: an index, counters, state, map, paths, stacks; profiles that there are none of are named."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with running(tmp_path, f"--debug=127.0.0.1:{port}") as daemon:
        daemon.wait(lambda: "started" in daemon.output, "its start")
        status, _, index = get(port, "/debug/")
        paths = [line.partition("\t")[0] for line in index.splitlines()]
        assert status == 200
        assert {"/debug/metrics", "/debug/ipn", "/debug/magicsock", "/debug/netmap", "/debug/health"} <= set(paths)
        for path in paths:
            status, content_type, text = get(port, path)
            assert status == 200, path
            if content_type == "application/json":
                json.loads(text)
            assert "privkey:" not in text.replace("privkey:" + "0" * 64, "")
        assert json.loads(get(port, "/debug/ipn")[2])["BackendState"] == "NeedsLogin"
        assert json.loads(get(port, "/debug/magicsock")[2])["PortV4"] > 0
        assert "# TYPE meshd_" in get(port, "/debug/metrics")[2]
        assert "task" in get(port, "/debug/pprof/goroutine?debug=1")[2].lower()
        assert get(port, "/debug/pprof/heap")[0] == 501
        assert get(port, "/debug/nothing")[0] == 404
        assert daemon.stop() == 0
