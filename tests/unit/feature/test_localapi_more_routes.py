"""The LocalAPI's routes for exit nodes, DNS, paths, dialling, the log and control, through a real socket."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import pwd
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from meshd.base.log import KeyValueFormatter
from meshd.feature.localapi import jsontext, server
from meshd.feature.localapi.busroute import _Lines
from meshd.feature.localapi.debugroutes import _bug_report
from meshd.feature.localapi.permission import Permissions
from meshd.feature.localapi.requestlog import RequestLog
from meshd.feature.localapi.route import Access, Call
from meshd.feature.localapi.waiting import MAX_WAITERS
from meshd.io.http.h1server import Limits
from meshd.testing.clock import FakeClock
from meshd.testing.fakebackend import FakeBackend
from meshd.testing.localapi import LocalApiThread
from tests.unit.feature.rawhttp import ask, chunks

READABLE = {
    "status", "whois", "peer-by-id", "user-profile", "prefs", "serve-config", "watch-ipn-bus", "bugreport",
    "debug-log", "check-ip-forwarding", "netcheck", "dns-config", "cert-domains", "debug-peer-endpoint-changes",
    "check-so-mark-in-use", "check-udp-gro-forwarding", "query-feature", "tka/status", "file-targets", "policy/",
    "debug-optional-features", "conn25/state", "prefs/service-clients", "pins", "tka/verify-deeplink",
}  # fmt: skip
OPEN = {
    "derpmap", "usermetrics", "ping", "services", "suggest-exit-node", "tka/log", "dial", "drive/shares",
    "update/check", "update/progress", "appc-route-info", "routecheck", "upload-client-metrics", "cert/",
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
    """DN-09, LK-16, LK-18, LK-19: id-token, query-feature, set-dns, alpha-set-device-attrs."""
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
    for given, passed_on in ((520, 520), (999, 502), (101, 502)):
        api.backend.control_answer = (given, b"words")
        for method, path in (("GET", "id-token?aud=x"), ("POST", "query-feature?feature=serve")):
            got = ask(api, method, path)
            assert (got.status, got.body) == (passed_on, b"words")
    assert ask(api, "POST", "disconnect-control").status == 200
    assert api.backend.calls[-1] == ("disconnect_control",)


def test_localapi_exit_node_is_switched(api: LocalApiThread) -> None:
    """EX-02: the toggle answers with the preferences."""
    got = ask(api, "POST", "set-use-exit-node-enabled?enabled=false")
    assert json.loads(got.body)["ControlURL"] == "http://control.test"
    assert api.backend.calls[-1] == ("use_exit_node", False)
    assert ask(api, "POST", "set-use-exit-node-enabled?enabled=1").status == 500
    assert ask(api, "GET", "set-use-exit-node-enabled?enabled=1").status == 405


def test_localapi_serve_config_of_a_node_that_serves_nothing(api: LocalApiThread) -> None:
    """api:GET serve-config, api:POST serve-config: an empty one is what it has; no other can be carried out."""
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
    """UP-01; UP-05."""
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
    """RT-11."""
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


def test_localapi_raw_state_entry_is_written_for_those_who_may(api: LocalApiThread) -> None:
    """PS-15."""
    assert ask(api, "POST", "dev-set-state-store?key=k&value=v+v").body == b"done\n"
    assert api.backend.calls[-1] == ("write_state", "k", "v v")
    assert ask(api, "POST", "dev-set-state-store?value=v").status == 400
    assert ask(api, "GET", "dev-set-state-store?key=k&value=v").status == 405


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


def request_dial(api: LocalApiThread, host: str, port: int | str, length: int = 0) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(5)
    sock.connect(api.path)
    head = "POST /localapi/v0/dial HTTP/1.1\r\nHost:\r\nConnection: upgrade\r\nUpgrade: ts-dial\r\n"
    sock.sendall(f"{head}Dial-Host: {host}\r\nDial-Port: {port}\r\nContent-Length: {length}\r\n\r\n".encode())
    return sock


def upgrade(api: LocalApiThread, host: str, port: int | str) -> tuple[socket.socket, bytes]:
    sock = request_dial(api, host, port)
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += sock.recv(1000)
    return sock, answer


def test_localapi_dial_joins_both_ends(api: LocalApiThread, echo: int) -> None:
    """DI-02: LA `dial`: 101, then the bytes of the connection; each end's end reaches the other."""
    api.backend.dial_targets["node-a"] = ("127.0.0.1", True)
    sock, answer = upgrade(api, "node-a", echo)
    with sock:
        assert answer.startswith(b"HTTP/1.1 101 ")
        sock.sendall(b"hello")
        assert sock.recv(100) == b"HELLO"
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(100) == b""


