"""Who may use which route by which method: every route of the LocalAPI, asked through a real socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshd.feature.localapi import server
from meshd.testing.localapi import LocalApiThread
from tests.unit.feature.rawhttp import ask

STRANGER = 4242

# Path, method and body that work for root; what a stranger is told (None: he may); a method that is refused, and how.
Row = tuple[str, str, str | None, str | None, str | None, tuple[int, str] | None]

READERS: list[Row] = [
    ("bugreport", "POST", "", None, "GET", (405, "only POST allowed")),
    ("cert-domains", "GET", None, None, None, None),
    ("check-ip-forwarding", "GET", None, None, None, None),
    ("check-so-mark-in-use", "GET", None, None, None, None),
    ("check-udp-gro-forwarding", "GET", None, None, None, None),
    ("debug-log", "POST", '{"Lines":["x"]}', None, "GET", (405, "only POST allowed")),
    ("debug-optional-features", "GET", None, None, None, None),
    ("debug-peer-endpoint-changes?ip=100.64.0.1", "GET", None, None, None, None),
    ("dns-config", "GET", None, None, None, None),
    ("peer-by-id?id=1", "GET", None, None, None, None),
    ("user-profile?id=1", "GET", None, None, None, None),
    ("policy/", "GET", None, None, "DELETE", (405, "unsupported method")),
    ("policy/Device", "GET", None, None, "DELETE", (405, "unsupported method")),
    ("prefs", "GET", None, None, "POST", (405, "unsupported method")),
    ("query-feature?feature=serve", "POST", "", None, "GET", (405, "use POST")),
    ("serve-config", "GET", None, None, "DELETE", (405, "method not allowed")),
    ("status", "GET", None, None, None, None),
    ("tka/status", "GET", None, None, "POST", (405, "use GET")),
    ("tka/verify-deeplink", "POST", '{"URL":"x"}', None, "GET", (405, "use POST")),
    ("whois?addr=100.64.0.1", "GET", None, None, None, None),
    ("pins", "GET", None, None, "DELETE", (405, "use GET or POST")),
    ("prefs/service-clients", "GET", None, None, "DELETE", (405, "use GET or POST")),
    ("conn25/state", "GET", None, None, "POST", (405, "GET required")),
    ("netcheck", "POST", "", None, "GET", (405, "use POST")),
    ("appc-route-info", "GET", None, None, "POST", (405, "only GET allowed")),
    ("derpmap", "GET", None, None, "POST", (400, "want GET")),
    ("ping?ip=100.64.0.1&type=disco", "POST", "", None, "GET", (400, "want POST")),
    ("services", "GET", None, None, "POST", (405, "only GET allowed")),
    ("suggest-exit-node", "GET", None, None, "PUT", (405, "want POST")),
    ("update/check", "GET", None, None, "POST", (405, "only GET allowed")),
    ("update/progress", "GET", None, None, "POST", (405, "only GET allowed")),
    ("upload-client-metrics", "POST", '[{"name":"ok","type":"counter","value":1}]', None, "GET",
     (405, "unsupported method")),
    ("usermetrics", "GET", None, None, None, None),
]  # fmt: skip
"""What every user of the machine may do."""

WRITERS: list[Row] = [
    ("check-prefs", "POST", "{}", "checkprefs access denied", "GET", (405, "unsupported method")),
    ("component-debug-logging?component=magicsock&secs=1", "POST", "", "debug access denied", None, None),
    ("debug?action=restun", "POST", "", "debug access denied", "GET", (405, "POST required")),
    ("debug-bus-events", "GET", None, "event bus access denied", "POST", (405, "GET required")),
    ("debug-bus-graph", "GET", None, "event bus access denied", "POST", (405, "GET required")),
    ("debug-bus-queues", "GET", None, "event bus access denied", "POST", (405, "GET required")),
    ("debug-derp-region?region=900", "POST", "", "debug access denied", "GET", (405, "POST required")),
    ("debug-dial-types?ip=127.0.0.1&port=1", "POST", "", "debug-dial-types access denied", "GET",
     (405, "only POST allowed")),
    ("debug-packet-filter-matches", "GET", None, "debug access denied", None, None),
    ("debug-packet-filter-rules", "GET", None, "debug access denied", None, None),
    ("debug-peer-relay-sessions", "GET", None, "debug access denied", "POST", (405, "GET required")),
    ("debug-portmap?duration=1s", "POST", "", "debug access denied", None, None),
    ("debug-rotate-disco-key", "POST", "", "debug access denied", "GET", (405, "POST required")),
    ("dev-set-state-store?key=k&value=v", "POST", "", "debug access denied", "GET", (405, "POST required")),
    ("disconnect-control", "POST", "", "access denied", "GET", (405, "use POST")),
    ("dns-osconfig", "GET", None, "dns-osconfig dump access denied", "POST", (405, "only GET allowed")),
    ("dns-query?name=a.test", "GET", None, "dns-query access denied", "POST", (405, "only GET allowed")),
    ("file-put/n1/x", "PUT", "x", "file access denied", "GET", (400, "want PUT to put file")),
    ("files/", "GET", None, "file access denied", None, None),
    ("goroutines", "GET", None, "goroutine dump access denied", None, None),
    ("handle-push-message", "POST", "{}", "handle push message not allowed", "GET", (405, "unsupported method")),
    ("id-token?aud=x", "GET", None, "id-token access denied", None, None),
    ("alpha-set-device-attrs", "PATCH", "{}", "set-device-attrs access denied", "POST", (405, "only PATCH allowed")),
    ("netcheck?bind-port=53", "POST", "",
     "netcheck access denied: only root and the operator choose its address and port", None, None),
    ("login-interactive", "POST", "", "login access denied", "GET", (400, "want POST")),
    ("logout", "POST", "", "logout access denied", "GET", (400, "want POST")),
    ("metrics", "GET", None, "metric access denied", None, None),
    ("pprof?name=heap", "GET", None, "profile access denied", None, None),
    ("profiles/", "GET", None, "profiles access denied", "POST", (405, "use GET or PUT")),
    ("profiles/current", "GET", None, "profiles access denied", "PUT", (405, "use GET")),
    ("profiles/df87", "GET", None, "profiles access denied", "PUT", (405, "use POST or DELETE")),
    ("reload-config", "POST", "", "access denied", "GET", (405, "use POST")),
    ("reset-auth", "POST", "", "reset-auth modify access denied", "GET", (405, "use POST")),
    ("set-dns?name=x&value=y", "POST", "", "access denied", "GET", (400, "want POST")),
    ("set-expiry-sooner?expiry=1", "POST", "", "access denied", "GET", (405, "POST required")),
    ("set-udp-gro-forwarding", "POST", "", "UDP GRO forwarding set access denied", None, None),
    ("set-use-exit-node-enabled?enabled=true", "POST", "", "access denied", "GET", (405, "use POST")),
    ("shutdown", "POST", "", "shutdown access denied", "GET", (405, "only POST allowed")),
    ("start", "POST", "{}", "access denied", "GET", (400, "want POST")),
    ("tka/affected-sigs", "POST", "x", "lock access denied", "GET", (405, "use POST")),
    ("tka/cosign-recovery-aum", "POST", "x", "lock access denied", "GET", (405, "use POST")),
    ("tka/submit-recovery-aum", "POST", "x", "lock access denied", "GET", (405, "use POST")),
    ("tka/generate-recovery-aum", "POST", "{}", "lock access denied", "GET", (405, "use POST")),
    ("tka/disable", "POST", "x", "lock disable access denied", "GET", (405, "use POST")),
    ("tka/force-local-disable", "POST", "{}", "tailnet-lock modify access denied", "GET", (405, "use POST")),
    ("tka/init", "POST", "{}", "lock init access denied", "GET", (405, "use POST")),
    ("tka/modify", "POST", "{}", "tailnet-lock modify access denied", "GET", (405, "use POST")),
    ("tka/sign", "POST", "{}", "lock sign access denied", "GET", (405, "use POST")),
    ("tka/wrap-preauth-key", "POST", "{}", "tailnet-lock modify access denied", "GET", (405, "use POST")),
    ("update/install", "POST", "", "access denied", "GET", (405, "only POST allowed")),
    ("pins", "POST", "{}", "pins write access denied", None, None),
    ("prefs/service-clients", "POST", '{"Key":"svc:a:1"}', "service-clients write access denied", None, None),
    ("prefs", "PATCH", "{}", "prefs write access denied", None, None),
    ("serve-config", "POST", "{}", "serve config denied", None, None),
    ("set-push-device-token", "POST", "{}", "set push device token access denied", "GET", (405, "unsupported method")),
    ("debug-capture", "POST", "", "debug access denied", "GET", (405, "POST required")),
    ("logtap", "GET", None, "logtap access denied", "POST", (405, "GET required")),
]  # fmt: skip
"""What takes root or the operator."""

STREAMS = {"debug-capture", "logtap"}
ELSEWHERE = {"watch-ipn-bus", "dial", "drive/shares", "file-targets", "tka/log", "routecheck", "cert/"}
"""Routes that other tests ask: streams, upgrades, and those whose answer depends on what the network allows."""


@pytest.fixture
def api(tmp_path: Path) -> Iterator[LocalApiThread]:
    with LocalApiThread(str(tmp_path / "s")) as made:
        yield made


def _body(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def test_localapi_table_has_every_route() -> None:
    names = {row[0].partition("?")[0] for row in READERS + WRITERS}
    found = {server.find_route("/localapi/v0/" + name)[0].name for name in names}
    assert found | ELSEWHERE == set(server._ROUTES)


@pytest.mark.parametrize("row", READERS, ids=lambda row: f"{row[1]} {row[0]}")
def test_localapi_reading_route_is_for_every_user(api: LocalApiThread, row: Row) -> None:
    """LA-05, LA-12, api:GET prefs: a user without rights is answered, another method is refused in known words."""
    path, method, body, _, other, refused = row
    api.uid = STRANGER
    assert ask(api, method, path, _body(body)).status not in (401, 403)
    if other is not None:
        got = ask(api, other, path, b"" if other != "GET" else None)
        assert (got.status, got.body.decode()) == (refused[0], refused[1] + "\n") if refused else False


@pytest.mark.parametrize("row", WRITERS, ids=lambda row: f"{row[1]} {row[0]}")
def test_localapi_writing_route_is_for_root_and_operator(api: LocalApiThread, row: Row) -> None:
    """LA-06, LA-12, api:PATCH prefs, api:POST serve-config: others get 403 in words clients know; nothing was done."""
    path, method, body, denied, other, refused = row
    api.uid = STRANGER
    got = ask(api, method, path, _body(body))
    assert (got.status, got.body.decode()) == (403, f"{denied}\n")
    assert (api.backend.calls, api.backend.things) == ([], {})
    if other is not None:  # permission is judged before the method
        assert ask(api, other, path, b"" if other != "GET" else None).status == 403
    api.backend.operators, api.backend.stoppable = {STRANGER}, True
    if path.partition("?")[0] not in STREAMS:
        assert ask(api, method, path, _body(body)).status not in (401, 403, 404, 405)
    if other is not None and refused is not None:
        got = ask(api, other, path, b"" if other != "GET" else None)
        assert (got.status, got.body.decode()) == (refused[0], refused[1] + "\n")


def test_localapi_parts_that_are_missing_say_so(api: LocalApiThread) -> None:
    """api:file-put/, debug-portmap, debug-bus-events, tka/wrap-preauth-key: an error that names what is not there."""
    for method, path, status, words in (
        ("PUT", "file-put/n1/x.txt", 501, b"cannot send files"),
        ("POST", "file-put/n1", 501, b"cannot send files"),
        ("PUT", "file-put/", 400, b"misformed URL"),
        ("POST", "debug-portmap?duration=1s&type=pmp", 501, b"cannot map ports"),
        ("POST", "debug-portmap?duration=1s&type=x", 400, b"unknown portmap debug type"),
        ("POST", "tka/wrap-preauth-key", 500, b"tailnet-lock is not active"),
    ):
        got = ask(api, method, path, b"{}")
        assert got.status == status
        assert words in got.body
    for name in ("debug-bus-events", "debug-bus-graph", "debug-bus-queues"):
        got = ask(api, "GET", name)
        assert (got.status, got.body[:21]) == (412, b"event bus not running")
    assert ask(api, "POST", "tka/wrap-preauth-key", b"[").status == 400
    assert json.loads(ask(api, "GET", "debug-peer-relay-sessions").body) == {"UDPPort": None, "Sessions": None}
    assert json.loads(ask(api, "GET", "conn25/state").body) == {}


def test_localapi_link_to_sign_is_not_valid_without_a_lock(api: LocalApiThread) -> None:
    """api:tka/verify-deeplink."""
    got = json.loads(ask(api, "POST", "tka/verify-deeplink", b'{"URL":"tailscale://sign-device/v1/?nk=x"}').body)
    assert (got["IsValid"], got["Error"]) == (False, "tailnet-lock is not active")
    assert set(got) == {
        "IsValid", "Error", "Version", "NodeKey", "TLPub", "DeviceName", "OSName", "EmailAddress"
    }  # fmt: skip
    for body in (b"", b"[", b'{"URL":7}'):
        assert ask(api, "POST", "tka/verify-deeplink", body).status == 400


def test_localapi_pins_replace_what_is_marked(api: LocalApiThread) -> None:
    """api:pins: a kind of favourites is replaced as a whole, the others stay."""
    assert ask(api, "GET", "pins").body == b"{}\n"
    first = b'{"DevicesSet":true,"ServicesSet":true,"Pins":{"Devices":[{"ID":"n1"}],"Services":[{"Name":"svc:a"}]}}'
    assert json.loads(ask(api, "POST", "pins", first).body) == {
        "Devices": [{"ID": "n1"}],
        "Services": [{"Name": "svc:a"}],
    }
    assert json.loads(ask(api, "POST", "pins", b'{"ServicesSet":true,"Pins":{}}').body) == {"Devices": [{"ID": "n1"}]}
    assert json.loads(ask(api, "GET", "pins").body) == {"Devices": [{"ID": "n1"}]}
    for bad in (
        b"[]",
        b'{"Pins":7}',
        b'{"DevicesSet":true,"Pins":{"Devices":["n1"]}}',
        b'{"DevicesSet":true,"Pins":{"Devices":[{"ID":""}]}}',
        json.dumps({"DevicesSet": True, "Pins": {"Devices": [{"ID": "n"}] * 1001}}).encode(),
        json.dumps({"DevicesSet": True, "Pins": {"Devices": [{"ID": "n" * 256}]}}).encode(),
    ):
        assert ask(api, "POST", "pins", bad).status == 400, bad
    assert json.loads(ask(api, "GET", "pins").body) == {"Devices": [{"ID": "n1"}]}


def test_localapi_service_clients_are_merged(api: LocalApiThread) -> None:
    """api:prefs/service-clients: what is given is added to what is known of that service."""
    assert ask(api, "GET", "prefs/service-clients").body == b"{}\n"
    ask(api, "POST", "prefs/service-clients", b'{"Key":"svc:db:5432","Client":"psql"}')
    got = json.loads(ask(api, "POST", "prefs/service-clients", b'{"Key":"svc:db:5432","Username":"ann"}').body)
    assert got["svc:db:5432"].pop("LastUsed").endswith("Z")
    assert got == {"svc:db:5432": {"Client": "psql", "Username": "ann"}}
    for bad in (b"{}", b'{"Key":7}', b'{"Key":"k","Client":7}', b'{"Key":"' + b"k" * 256 + b'"}'):
        assert ask(api, "POST", "prefs/service-clients", bad).status == 400, bad


def test_localapi_pprof_names_and_seconds(api: LocalApiThread) -> None:
    """api:pprof: CPU over some seconds, or the heap as it is; other names are unknown."""
    assert ask(api, "GET", "pprof?name=profile&seconds=7").headers["content-type"] == "application/octet-stream"
    assert api.backend.calls[-1] == ("profile", "profile", 7)
    ask(api, "GET", "pprof?name=profile")
    assert api.backend.calls[-1] == ("profile", "profile", 30)
    ask(api, "GET", "pprof?name=heap")
    assert api.backend.calls[-1] == ("profile", "heap", 0)
    assert b"h1connection.py" in ask(api, "GET", "pprof?name=goroutine").body
    for bad in ("0", "601", "-1", "x", "9" * 30):
        assert ask(api, "GET", f"pprof?name=profile&seconds={bad}").status == 400
    got = ask(api, "GET", "pprof?name=../../etc")
    assert (got.status, got.body) == (404, b"Unknown profile\n")


def test_localapi_netcheck_from_an_address(api: LocalApiThread) -> None:
    """api:netcheck: those who may write choose where the probes are sent from."""
    ask(api, "POST", "netcheck", b"")
    assert api.backend.calls == []
    ask(api, "POST", "netcheck?bind-address=10.0.0.1&bind-port=4000", b"")
    ask(api, "POST", "netcheck?bind-address=::1", b"")
    assert api.backend.calls == [("netcheck", "10.0.0.1", 4000), ("netcheck", "::1", 0)]
    for bad in ("bind-address=x", "bind-port=x", "bind-port=65536", "bind-port=-1"):
        assert ask(api, "POST", f"netcheck?{bad}", b"").status == 400


def test_localapi_rotates_the_disco_key(api: LocalApiThread) -> None:
    """api:debug-rotate-disco-key: the same as the action of that name."""
    assert ask(api, "POST", "debug-rotate-disco-key", b"").body == b"done\n"
    assert api.backend.calls[-1] == ("debug", "rotate-disco-key", b"")
