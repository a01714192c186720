"""Every LocalAPI route, through a real socket, beside what the reference daemon was recorded to answer."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshd.base.errors import MeshdError
from meshd.feature.localapi.server import LocalApiServer, find_route
from meshd.feature.localapi.socketfile import open_socket
from meshd.io.http.h1server import HttpError
from meshd.testing.fakebackend import PEER_KEY, FakeBackend
from meshd.testing.localapi import LocalApiThread
from tests.unit.feature.rawhttp import ask, chunks

RECORDED = json.loads(Path("tests/vectors/localapi_recorded.json").read_text())["requests"]


@pytest.fixture
def api(tmp_path: Path) -> Iterator[LocalApiThread]:
    with LocalApiThread(str(tmp_path / "dir" / "s")) as server:
        yield server


def shape(value: object) -> object:
    """Types only; what may be absent or null in either is not compared."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    return "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__


SERVED = {
    "status", "status?peers=false", "prefs", "derpmap", "profiles/", "profiles/current", "profiles/none",
    "serve-config", "whois?addr=100.99.99.99", "whois", "whois?addr=nonsense", "debug-packet-filter-rules", "nosuch",
    "profiles", "check-prefs", "debug?action=restun", "debug?action=rebind", "debug?action=nonsense", "debug",
    "debug-log", "bugreport", "login-interactive-x", "start", "set-expiry-sooner?expiry=x", "/localapi/",
    "/localapi/v0/", "/localapi/v1/status", "ping?ip=x&type=disco", "ping?type=disco", "watch-ipn-bus?mask=x",
    "ping?ip=100.99.99.99&type=disco", "user-profile?id=1", "reset-auth", "suggest-exit-node", "tka/status", "tka/log",
    "update/check", "update/progress", "update/install", "drive/shares", "files/?waitsec=1",
    "check-udp-gro-forwarding", "debug-peer-endpoint-changes?ip=x", "cert-domains", "check-so-mark-in-use",
    "dns-osconfig", "services", "policy/", "appc-route-info", "routecheck", "cert/nope", "id-token?aud=x",
    "component-debug-logging?component=magicsock&secs=1", "component-debug-logging?component=x&secs=1",
    "query-feature?feature=serve", "reload-config", "set-use-exit-node-enabled?enabled=true",
    "set-use-exit-node-enabled?enabled=x", "tka/sign", "tka/disable", "handle-push-message", "dial",
    "set-dns?name=x&value=y", "upload-client-metrics",
}  # fmt: skip
"""Recorded requests that the fake node answers as the recorded daemon did (those in an ordinary state)."""


def comparable(recorded: dict) -> bool:
    """Not the streams, nor what depends on a part that the fake node has not: judging routes."""
    routes = "AdvertiseRoutes" in recorded.get("body", "")
    answered = "status" in recorded and not recorded.get("streaming")
    return answered and not routes


# Error texts that only name Go's JSON decoder; the status is what counts.
_OWN_TEXT = {("PATCH", "prefs", "nonsense"), ("POST", "start", "nonsense")}


@pytest.mark.parametrize(
    "recorded",
    [recorded for recorded in RECORDED if recorded["path"] in SERVED and comparable(recorded)],
    ids=lambda r: f"{r['method']} {r['path']} {r.get('body', '')[:40]}",
)
def test_localapi_answers_as_recorded(api: LocalApiThread, recorded: dict) -> None:
    """LA-09, LA-11, LA-12, api:GET prefs, api:GET serve-config: status, type and text of each recorded answer."""
    if recorded["path"] == "profiles/" and recorded.get("response") == []:
        api.backend.profile_list = []
    if (recorded["method"], recorded["path"]) == ("POST", "serve-config"):
        api.backend.state = "NeedsLogin"
    headers = dict(recorded.get("headers") or {})
    if "host" in recorded:
        headers["Host"] = recorded["host"]
    body = recorded.get("body")
    got = ask(api, recorded["method"], recorded["path"], None if body is None else body.encode(), **headers)
    assert got.status == recorded["status"]
    expected_type = recorded["response_headers"].get("Content-Type")
    assert got.headers.get("content-type") == expected_type
    if got.status == 200 and recorded["method"] != "HEAD":
        for name in ("Content-Security-Policy", "X-Frame-Options", "X-Content-Type-Options"):
            assert got.headers[name.lower()] == recorded["response_headers"][name]
    key = (recorded["method"], recorded["path"], body)
    if "response_text" in recorded and key not in _OWN_TEXT and recorded["method"] != "HEAD":
        assert got.body.decode() == recorded["response_text"]
    if isinstance(recorded.get("response"), dict) and got.status == 200:
        assert list(json.loads(got.body)) == list(recorded["response"]) or recorded["path"].startswith(("p", "status"))


