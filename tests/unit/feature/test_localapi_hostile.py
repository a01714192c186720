"""The LocalAPI among users and programs that mean no good, and routes of parts that this build has not."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.base.log import KeyValueFormatter
from meshd.feature.localapi import server
from meshd.feature.localapi.server import LocalApiServer
from meshd.testing.fakebackend import LOGIN_URL, FakeBackend
from meshd.testing.localapi import LocalApiThread
from tests.unit.feature.rawhttp import ask, chunks


@pytest.fixture
def api(tmp_path: Path) -> Iterator[LocalApiThread]:
    with LocalApiThread(str(tmp_path / "s")) as made:
        yield made


_CLIENT = """
import socket, sys
def ask(method, path):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(sys.argv[1])
    head = f"{method} /localapi/v0/{path} HTTP/1.1\\r\\nHost: local-tailscaled.sock\\r\\n"
    sock.sendall((head + "Connection: close\\r\\nContent-Length: 2\\r\\nX-Uid: 0\\r\\n\\r\\n{}").encode())
    return sock.recv(1000).split()[1].decode()
print(ask("GET", "status"), ask("POST", "logout"), ask("PATCH", "prefs"), ask("GET", "logtap"))
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_localapi_unprivileged_process_is_known_by_its_uid() -> None:
    """LA-04: a real process of another user, whatever it says of itself, reads and changes nothing."""
    nobody = pwd.getpwnam("nobody").pw_uid
    directory = tempfile.mkdtemp()
    os.chmod(directory, 0o755)
    node = FakeBackend()

    async def main() -> str:
        path = f"{directory}/s"
        api = LocalApiServer(node)
        await api.start(path)
        asked = await asyncio.create_subprocess_exec(
            "/usr/bin/python3",
            "-c",
            _CLIENT,
            path,
            user=nobody,
            group=nobody,
            extra_groups=[],
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await asked.communicate()
        await api.close()
        return out.decode().strip()

    try:
        assert asyncio.run(main()) == "200 403 403 403"
        assert node.calls == []
    finally:
        shutil.rmtree(directory)


@pytest.mark.parametrize(
    "lines",
    [
        ["Host: evil.example.com", "Host: local-tailscaled.sock"],
        ["Host: local-tailscaled.sock", "Host: evil.example.com"],
        ["Host: local-tailscaled.sock:41112"],
        ["Host: LOCAL-TAILSCALED.SOCK.evil.example.com"],
        ["Host: 127.0.0.1"],
        ["Host: [::1]"],
        ["Host: local-tailscaled.sock", "Origin: null"],
        ["Host: local-tailscaled.sock", "Referer: about:blank"],
    ],
)
def test_localapi_rebound_page_gets_nothing(api: LocalApiThread, lines: list[str]) -> None:
    """LA-09: whatever a browser can be made to send: neither an answer nor an action."""
    assert api_refuses(api, "/localapi/v0/logout", lines)


def test_localapi_server_named_by_a_whole_url_is_checked_as_host_is(api: LocalApiThread) -> None:
    """LA-09: what stands in the target counts, and Host then does not (RFC 9112 3.2.2)."""
    assert api_refuses(api, "http://evil.example/localapi/v0/logout", ["Host: local-tailscaled.sock"])


def api_refuses(api: LocalApiThread, target: str, lines: list[str]) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        sock.connect(api.path)
        head = "\r\n".join([f"POST {target} HTTP/1.1", *lines, "Connection: close", "Content-Length: 0"])
        sock.sendall(head.encode() + b"\r\n\r\n")
        answer = sock.recv(65536)
    return answer.split()[1] in (b"403", b"400") and api.backend.calls == []


@settings(max_examples=60, deadline=None)
@given(
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "FOO"]),
    route=st.sampled_from(sorted(set(server._ROUTES) - {"watch-ipn-bus", "logtap", "debug-capture", "dial"})),
    rest=st.text("abc/%.?=&;\\#0\u00e4 ", max_size=12),
    body=st.binary(max_size=40),
)
def test_localapi_any_request_of_a_stranger_is_answered(method: str, route: str, rest: str, body: bytes) -> None:
    """LA-11, LA-12: any route, method, query and body of a user without rights ends in a status, never in a bug."""
    directory = tempfile.mkdtemp()
    try:
        with LocalApiThread(f"{directory}/s") as api:
            api.uid = 4242
            path = "".join(c if c.isascii() and c not in " #" else "%20" for c in route + rest)
            got = ask(api, method, path, body)
            assert 200 <= got.status < 600
            assert b"internal error" not in got.body.lower()
            assert b"Traceback" not in got.body
            allowed = {"ping", "watch", "bug_report", "control"}
            assert {call[0] for call in api.backend.calls} <= allowed | {"ping_cancelled", "upload_metrics"}
    finally:
        shutil.rmtree(directory)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("POST", name) for name in ("start", "check-prefs", "debug-log", "serve-config", "handle-push-message")),
        *(("POST", name) for name in ("upload-client-metrics", "pins", "tka/init", "tka/verify-deeplink")),
        ("PATCH", "prefs"),
        ("PATCH", "alpha-set-device-attrs"),
    ],
)
def test_localapi_body_beyond_the_limit_is_refused_unread(api: LocalApiThread, method: str, path: str) -> None:
    """LA-14: two megabytes to any route that takes JSON: 413, and the next request is served."""
    got = ask(api, method, path, b'{"a":"' + b"x" * (2 << 20) + b'"}')
    assert got.status == 413
    assert api.backend.calls == []
    assert ask(api, "GET", "status").status == 200