def test_localapi_dial_for_a_request_that_never_ends_is_not_made(tmp_path: Path) -> None:
    limits = Limits(body_s=0.01)
    with LocalApiThread(str(tmp_path / "s"), limits=limits) as api, socket.create_server(("127.0.0.1", 0)) as far:
        far.setblocking(False)
        api.backend.dial_targets["node-a"] = ("127.0.0.1", True)
        with request_dial(api, "node-a", far.getsockname()[1], length=5) as sock:
            assert sock.recv(1000).startswith(b"HTTP/1.1 408 ")
        with pytest.raises(BlockingIOError):
            far.accept()


def test_localapi_dial_elsewhere_is_left_to_the_client(api: LocalApiThread) -> None:
    """DI-02: what is not in the network is dialled by the user, not by root."""
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


def test_localapi_named_user_may_have_certificates(api: LocalApiThread, monkeypatch: pytest.MonkeyPatch) -> None:
    """LA-07: a web server's user, by number or by name, and nobody else beside those who may write."""
    api.backend.certificates = ["a.mesh.test"]

    def status(uid: int, named: str) -> int:
        monkeypatch.setenv("TS_PERMIT_CERT_UID", named)
        api.uid = uid
        return ask(api, "GET", "cert/a.mesh.test").status

    assert [status(33, ""), status(33, "33"), status(33, "34"), status(33, "nosuchuser"), status(0, "")] == [
        *(403, 501, 403, 403, 501)
    ]
    nobody = pwd.getpwnam("nobody").pw_uid
    assert (status(nobody, "nobody"), status(33, "nobody")) == (501, 403)
    assert ask(api, "GET", "prefs").status == 200
    assert ask(api, "PATCH", "prefs", b"{}").status == 403
    api.backend.operators = {33}
    assert status(33, "") == 501


@pytest.mark.parametrize(
    "config",
    [
        {"Web": {"a:443": {"Handlers": {"/": {"Path": "/etc"}}}}},
        {"Web": {"a:443": {"Handlers": {"/": {"Proxy": "unix:/run/docker.sock"}}}}},
        {"Foreground": {"x": {"Web": {"a:443": {"Handlers": {"/": {"Path": "/etc/shadow"}}}}}}},
    ],
)
def test_localapi_serving_files_takes_an_administrator(
    api: LocalApiThread, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, config: dict
) -> None:
    """LA-08: the daemon reads as root, so an operator must be one whom sudo trusts as well."""
    body = json.dumps(config).encode()
    asked = tmp_path / "asked"
    sudo = tmp_path / "sudo"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    api.uid = pwd.getpwnam("nobody").pw_uid
    api.backend.operators = {api.uid, 4242}
    sudo.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" > {asked}\nexit 1\n')
    sudo.chmod(0o755)
    refused = ask(api, "POST", "serve-config", body)
    assert (refused.status, refused.body[:12]) == (401, b"must be root")
    assert asked.read_text() == "-n --other-user=nobody --list mesh\n"
    sudo.write_text("#!/bin/sh\nexit 0\n")
    assert ask(api, "POST", "serve-config", body).status == 500  # this build cannot serve
    api.uid = 4242
    assert ask(api, "POST", "serve-config", body).status == 401  # sudo knows no such user
    api.uid = 0
    assert ask(api, "POST", "serve-config", body).status == 500
    assert ask(api, "POST", "serve-config", b'{"TCP":{"443":{"HTTPS":true}}}').status == 500


def test_localapi_reason_of_a_change_is_logged(api: LocalApiThread, caplog: pytest.LogCaptureFixture) -> None:
    """LA-15."""
    reason = base64.b64encode(b"moving\nhouse").decode()
    with caplog.at_level("INFO", logger="meshd"):
        assert ask(api, "POST", "logout", b"", **{"X-Tailscale-Reason": reason}).status == 204
        assert ask(api, "POST", "logout", b"", **{"X-Tailscale-Reason": "no base64!"}).status == 204
    lines = [KeyValueFormatter().format(r) for r in caplog.records if r.message == "localapi_request"]
    assert len(lines) == 2
    assert "moving house" in lines[0]
    assert "reason" not in lines[1]


