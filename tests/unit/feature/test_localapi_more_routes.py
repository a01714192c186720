"""The LocalAPI's routes for exit nodes, DNS, paths, dialling, the log and control, through a real socket."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshd.feature.localapi import server
from meshd.feature.localapi.route import Access
from meshd.testing.localapi import LocalApiThread
from tests.unit.feature.rawhttp import ask, chunks

READABLE = {
    "status", "whois", "peer-by-id", "user-profile", "prefs", "serve-config", "watch-ipn-bus", "bugreport",
    "debug-log", "check-ip-forwarding", "netcheck", "dns-config", "cert-domains", "debug-peer-endpoint-changes",
    "check-so-mark-in-use", "check-udp-gro-forwarding", "query-feature", "tka/status", "file-targets", "policy/",
    "debug-optional-features",
}  # fmt: skip
OPEN = {
    "derpmap", "usermetrics", "ping", "services", "suggest-exit-node", "tka/log", "dial", "drive/shares",
    "update/check", "update/progress", "appc-route-info", "routecheck", "upload-client-metrics",
}  # fmt: skip


@pytest.fixture
def api(tmp_path: Path) -> Iterator[LocalApiThread]:
    with LocalApiThread(str(tmp_path / "s")) as made:
        yield made


def test_localapi_access_of_every_route_is_decided_on_purpose() -> None:
    """LA-05, LA-06: what is neither listed as readable nor as open changes something or tells too much."""
    routes = server._ROUTES
    assert {name for name, route in routes.items() if route.access is Access.READ} == READABLE
    assert {name for name, route in routes.items() if route.access is Access.OPEN} == OPEN


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "id-token?aud=x"),
        ("POST", "set-dns?name=a&value=b"),
        ("POST", "set-use-exit-node-enabled?enabled=true"),
        ("POST", "tka/sign"),
        ("GET", "logtap"),
        ("POST", "disconnect-control"),
        ("POST", "update/install"),
        ("GET", "files/"),
        ("POST", "serve-config"),
        ("POST", "debug-dial-types"),
    ],
)
def test_localapi_other_users_cannot_use(api: LocalApiThread, method: str, path: str) -> None:
    """LA-06."""
    api.uid = 4242
    assert ask(api, method, path, b"{}" if method == "POST" else None).status == 403
    assert api.backend.calls == []


def test_localapi_control_routes_pass_the_answer_on(api: LocalApiThread) -> None:
    """id-token, query-feature, set-dns, alpha-set-device-attrs."""
    api.backend.control_answer = (200, b'{"id_token":"t"}')
    got = ask(api, "GET", "id-token?aud=%20x%20")
    assert (got.status, got.body) == (200, b'{"id_token":"t"}')
    assert api.backend.calls[-1][2:] == ("/machine/id-token", {"CapVersion": 113, "Audience": "x"})
    assert ask(api, "GET", "id-token").status == 400
    assert ask(api, "POST", "query-feature?feature=serve").headers["content-type"] == "application/json"
    assert api.backend.calls[-1][2:] == ("/machine/feature/query", {"Feature": "serve"})
    assert ask(api, "POST", "query-feature").status == 500
    assert ask(api, "POST", "set-dns?name=a.test&value=v").body == b"{}\n"
    assert api.backend.calls[-1][3]["Name"] == "a.test"
    assert ask(api, "PATCH", "alpha-set-device-attrs", b'{"a":1}').body == b"{}\n"
    assert api.backend.calls[-1][1:3] == ("PATCH", "/machine/set-device-attr")
    api.backend.control_answer = (404, b"nothing here\n")
    got = ask(api, "PATCH", "alpha-set-device-attrs", b"{}")
    assert (got.status, got.body) == (500, b"set-device-attr response: 404 Not Found, nothing here\n")
    assert ask(api, "POST", "disconnect-control").status == 200
    assert api.backend.calls[-1] == ("disconnect_control",)


def test_localapi_exit_node_is_switched(api: LocalApiThread) -> None:
    """EX: the toggle answers with the preferences."""
    got = ask(api, "POST", "set-use-exit-node-enabled?enabled=false")
    assert json.loads(got.body)["ControlURL"] == "http://control.test"
    assert api.backend.calls[-1] == ("use_exit_node", False)
    assert ask(api, "POST", "set-use-exit-node-enabled?enabled=1").status == 500
    assert ask(api, "GET", "set-use-exit-node-enabled?enabled=1").status == 405


def test_localapi_serve_config_of_a_node_that_serves_nothing(api: LocalApiThread) -> None:
    """LA: an empty configuration is what it has; any other cannot be carried out."""
    etag = ask(api, "GET", "serve-config").headers["etag"]
    assert ask(api, "POST", "serve-config", b"{}", **{"If-Match": etag}).status == 200
    assert ask(api, "POST", "serve-config", b"{}", **{"If-Match": "bad"}).status == 412
    got = ask(api, "POST", "serve-config", b'{"TCP":{"443":{"HTTPS":true}}}')
    assert (got.status, json.loads(got.body)) == (
        500,
        {"error": "updating config: this build of meshd cannot serve"},
    )


def test_localapi_cert_names_are_judged(api: LocalApiThread) -> None:
    for name in ("nope", "a..b", "a.b:80", "a.b%2fc"):
        assert ask(api, "GET", "cert/" + name).body == b"invalid domain\n"
    assert b"does not support" in ask(api, "GET", "cert/a.mesh.test").body
    api.backend.certificates = ["a.mesh.test"]
    assert ask(api, "GET", "cert/a.mesh.test").status == 501
    assert json.loads(ask(api, "GET", "cert-domains").body) == ["a.mesh.test"]


def test_localapi_files_never_wait_here(api: LocalApiThread) -> None:
    assert ask(api, "GET", "files/").body == b"null\n"
    assert ask(api, "GET", "files/?waitsec=x").status == 400
    assert ask(api, "GET", "files/secret").status == 404
    assert ask(api, "POST", "files/").status == 400


def test_localapi_update_tells_how_it_went(api: LocalApiThread) -> None:
    """UP-05."""
    assert json.loads(ask(api, "GET", "update/progress").body) == []
    assert ask(api, "POST", "update/install").status == 202
    (step,) = json.loads(ask(api, "GET", "update/progress").body)
    assert step["status"] == "UpdateFailed"


def test_localapi_relay_report_and_dns_query(api: LocalApiThread) -> None:
    got = ask(api, "POST", "debug-derp-region?region=900")
    assert json.loads(got.body) == {"Info": ["Region 900"], "Warnings": None, "Errors": None}
    assert ask(api, "GET", "debug-derp-region?region=900").status == 405
    assert set(json.loads(ask(api, "GET", "dns-query?name=a.test").body)) == {"Bytes", "Resolvers"}
    assert ask(api, "GET", "dns-query?name=a.test&type=X").status == 400


def test_localapi_udp_gro_forwarding(api: LocalApiThread) -> None:
    api.backend.forwarding_warning = "slow"
    assert json.loads(ask(api, "GET", "check-udp-gro-forwarding").body) == {"Warning": "slow"}
    assert json.loads(ask(api, "POST", "set-udp-gro-forwarding").body) == {"Warning": ""}
    assert api.backend.calls == [("enable_udp_gro",)]


def test_localapi_client_metrics_and_component_logging(api: LocalApiThread) -> None:
    """DB-01."""
    for body in (b"", b"{}", b"[", b"7"):
        assert ask(api, "POST", "upload-client-metrics", body).status == 400
    bad = b'[{"name":"bad name","type":"counter","value":1}]'
    assert ask(api, "POST", "upload-client-metrics", bad).status == 400
    ask(api, "POST", "component-debug-logging?component=magicsock&secs=-5")
    assert api.backend.calls[-1] == ("log_component", "magicsock", -5)
    ask(api, "POST", "component-debug-logging?component=magicsock&secs=9e9")
    assert api.backend.calls[-1] == ("log_component", "magicsock", 0)


@pytest.fixture
def echo() -> Iterator[int]:
    """A port of this host that sends back what it gets, once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                near, _ = listener.accept()
                with near:
                    while data := near.recv(100):
                        near.sendall(data.upper())

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def upgrade(api: LocalApiThread, host: str, port: int | str) -> tuple[socket.socket, bytes]:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(5)
    sock.connect(api.path)
    head = "POST /localapi/v0/dial HTTP/1.1\r\nHost:\r\nConnection: upgrade\r\nUpgrade: ts-dial\r\n"
    sock.sendall(f"{head}Dial-Host: {host}\r\nDial-Port: {port}\r\nContent-Length: 0\r\n\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += sock.recv(1000)
    return sock, answer


def test_localapi_dial_joins_both_ends(api: LocalApiThread, echo: int) -> None:
    """LA `dial`: 101, then the bytes of the connection; each end's end reaches the other."""
    api.backend.dial_targets["node-a"] = ("127.0.0.1", True)
    sock, answer = upgrade(api, "node-a", echo)
    with sock:
        assert answer.startswith(b"HTTP/1.1 101 ")
        sock.sendall(b"hello")
        assert sock.recv(100) == b"HELLO"
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(100) == b""


def test_localapi_dial_elsewhere_is_left_to_the_client(api: LocalApiThread) -> None:
    """What is not in the network is dialled by the user, not by root."""
    sock, answer = upgrade(api, "127.0.0.1", 80)
    sock.close()
    assert b"Dial-Self: true\r\n" in answer
    assert b"Dial-Addr: 127.0.0.1:80\r\n" in answer


def test_localapi_dial_that_fails_says_so(api: LocalApiThread) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        api.backend.dial_targets["node-a"] = ("127.0.0.1", True)
        sock, answer = upgrade(api, "node-a", unused.getsockname()[1])
    sock.close()
    assert answer.startswith(b"HTTP/1.1 502 ")
    for port in ("0", "70000", "x"):
        sock, answer = upgrade(api, "node-a", port)
        sock.close()
        assert answer.startswith(b"HTTP/1.1 400 ")


def test_localapi_dial_types_tells_each_way(api: LocalApiThread, echo: int) -> None:
    api.backend.dial_targets["127.0.0.1"] = ("127.0.0.1", True)
    lines = ask(api, "POST", f"debug-dial-types?ip=127.0.0.1&port={echo}&network=tcp").body.decode().splitlines()
    assert {line.split()[0] for line in lines} == {"[BareDial]", "[UserDial]", "[SystemDial]"}
    assert any("connected=true" in line for line in lines)
    assert ask(api, "POST", "debug-dial-types?ip=x&port=1").status == 400


def test_localapi_logtap_streams_the_log(api: LocalApiThread) -> None:
    """DB: every line from the connection on, as JSON; the handler goes with the reader."""
    log = logging.getLogger("meshd.test")
    before = list(logging.getLogger("meshd").handlers)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        sock.connect(api.path)
        sock.sendall(b"GET /localapi/v0/logtap HTTP/1.1\r\nHost:\r\n\r\n")
        with sock.makefile("rb") as reader:
            while reader.readline().strip():
                pass
            lines = chunks(reader)
            assert json.loads(next(lines)) == {"text": "[logtap connected]\n"}
            log.warning("something_happened")
            assert json.loads(next(lines))["text"].endswith("something_happened\n")
    while list(logging.getLogger("meshd").handlers) != before:
        pass
