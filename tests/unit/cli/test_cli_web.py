"""`mesh status --web`."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from meshd.cli.client import LocalClient
from meshd.cli.commands.status_command import _row, sort_key
from meshd.cli.statusweb import StatusServer, open_browser


@pytest.fixture
def web(localapi) -> Iterator[StatusServer]:
    with StatusServer(("127.0.0.1", 0), LocalClient(localapi.path), _row, sort_key) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(web: StatusServer, path: str = "/", host: str = "") -> tuple[int, str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", web.server_port, timeout=5)
    connection.request("GET", path, headers={"Host": host or f"127.0.0.1:{web.server_port}"})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, answer.headers["Content-Type"], text


def test_status_web_page_shows_the_nodes(web: StatusServer) -> None:
    """cli:status --web: one row a node, ourselves first."""
    status, kind, text = get(web)
    assert (status, kind) == (200, "text/html; charset=utf-8")
    assert text.index("100.64.0.2") < text.index("<td>100.64.0.1</td><td>node-a</td>")
    assert get(web, "/x")[0] == 404
    assert web.url() == f"http://127.0.0.1:{web.server_port}"


def test_status_web_page_is_not_written_by_strangers(web: StatusServer, localapi) -> None:
    """cli:status --web: names and messages of others are text, not markup."""
    peer = next(iter(localapi.backend.peers.values()))
    peer |= {"DNSName": "", "HostName": "<script>alert(1)</script>", "OS": "<b>"}
    localapi.backend.health = ["<img src=x>"]
    _, _, text = get(web)
    assert "<script" not in text
    assert "<img" not in text
    assert "&lt;b&gt;" in text


@pytest.mark.parametrize("host", ["evil.example.com", "evil.example.com:8384", "localhost.evil.test"])
def test_status_web_page_is_not_for_rebound_names(web: StatusServer, host: str) -> None:
    """cli:status --web: a page of another name that resolves to 127.0.0.1 reads nothing."""
    status, _, text = get(web, host=host)
    assert (status, "100.64" in text) == (403, False)


@pytest.mark.parametrize("host", ["localhost", "localhost:8384", "[::1]:8384", "10.0.0.5:80"])
def test_status_web_page_is_for_addresses(web: StatusServer, host: str) -> None:
    assert get(web, host=host)[0] == 200


def test_status_web_without_daemon_says_so(web: StatusServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshd.cli.client.daemon_is_starting", lambda: False)  # another one of this machine may
    web.client = LocalClient("/nonexistent/s")
    status, _, text = get(web)
    assert (status, "doesn't appear to be running" in text) == (500, True)


@pytest.mark.parametrize("listen", ["nonsense", ":x", "127.0.0.1:70000", "192.0.2.1:0"])
def test_status_web_listen_that_cannot_be(mesh, listen: str) -> None:
    """cli:status --listen, cli:status --web: a clear error, no page."""
    got = mesh("status", "--web", f"--listen={listen}", "--browser=false")
    assert got.code == 1
    assert listen in got.err


def test_browser_is_only_for_people_with_a_display(monkeypatch) -> None:
    """CL-07, cli:status --browser."""
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    open_browser("http://127.0.0.1:1")
    assert opened == []
    monkeypatch.setenv("DISPLAY", ":0")
    open_browser("http://127.0.0.1:1")
    assert opened == ["http://127.0.0.1:1"]


def test_status_web_says_nothing_of_a_browser_that_has_left(
    web: StatusServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """cli:status --web: they break connections off as they like."""
    seen = threading.Event()
    shown = web.shutdown_request
    web.shutdown_request = lambda request: (shown(request), seen.set())  # type: ignore[assignment, func-returns-value]
    with socket.create_connection(("127.0.0.1", web.server_port)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sendall(b"GET / HTT")
    assert seen.wait(20)
    assert capsys.readouterr() == ("", "")