def test_localapi_mask_bit_of_in_process_watchers_is_refused(api: LocalApiThread) -> None:
    """LA-15: a client of the socket may not hold up the node."""
    bits = {"InProcessNoDisconnect": 1 << 16}
    refused = ask(api, "GET", f"watch-ipn-bus?mask={bits['InProcessNoDisconnect']}")
    assert refused.status == 400


def test_localapi_request_lines_are_limited_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    """LA-14: a program that asks in a loop does not push everything else out of the log."""
    clock = FakeClock()
    notes = RequestLog(clock.monotonic)
    with caplog.at_level("INFO", logger="meshd"):
        for _ in range(1000):
            notes.note("POST", "debug", 1000, "")
        clock.advance(10)
        notes.note("POST", "debug", 1000, "")
    assert 30 <= len(caplog.records) <= 50
    assert "lines_left_out=9" in KeyValueFormatter().format(caplog.records[-1])


def test_localapi_lines_of_users_without_rights_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """api:debug-log: a loop of requests gets no more written than one, whoever sends them; root is not held back."""
    clock = FakeClock()
    notes = RequestLog(clock.monotonic)
    with caplog.at_level("INFO", logger="meshd"):
        for number in range(1000):
            notes.client_lines("p", [f"{number} {line}" for line in range(60)], trusted=False)
        assert len(caplog.records) == 60
        clock.advance(10)
        notes.client_lines("p", ["later"] * 60, trusted=False)
        assert len(caplog.records) == 60 + 20 + 1
        assert "lines=59980" in KeyValueFormatter().format(caplog.records[-1])
        notes.client_lines("p", ["root's"] * 60, trusted=True)
        assert len(caplog.records) == 60 + 20 + 1 + 60


def test_localapi_refused_requests_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """LA-09: a thousand hosts that are none of ours, of which the first are told."""
    notes = RequestLog(FakeClock().monotonic)
    with caplog.at_level("INFO", logger="meshd"):
        for number in range(1000):
            notes.refused(f"rebound-{number}.example" + "x" * 200)
    assert len(caplog.records) == 60
    line = KeyValueFormatter().format(caplog.records[0])
    assert "host=rebound-0.example" in line
    assert len(line) < 200


def test_localapi_user_may_not_wait_for_too_many_answers(api: LocalApiThread) -> None:
    """LA-14: pings that nobody answers are bounded for each unprivileged user, not for root."""
    api.backend.ping_answer = None
    api.uid = 1234
    waiting = []

    def begin() -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(5)
        sock.connect(api.path)
        sock.sendall(
            b"POST /localapi/v0/ping?ip=100.64.0.9&type=disco HTTP/1.1\r\nHost: local-tailscaled.sock\r\n"
            b"Content-Length: 0\r\n\r\n"
        )
        return sock

    def pinging() -> int:
        return sum(call[0] == "ping" for call in api.backend.calls)

    for number in range(MAX_WAITERS):
        waiting.append(begin())
        while api.call(pinging) <= number:
            time.sleep(0.005)
    refused = ask(api, "POST", "ping?ip=100.64.0.9&type=disco", b"")
    assert (refused.status, b"already waits" in refused.body) == (429, True)
    assert ask(api, "POST", "netcheck", b"").status == 429
    api.uid = 0
    assert ask(api, "POST", "netcheck", b"").status == 200
    api.uid = 1234
    for sock in waiting:
        sock.close()
    while api.call(lambda: sum(call[0] == "ping_cancelled" for call in api.backend.calls)) < MAX_WAITERS:
        time.sleep(0.005)
    assert ask(api, "POST", "netcheck", b"").status == 200