def test_localapi_headers(api: LocalApiThread) -> None:
    """LA-10."""
    got = ask(api, "GET", "status")
    assert got.headers["tailscale-version"] == "0.1.0-meshd"
    assert got.headers["tailscale-cap"] == "113"


def test_localapi_status_is_tab_indented(api: LocalApiThread) -> None:
    """status:Status."""
    text = ask(api, "GET", "status").body.decode()
    assert text.startswith('{\n\t"Version": "0.1.0-meshd",\n\t"TUN": true,\n')
    assert '\n\t\t"' + PEER_KEY in text
    assert "  " not in text.replace("\\t", "")
    assert json.loads(text) == api.backend.status()


def test_localapi_indentation_survives_strings_that_look_like_it() -> None:
    from meshd.feature.localapi.jsontext import indented

    value = {"a\n  b": ["\n    x", {"deep": [[[["  ", {"y": []}]]]]}], "e": {}}
    assert json.loads(indented(value)) == value
    assert indented(value) == json.dumps(value, indent="\t").encode() + b"\n"


@pytest.mark.parametrize("host", ["evil.example.com", "localhost", "127.0.0.1:80", "local-tailscaled.sock.evil"])
def test_localapi_foreign_host_is_refused(api: LocalApiThread, host: str) -> None:
    """LA-09: a page that reaches the socket through DNS tricks gets nothing."""
    got = ask(api, "POST", "logout", b"", Host=host)
    assert (got.status, got.body) == (403, b"invalid localapi request\n")
    assert api.backend.calls == []


@pytest.mark.parametrize("name", ["Origin", "Referer"])
def test_localapi_browser_headers_are_refused(api: LocalApiThread, name: str) -> None:
    """LA-09."""
    assert ask(api, "GET", "status", None, **{name: "http://local-tailscaled.sock/"}).status == 403


READ = ["status", "prefs", "whois?addr=100.64.0.1", "check-ip-forwarding", "serve-config", "peer-by-id?id=1", "derpmap"]
WRITE = [
    ("PATCH", "prefs"), ("POST", "start"), ("POST", "login-interactive"), ("POST", "logout"), ("POST", "reset-auth"),
    ("POST", "check-prefs"), ("POST", "debug?action=rebind"), ("GET", "metrics"), ("GET", "goroutines"),
    ("GET", "profiles/"), ("PUT", "profiles/"), ("POST", "set-expiry-sooner?expiry=1"), ("POST", "shutdown"),
    ("GET", "debug-packet-filter-rules"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), WRITE)
def test_localapi_other_users_cannot_write(api: LocalApiThread, method: str, path: str) -> None:
    """LA-06: neither root nor operator: 403 with the thing's name."""
    api.uid = 1000
    got = ask(api, method, path, b"{}")
    assert got.status == 403
    assert got.body.endswith(b"access denied\n")
    assert api.backend.calls == []


@pytest.mark.parametrize(("method", "path"), WRITE)
def test_localapi_operator_may_write(api: LocalApiThread, method: str, path: str) -> None:
    """LA-06."""
    api.uid = 1000
    api.backend.operators, api.backend.stoppable = {1000}, True
    assert ask(api, method, path, b"{}").status < 300


@pytest.mark.parametrize("path", READ)
def test_localapi_everybody_may_read(api: LocalApiThread, path: str) -> None:
    """LA-05."""
    api.uid = 1000
    assert ask(api, "GET", path).status == 200


def test_permissions_of_an_unprivileged_daemon_and_of_unknown_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    """LA-04, LA-06: the daemon's own user may write; a failed lookup reads only; without peer credentials, all."""
    from meshd.feature.localapi.permission import Permissions, permissions
    from meshd.io import peercred
    from meshd.io.peercred import PeerIdentity

    node = FakeBackend()
    own = PeerIdentity(1000, 1000, 1)
    assert permissions(own, node, daemon_uid=1000) == Permissions(True, True, True, True)
    assert permissions(own, node, daemon_uid=0) == Permissions(True, False)
    assert permissions(None, node, daemon_uid=0) == Permissions(True, False)
    monkeypatch.setattr(peercred, "SUPPORTED", False)
    assert permissions(None, node, daemon_uid=0) == Permissions(True, True, True, True)