@pytest.mark.parametrize("path", ["prefs", "start", "check-prefs", "pins", "serve-config"])
def test_localapi_deeply_nested_body_is_400(api: LocalApiThread, path: str) -> None:
    """LA-12: nothing is built of what nobody could mean."""
    body = b'{"a":' * 50_000 + b"1" + b"}" * 50_000
    assert ask(api, "PATCH" if path == "prefs" else "POST", path, body).status in (400, 500)
    assert ask(api, "GET", "status").status == 200


def test_localapi_bus_reader_that_closes_its_half_is_forgotten(api: LocalApiThread) -> None:
    """LA-14, api:watch-ipn-bus: and one that reads nothing holds nobody up."""
    with socket.socket(socket.AF_UNIX) as half, socket.socket(socket.AF_UNIX) as idle:
        for sock in (half, idle):
            sock.settimeout(5)
            sock.connect(api.path)
            sock.sendall(b"GET /localapi/v0/watch-ipn-bus?mask=2 HTTP/1.1\r\nHost:\r\n\r\n")
        while len(api.backend.watches) < 2:
            pass
        half.shutdown(socket.SHUT_WR)
        while len(api.backend.watches) > 1:
            pass
        for number in range(2000):
            api.call(lambda n=number: api.backend.notify(ErrMessage=f"{n} " + "x" * 2000))
        assert ask(api, "GET", "status").status == 200


def test_localapi_lines_for_the_log_are_bounded_and_harmless(
    api: LocalApiThread, caplog: pytest.LogCaptureFixture
) -> None:
    """api:debug-log: sixty lines of a thousand characters, each one line of the log whatever is in it."""
    lines = ["first\nlevel=error forged=yes", "y" * 5000] + ["z"] * 100
    with caplog.at_level("INFO", logger="meshd"):
        body = json.dumps({"Lines": lines, "Prefix": "p" * 500}).encode()
        assert ask(api, "POST", "debug-log", body).status == 204
    texts = [KeyValueFormatter().format(r) for r in caplog.records if r.message.startswith("client_log")]
    assert len(texts) == 61
    assert not any("\n" in text for text in texts)
    assert max(map(len, texts)) < 1300
    assert "lines=42" in texts[-1]
    for bad in (b"[]", b'{"Lines":7}', b'{"Lines":[7]}', b'{"Lines":[],"Prefix":7}', b""):
        assert ask(api, "POST", "debug-log", bad).status == 400