def test_localapi_streams_of_all_peers_are_few_per_user(api: LocalApiThread) -> None:
    """LA-14: a reader that reads nothing holds a whole network map; streams of small things are not counted."""
    api.uid = 1234

    def begin(mask: int) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(5)
        sock.connect(api.path)
        sock.sendall(b"GET /localapi/v0/watch-ipn-bus?mask=%d HTTP/1.1\r\nHost:\r\n\r\n" % mask)
        return sock

    watching = []
    for number in range(MAX_WAITERS):
        watching.append(begin(8))
        while api.call(lambda: len(api.backend.watches)) <= number:
            time.sleep(0.005)
    with begin(8) as refused:
        assert refused.recv(100).startswith(b"HTTP/1.1 429 ")
    watching.append(begin(2))
    while api.call(lambda: len(api.backend.watches)) <= MAX_WAITERS:
        time.sleep(0.005)
    for sock in watching:
        sock.close()
    while api.call(lambda: len(api.backend.watches)):
        time.sleep(0.005)
    with begin(8) as taken:
        assert taken.recv(100).startswith(b"HTTP/1.1 200 ")


def test_localapi_debug_notify_by_header(api: LocalApiThread) -> None:
    """DB-02: the body is the notification, so that the action stands in a header."""
    ask(api, "POST", "debug", b'{"ErrMessage":"x"}', **{"Debug-Action": "notify"})
    assert api.backend.calls[-1] == ("debug", "notify", b'{"ErrMessage":"x"}')