def test_localapi_prefs_patch_reaches_the_backend(api: LocalApiThread) -> None:
    """api:PATCH prefs."""
    got = ask(api, "PATCH", "prefs", b'{"Hostname":"x","HostnameSet":true}')
    assert json.loads(got.body)["Hostname"] == "x"
    got = ask(api, "PATCH", "prefs", b'{"InternalExitNodePriorSet":true}')
    assert (got.status, json.loads(got.body)) == (400, {"Error": "can't set Internal fields"})


@pytest.mark.parametrize("body", [b"", b"[]", b"1", b"{", b"\xff\xfe", b"nonsense", b'"' + b"x" * 100])
@pytest.mark.parametrize("path", ["prefs", "start", "check-prefs"])
def test_localapi_bodies_that_are_no_object_get_400(api: LocalApiThread, path: str, body: bytes) -> None:
    """api:PATCH prefs."""
    got = ask(api, "PATCH" if path == "prefs" else "POST", path, body)
    assert got.status == 400
    assert api.backend.calls == []


def test_localapi_start_takes_names_in_any_case_and_keys_that_are_texts(api: LocalApiThread) -> None:
    """INV-7."""
    assert ask(api, "POST", "start", b'{"authkey":"k","updateprefs":{"Hostname":"x"}}').status == 204
    assert api.backend.calls == [("start", {"AuthKey": "k", "UpdatePrefs": {"Hostname": "x"}})]
    for key in (b"1", b"true", b'["k"]'):
        got = ask(api, "POST", "start", b'{"AuthKey":' + key + b"}")
        assert (got.status, b"AuthKey" in got.body) == (400, True)
    assert len(api.backend.calls) == 1


def test_localapi_megabyte_of_prefs_is_refused(api: LocalApiThread) -> None:
    got = ask(api, "PATCH", "prefs", b'{"Hostname":"' + b"x" * (1 << 20) + b'"}')
    assert got.status == 413
    assert ask(api, "PATCH", "prefs", b"[" * 500_000).status == 400


def test_localapi_ping_parameters(api: LocalApiThread) -> None:
    """status:PingResult."""
    for path, text in (
        ("ping?ip=100.64.0.1", "missing 'type' parameter\n"),
        ("ping?ip=100.64.0.1&type=TSMP&size=100", "'size' parameter is only supported with disco pings\n"),
        ("ping?ip=100.64.0.1&type=disco&size=x", "invalid 'size' parameter\n"),
        ("ping?ip=100.64.0.1&type=disco&size=70000", "maximum value for 'size' is 65507\n"),
    ):
        got = ask(api, "POST", path, b"")
        assert (got.status, got.body.decode()) == (400, text)
    got = ask(api, "POST", "ping?ip=100.64.0.1&type=nonsense", b"")
    assert got.status == 400  # where the reference never answers
    got = ask(api, "POST", "ping?ip=100.64.0.1&type=tsmp", b"")
    assert json.loads(got.body)["PeerAPIPort"] == 58436


def test_localapi_ping_ends_with_its_client(api: LocalApiThread) -> None:
    """LA-14: a client that stops waiting leaves no ping behind."""
    api.backend.ping_answer = None
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(api.path)
        sock.sendall(b"POST /localapi/v0/ping?ip=100.64.0.1&type=disco HTTP/1.1\r\nHost:\r\nContent-Length: 0\r\n\r\n")
        while ("ping", "100.64.0.1", "disco", 0) not in api.backend.calls:
            pass
    while ("ping_cancelled",) not in api.backend.calls:
        pass