def test_localapi_login_is_told_on_the_bus(api: LocalApiThread) -> None:
    """api:login-interactive: 204 at once, the page to visit comes to who watches."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        sock.connect(api.path)
        sock.sendall(b"GET /localapi/v0/watch-ipn-bus HTTP/1.1\r\nHost:\r\n\r\n")
        with sock.makefile("rb") as reader:
            while reader.readline().strip():
                pass
            assert ask(api, "POST", "login-interactive", b"").status == 204
            assert json.loads(next(chunks(reader)))["BrowseToURL"] == LOGIN_URL


def test_localapi_directories_are_not_shared_and_it_says_so(api: LocalApiThread) -> None:
    """api:drive/shares: by the network's leave first, by what this build can do then."""
    for method in ("GET", "PUT", "POST", "DELETE"):
        got = ask(api, method, "drive/shares", b"{}" if method != "GET" else None)
        assert (got.status, b"drive:share" in got.body) == (403, True)
    api.backend.capabilities = {"drive:share"}
    got = ask(api, "GET", "drive/shares")
    assert (got.status, got.body) == (501, b"this build of meshd cannot share directories\n")


def test_localapi_files_have_no_targets_and_it_says_so(api: LocalApiThread) -> None:
    """api:file-targets."""
    got = ask(api, "GET", "file-targets")
    assert (got.status, got.body) == (500, b"this build of meshd cannot send files\n")
    assert ask(api, "POST", "file-targets", b"").status == 400


def test_localapi_policy_scopes_and_reload(api: LocalApiThread) -> None:
    """api:policy/: one policy for every scope, read again by POST."""
    for scope in ("", "Device", "User", "Profile/User", "Profile(1)", "Profile(1)%2FUser(2)"):
        assert json.loads(ask(api, "GET", "policy/" + scope).body) == {"Summary": {"Scope": "Device"}}
    for scope in ("x", "Device/User", "..%2F", "User(1"):
        assert ask(api, "GET", "policy/" + scope).status == 400
    assert api.backend.calls == []
    assert ask(api, "POST", "policy/", b"").status == 200
    assert api.backend.calls == [("reload_policy",)]


def test_localapi_routecheck_is_not_enabled(api: LocalApiThread) -> None:
    """api:routecheck."""
    got = ask(api, "POST", "routecheck?probe=true", b"")
    assert (got.status, got.body) == (503, b"routecheck is not enabled\n")
    assert ask(api, "GET", "routecheck").status == 405


def test_localapi_serves_while_a_client_dribbles(api: LocalApiThread) -> None:
    """LA-14: unfinished requests, half a body, a head without end: others are served."""
    begun = (
        b"GET /localapi/v0/sta",
        b"POST /localapi/v0/start HTTP/1.1\r\nHost:\r\nContent-Length: 100\r\n\r\n{",
        b"GET /localapi/v0/status HTTP/1.1\r\nHost:\r\nX: " + b"x" * 1000,
    )
    socks = []
    for data in begun:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(api.path)
        sock.sendall(data)
        socks.append(sock)
    assert ask(api, "GET", "status").status == 200
    for sock in socks:
        sock.close()
    assert api.backend.calls == []


def test_localapi_curl_can_use_the_socket(api: LocalApiThread) -> None:
    """LA-03: an ordinary HTTP client, with the host that `mesh debug local-creds` prints."""
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not on PATH")
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}  # no sanitizer for it
    done = subprocess.run(
        [curl, "-sS", "--unix-socket", api.path, "http://local-tailscaled.sock/localapi/v0/status?peers=false"],
        capture_output=True, text=True, check=True, timeout=20, env=environment,
    )  # fmt: skip
    assert json.loads(done.stdout)["BackendState"] == "Running"