def test_localapi_bug_report_records_until_the_client_says_so(api: LocalApiThread) -> None:
    """DB-06: one marker at once, another when the body comes; paths are logged in detail between the two."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        sock.connect(api.path)
        sock.sendall(
            b"POST /localapi/v0/bugreport?note=n&record=true&diagnose=1 HTTP/1.1\r\nHost: local-tailscaled.sock\r\n"
            b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        reader = sock.makefile("rb")
        while reader.readline() != b"\r\n":
            pass
        parts = chunks(reader)
        assert next(parts).startswith(b"BUG-")
        sock.sendall(b"1\r\n\n\r\n0\r\n\r\n")
        assert next(parts).startswith(b"BUG-")
        assert list(parts) == []
    calls = api.backend.calls
    assert calls[0] == ("bug_report", "n", True)
    assert calls[1] == ("log_component", "magicsock", 12 * 3600)
    assert calls[-1] == ("log_component", "magicsock", 0)
    api.uid = 1000
    assert ask(api, "POST", "bugreport?record=true", b"").status == 403


def record(api: LocalApiThread) -> None:
    """A bug report that ends as soon as it has begun."""
    with socket.socket(socket.AF_UNIX) as sock, sock.makefile("rb") as reader:
        sock.settimeout(5)
        sock.connect(api.path)
        head = b"POST /localapi/v0/bugreport?record=1 HTTP/1.1\r\nHost: local-tailscaled.sock\r\nConnection: close\r\n"
        sock.sendall(head + b"Content-Length: 1\r\n\r\n")
        while reader.readline() != b"\r\n":
            pass
        parts = chunks(reader)
        assert next(parts).startswith(b"BUG-")
        sock.sendall(b"\n")
        assert [part[:4] for part in parts] == [b"BUG-"]


def test_localapi_bug_report_waits_for_people(tmp_path: Path) -> None:
    """DB-06: who shows what is wrong takes longer than the body of any other request may."""
    with LocalApiThread(str(tmp_path / "s"), limits=Limits(body_s=0.0)) as api:
        record(api)
        assert [c[2] for c in api.backend.calls if c[0] == "log_component"] == [12 * 3600, 0]


def test_localapi_bug_report_leaves_logging_that_others_asked_for(api: LocalApiThread) -> None:
    """DB-06, DB-01: neither prolonged nor ended."""
    assert ask(api, "POST", "component-debug-logging?component=magicsock&secs=60", b"").status == 200
    record(api)
    assert [c[2] for c in api.backend.calls if c[0] == "log_component"] == [60]


def test_localapi_bug_report_of_a_client_that_left_begins_nothing() -> None:
    """DB-06: twelve hours of detail for nobody."""
    backend = FakeBackend()
    request: Any = SimpleNamespace(query=[("record", "1")])
    call = Call(request, backend, Permissions(True, True), "", RequestLog(time.monotonic))

    async def run() -> None:
        response = await _bug_report(call)
        await response.body.aclose()  # type: ignore[union-attr]

    asyncio.run(run())
    assert [c[0] for c in backend.calls] == ["bug_report"]


def test_localapi_operator_stops_the_daemon_where_the_policy_says_so(api: LocalApiThread) -> None:
    """api:shutdown, policy:AllowTailscaledRestart: who may not disconnect ends it neither; root always may."""
    api.backend.operators.add(1000)
    api.uid = 1000
    refused = ask(api, "POST", "shutdown", b"")
    assert (refused.status, refused.body) == (403, b"shutdown access denied by policy\n")
    api.backend.stoppable = True
    assert ask(api, "POST", "shutdown", b"").status == 200
    api.backend.stoppable, api.uid = False, 0
    assert ask(api, "POST", "shutdown", b"").status == 200


def test_localapi_optional_features_are_told_honestly(api: LocalApiThread) -> None:
    features = json.loads(ask(api, "GET", "debug-optional-features").body)["Features"]
    assert len(features) == 18
    assert not features["portmapper"]


@pytest.mark.parametrize(
    ("path", "method", "body", "refused", "status"),
    [
        ("debug-packet-filter-matches", "GET", None, None, 200),
        ("dns-osconfig", "GET", None, "POST", 200),
        ("reload-config", "POST", b"", "GET", 200),
        ("handle-push-message", "POST", b"{}", "GET", 204),
        ("set-push-device-token", "POST", b"{}", "GET", 200),
    ],
)
def test_localapi_route_takes_its_method_only(
    api: LocalApiThread, path: str, method: str, body: bytes | None, refused: str | None, status: int
) -> None:
    """Any other method is refused as such."""
    got = ask(api, method, path, body)
    assert got.status == status
    if refused is not None:
        assert ask(api, refused, path, b"" if refused == "POST" else None).status == 405
    shapes = {
        "debug-packet-filter-matches": {"IPProto", "Srcs", "SrcCaps", "Dsts", "Caps"},
        "dns-osconfig": {"Nameservers", "SearchDomains", "MatchDomains"},
        "reload-config": {"Reloaded", "Err"},
    }
    if path in shapes:
        answer = json.loads(got.body)
        assert set(answer[0] if isinstance(answer, list) else answer) == shapes[path]


def test_localapi_push_token_reaches_the_node(api: LocalApiThread) -> None:
    """PP-12, INV-7: `set-push-device-token`; what is no text is refused."""
    for body, token in ((b'{"pushdevicetoken": "t1"}', "t1"), (b'{"PushDeviceToken": null}', "")):
        assert ask(api, "POST", "set-push-device-token", body).status == 200
        assert api.backend.calls[-1] == ("set_push_token", token)
    for bad in (b'{"PushDeviceToken": 7}', b"[]", b"x", b""):
        assert ask(api, "POST", "set-push-device-token", bad).status == 400


@pytest.mark.parametrize(
    "value",
    [
        {"NetMap": {"Peers": [{"ID": n} for n in range(1000)], "Domain": "x"}, "State": 6},
        {"InitialStatus": {"Peer": {f"k{n}": {"ID": n} for n in range(513)}, "Self": None}},
        {"PeersChanged": list(range(257)), "Prefs": {}},
        {"ErrMessage": None},
        [],
        list(range(300)),
    ],
)
def test_jsontext_encoded_in_turns_is_what_it_is_at_once(value: object) -> None:
    assert b"".join(asyncio.run(jsontext.compact_in_turns(value))) == jsontext.compact(value)


def test_watch_large_network_is_one_line_in_pieces_before_what_comes_next() -> None:
    """NB-02: to write eight megabytes at once takes fifty milliseconds."""
    peers = [{"ID": n, "Name": "x" * 500} for n in range(2000)]
    told: list[dict[str, Any]] = [{"NetMap": {"Peers": peers}}, {"State": 6}]

    async def notifies() -> AsyncIterator[dict[str, Any]]:
        for notify in told:
            yield notify

    async def read() -> list[bytes]:
        return [piece async for piece in _Lines(notifies(), contextlib.ExitStack(), large=True)]

    pieces = asyncio.run(read())
    assert all(len(piece) < 4 * jsontext.PIECE_BYTES for piece in pieces)
    lines = [json.loads(line) for line in b"".join(pieces).splitlines()]
    assert [line["NetMap"] for line in lines] == [told[0]["NetMap"], None]
    assert json.loads(pieces[-1])["State"] == 6