def test_localapi_watch_streams_notifies(api: LocalApiThread) -> None:
    """notify:Version, notify:DriveShares: notify JSON: one object a line, the members that clients expect, null where
    nothing is said."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        sock.connect(api.path)
        sock.sendall(b"GET /localapi/v0/watch-ipn-bus?mask=6 HTTP/1.1\r\nHost:\r\n\r\n")
        with sock.makefile("rb") as reader:
            while reader.readline().strip():
                pass
            lines = chunks(reader)
            first = json.loads(next(lines))
            recorded = next(r["response"] for r in RECORDED if r["path"] == "watch-ipn-bus?mask=2")
            assert set(first) == set(recorded)
            assert (first["State"], first["NetMap"]) == (6, None)
            assert first["Prefs"]["WantRunning"] is True
            api.call(lambda: api.backend.notify(BrowseToURL="http://x"))
            later = json.loads(next(lines))
            assert later["BrowseToURL"] == "http://x"
            assert "SessionID" not in later
    while api.backend.watches:
        pass


def test_localapi_watch_masks_that_are_refused(api: LocalApiThread) -> None:
    """watch:RateLimit."""
    for mask in ("x", "-1", "65536", str(256 + 4096), "99999999999999999999"):
        assert ask(api, "GET", f"watch-ipn-bus?mask={mask}").status == 400, mask


@pytest.mark.parametrize(("uid", "kept"), [(0, ""), (1000, "ann")])
def test_localapi_profile_that_an_operator_begins_has_that_operator(api: LocalApiThread, uid: int, kept: str) -> None:
    """api:profiles/, PP-13: who could not log in to it could not go back either."""
    api.backend.operators, api.uid = {1000}, uid
    api.backend.stored["OperatorUser"] = "ann"
    assert ask(api, "PUT", "profiles/", b"").status == 201
    assert api.backend.stored.get("OperatorUser", "") == kept


def test_localapi_profiles(api: LocalApiThread) -> None:
    """api:profiles/<id>."""
    assert json.loads(ask(api, "GET", "profiles/df87").body)["Name"] == "bench"
    assert ask(api, "PUT", "profiles/", b"").status == 201
    assert ask(api, "POST", "profiles/df87", b"").status == 204
    got = ask(api, "POST", "profiles/none", b"")
    assert (got.status, got.body) == (500, b"profile not found\n")
    assert ask(api, "DELETE", "profiles/df87").status == 204
    assert ask(api, "PATCH", "profiles/df87").status == 405
    assert ask(api, "POST", "profiles/current", b"").status == 405
    assert ("switch_profile", "df87") in api.backend.calls


def test_localapi_netcheck_debug_and_metrics(api: LocalApiThread) -> None:
    assert json.loads(ask(api, "POST", "netcheck", b"").body)["PreferredDERP"] == 900
    assert json.loads(ask(api, "POST", "debug?action=control-knobs", b"").body) == {"DisableUPnP": False}
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert ask(api, "POST", "debug", b"action=rebind", **form).body == b"done\n"
    assert b"meshd_packets 1" in ask(api, "GET", "metrics").body
    assert ask(api, "GET", "usermetrics").headers["content-type"] == "text/plain;version=0.0.4;charset=utf-8"
    assert b"h1connection.py" in ask(api, "GET", "goroutines").body
    assert ask(api, "POST", "set-expiry-sooner?expiry=12345", b"").body == b"done\n"
    assert ("set_expiry_sooner", 12345.0) in api.backend.calls
    assert ask(api, "POST", "shutdown", b"").status == 200


def test_localapi_lookups_by_id(api: LocalApiThread) -> None:
    """NM-13, status:WhoIsResponse."""
    assert json.loads(ask(api, "GET", "peer-by-id?id=1").body)["ID"] == 1
    assert ask(api, "GET", "peer-by-id?id=9").status == 404
    for bad in ("", "0", "-1", "x", "5.0", "99999999999999999999"):
        assert ask(api, "GET", f"peer-by-id?id={bad}").status == 400
        assert ask(api, "GET", f"user-profile?id={bad}").status == 400
    assert json.loads(ask(api, "GET", f"whois?addr={PEER_KEY}").body)["Node"]["ID"] == 1
    assert ask(api, "GET", "whois?addr=nodekey:00").status == 400
    assert json.loads(ask(api, "GET", "whois?addr=%5Bfd7a:115c:a1e0::1%5D:80&proto=udp").body)["Node"]["ID"] == 1


def test_localapi_whois_tells_what_a_caller_may_do_at_another_address_or_service(api: LocalApiThread) -> None:
    """NM-07."""
    for who in ("100.64.0.2:443", PEER_KEY):
        assert json.loads(ask(api, "GET", f"whois?addr={who}&dst_ip=100.64.0.77").body)["CapMap"] == {
            "at": ["100.64.0.77"]
        }
        found = json.loads(ask(api, "GET", f"whois?addr={who}&dst_ip=100.64.0.77&svc_name=svc:db").body)
        assert found["CapMap"] is None
        for bad in ("dst_ip=x", "svc_name=db", "svc_name=svc:", "svc_name=svc:-a", "svc_name=svc:a%20b"):
            assert ask(api, "GET", f"whois?addr={who}&{bad}").status == 400


def test_localapi_outside_the_api(api: LocalApiThread) -> None:
    """LA-11: root page, CONNECT, unknown paths, server-status."""
    assert b"daemon" in ask(api, "GET", "/").body
    assert ask(api, "GET", "/favicon.ico").status == 404
    assert ask(api, "GET", "/server-status").body == b"{}"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(api.path)
        sock.sendall(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 405 ")


def test_localapi_requests_wait_for_the_backend(tmp_path: Path) -> None:
    """DM-08; LA-13: clients that come too early are served when the node is there."""
    import asyncio

    from meshd.feature.localapi.server import LocalApiServer

    async def main() -> None:
        server = LocalApiServer()
        path = str(tmp_path / "s")
        await server.start(path)
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET /server-status HTTP/1.1\r\nHost:\r\n\r\n")
        assert (await reader.readuntil(b'not ready"}')).startswith(b"HTTP/1.1 503 ")
        writer.write(b"GET /localapi/v0/status HTTP/1.1\r\nHost:\r\n\r\n")
        early_reader, early_writer = await asyncio.open_unix_connection(path)
        early_writer.write(b"GET /server-status?wait=true HTTP/1.1\r\nHost:\r\n\r\n")
        await asyncio.sleep(0)
        server.set_backend(FakeBackend())
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        assert (await early_reader.readuntil(b"{}")).startswith(b"HTTP/1.1 200 ")
        writer.close()
        early_writer.close()
        await server.close()

    asyncio.run(main())
    assert not (tmp_path / "s").exists()


def test_find_route_exact_then_prefix() -> None:
    """LA-11."""
    assert find_route("/localapi/v0/status")[0].name == "status"
    route, rest = find_route("/localapi/v0/profiles/a%2Fb/c")
    assert (route.name, rest) == ("profiles/", "a/b/c")
    for path in ("/localapi/v0/status/", "/localapi/v0/profiles", "status", "/localapi/v0", "/localapi/v0//status"):
        with pytest.raises(HttpError):
            find_route(path)


# -- the socket file (LA-02) -----------------------------------------------------------------------------------


def test_open_socket_makes_directory_and_modes(tmp_path: Path) -> None:
    """LA-02: directory 0755, socket 0666, whatever the umask."""
    import os

    before = os.umask(0o077)
    try:
        listener = open_socket(str(tmp_path / "run" / "s"))
    finally:
        os.umask(before)
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "run" / "s").stat().st_mode & 0o777 == 0o666
    listener.close()


def test_open_socket_replaces_a_stale_one_and_respects_a_live_one(tmp_path: Path) -> None:
    """LA-02."""
    path = str(tmp_path / "s")
    open_socket(path).close()
    live = open_socket(path)
    with pytest.raises(MeshdError, match="address already in use") as failure:
        open_socket(path)
    assert failure.value.code == "conflict"
    live.close()


def test_localapi_that_closes_leaves_the_socket_of_the_next_daemon(tmp_path: Path) -> None:
    """LA-02: it gives its last clients a second, in which another daemon may begin to listen there."""
    path = str(tmp_path / "s")

    async def run() -> None:
        first, second = (LocalApiServer(FakeBackend()) for _ in range(2))
        await first.start(path)
        _, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET /localapi/v0/watch-ipn-bus?mask=2 HTTP/1.1\r\nHost:\r\n\r\n")
        await asyncio.sleep(0.05)
        closing = asyncio.create_task(first.close())
        await asyncio.sleep(0)
        await second.start(path)
        await closing
        reader, other = await asyncio.open_unix_connection(path)
        other.write(b"GET / HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()
        other.close()
        await second.close()

    asyncio.run(run())
    assert not Path(path).exists()


def test_open_socket_leaves_files_of_others_alone(tmp_path: Path) -> None:
    """LA-02."""
    precious = tmp_path / "notes.txt"
    precious.write_text("x")
    with pytest.raises(MeshdError, match="is not a socket"):
        open_socket(str(precious))
    assert precious.read_text() == "x"
    with pytest.raises(MeshdError, match="empty"):
        open_socket("")
    with pytest.raises(MeshdError, match="cannot listen"):
        open_socket(str(tmp_path / ("x" * 200)))
