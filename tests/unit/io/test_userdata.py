"""User data of cloud machines, from a metadata service on the loopback interface."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from typing import ClassVar

import pytest

from meshd.base.addr import IPAddress, parse_ip
from meshd.io.http import h1blocking
from meshd.io.userdata import read_user_data


class Service(http.server.BaseHTTPRequestHandler):
    status = 200
    token_status = 200
    data = b'{"version": "alpha0"}'
    seen: ClassVar[list[str | None]] = []

    def do_PUT(self) -> None:
        assert self.path == "/latest/api/token"
        assert self.headers["X-aws-ec2-metadata-token-ttl-seconds"] == "300"
        self.reply(self.token_status, b"the-token\n")

    def do_GET(self) -> None:
        assert self.path == "/latest/user-data"
        self.seen.append(self.headers["X-aws-ec2-metadata-token"])
        self.reply(self.status, self.data)

    def reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(Service, "seen", [])
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_user_data_without_the_family_of_the_first_address_is_read_from_the_next(
    monkeypatch: pytest.MonkeyPatch, port: int
) -> None:
    """As with a kernel without IPv6."""
    found = [(family, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port)) for family in (255, socket.AF_INET)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert read_user_data("metadata.example", port) == Service.data


def test_user_data_is_read_with_a_token(port: int) -> None:
    """CF-03: --config=vm:user-data."""
    assert read_user_data("127.0.0.1", port) == b'{"version": "alpha0"}'
    assert Service.seen == ["the-token"]


def test_user_data_is_asked_for_past_the_tunnel(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """CF-03: read again while an exit node is used, it must not come from that one."""
    marked: list[IPAddress | None] = []
    monkeypatch.setattr(h1blocking, "mark_socket", lambda _, peer: marked.append(peer))
    read_user_data("127.0.0.1", port)
    assert marked == [parse_ip("127.0.0.1")] * 2


def test_user_data_of_an_old_service_needs_no_token(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Service, "token_status", 404)
    assert read_user_data("127.0.0.1", port)
    assert Service.seen == [None]


@pytest.mark.parametrize(("status", "data"), [(404, b"x"), (200, b" \n")])
def test_user_data_that_is_not_there_is_absent(
    port: int, monkeypatch: pytest.MonkeyPatch, status: int, data: bytes
) -> None:
    monkeypatch.setattr(Service, "status", status)
    monkeypatch.setattr(Service, "data", data)
    with pytest.raises(FileNotFoundError, match="no user data"):
        read_user_data("127.0.0.1", port)


def test_user_data_service_that_is_broken_is_named(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Service, "status", 500)
    with pytest.raises(OSError, match="answers with HTTP 500"):
        read_user_data("127.0.0.1", port)


def test_user_data_without_a_service_is_absent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(FileNotFoundError, match="no metadata service"):
        read_user_data("127.0.0.1", port)
