"""Routes of features that this build does not have. They answer as any node does that lacks the feature, so that a
client can tell "nothing there" from "no such daemon"."""

from __future__ import annotations

import asyncio

from meshd.feature.localapi.jsontext import compact, json_response, parse_object
from meshd.feature.localapi.route import NO_CONTENT, Access, Call, Route
from meshd.io.http.h1server import HttpError, Response

MAX_WAIT_S = 3600
"""Longest wait for files that a client may ask for."""

_SHARING_OFF = (
    'taildrive sharing not enabled, please add the attribute "drive:share" to this node in your ACLs\' '
    '"nodeAttrs" section'
)


async def _drive_shares(call: Call) -> Response:
    if not call.backend.has_capability("drive:share"):
        raise HttpError(403, _SHARING_OFF)
    raise HttpError(501, "this build of meshd cannot share directories")


async def _file_targets(call: Call) -> Response:
    del call
    raise HttpError(500, "this build of meshd cannot send files")


async def _files(call: Call) -> Response:
    """No file ever waits here; a client that wants to wait for one waits as long as it said."""
    if call.rest:
        raise HttpError(404, "no such file")
    if call.request.method != "GET":
        raise HttpError(400, "want GET to list files")
    wait = await call.request.value("waitsec")
    if wait and not (wait.isascii() and wait.isdigit() and len(wait) <= 9):
        raise HttpError(400, "invalid waitsec")
    with call.request.cancel_if_gone():
        await asyncio.sleep(min(int(wait or 0), MAX_WAIT_S))
    return json_response(None)


async def _cert(call: Call) -> Response:
    if not call.may.cert:
        raise HttpError(403, "cert access denied")
    domain = call.rest
    if "." not in domain.strip(".") or ".." in domain or ":" in domain or "/" in domain or not domain.isprintable():
        raise HttpError(500, "invalid domain")
    if domain not in (call.backend.cert_domains() or ()):
        raise HttpError(500, "your account does not support getting TLS certs")
    raise HttpError(501, "this build of meshd cannot get certificates")


async def _update_check(call: Call) -> Response:
    """Nobody tells this node about newer versions of its program."""
    del call
    return Response(200, [("Content-Type", "text/plain; charset=utf-8")], compact({"RunningLatest": True}))


async def _update_install(call: Call) -> Response:
    await call.backend.start_update()
    return Response(202)


async def _update_progress(call: Call) -> Response:
    body = compact(call.backend.update_progress())
    return Response(200, [("Content-Type", "text/plain; charset=utf-8")], body)


async def _app_connector(call: Call) -> Response:
    """The routes that an app connector found: none, for this node is none."""
    del call
    return json_response({})


_OPTIONAL_PARTS = {
    "acme": False, "bird": False, "captiveportal": False, "capture": True, "clientupdate": False, "conn25": False,
    "favorites": False, "netlog": False, "portmapper": False, "relayserver": False, "remoteconfig": False,
    "runtimemetrics": False, "serviceclientprefs": False, "syslog": False, "tailnetlock": False, "tpm": False,
    "tundevstats": False, "wakeonlan": False,
}  # fmt: skip
"""Optional parts, by the names that clients know, and whether this build has them."""


async def _features(call: Call) -> Response:
    del call
    return json_response({"Features": _OPTIONAL_PARTS})


async def _route_check(call: Call) -> Response:
    del call
    raise HttpError(503, "routecheck is not enabled")


async def _file_put(call: Call) -> Response:
    """To whom and what is judged first, as where files can be sent."""
    peer, _, name = call.rest.partition("/")
    if not peer or (call.request.method == "PUT" and not name):
        raise HttpError(400, "misformed URL, expected file-put/PEER/NAME")
    raise HttpError(501, "this build of meshd cannot send files")


async def _port_mapping(call: Call) -> Response:
    if await call.request.value("type") not in ("", "pmp", "pcp", "upnp"):
        raise HttpError(400, "unknown portmap debug type")
    raise HttpError(501, "this build of meshd cannot map ports")


async def _no_event_bus(call: Call) -> Response:
    """What other daemons pass between their parts over a bus are function calls here."""
    del call
    raise HttpError(412, "event bus not running: meshd has none")


async def _relayed_sessions(call: Call) -> Response:
    """The sessions of peers that this node relays: it is no relay for peers."""
    del call
    return json_response({"UDPPort": None, "Sessions": None})


async def _connector_state(call: Call) -> Response:
    """The addresses that a connector of this kind has given out: this node is none."""
    del call
    return json_response({})


async def _push_token(call: Call) -> Response:
    fields = parse_object(await call.request.body(), complaint="invalid JSON body")
    token = next((value for name, value in fields.items() if name.lower() == "pushdevicetoken"), None)
    if not isinstance(token, str | None):
        raise HttpError(400, "invalid JSON body")
    await call.backend.set_push_token(token or "")
    return Response(200)


async def _push_message(call: Call) -> Response:
    """Nothing here asks for push messages: one that comes is read, and that is all."""
    parse_object(await call.request.body(), complaint="failed to decode JSON body")
    return Response(NO_CONTENT)


_GET, _POST = ("GET",), ("POST",)
_ONLY_GET = (405, "only GET allowed")

ROUTES = [
    Route("drive/shares", _drive_shares, Access.OPEN),
    Route("file-targets", _file_targets, Access.READ, methods=_GET, wrong_method=(400, "want GET to list targets")),
    Route("files/", _files, Access.WRITE, "file access denied"),
    Route("cert/", _cert, Access.OPEN, methods=_GET, wrong_method=_ONLY_GET),
    Route("update/check", _update_check, Access.OPEN, methods=_GET, wrong_method=_ONLY_GET),
    Route("update/install", _update_install, Access.WRITE, methods=_POST, wrong_method=(405, "only POST allowed")),
    Route("update/progress", _update_progress, Access.OPEN, methods=_GET, wrong_method=_ONLY_GET),
    Route("appc-route-info", _app_connector, Access.OPEN, methods=_GET, wrong_method=_ONLY_GET),
    Route("debug-optional-features", _features, Access.READ),
    Route("routecheck", _route_check, Access.OPEN, methods=_POST, wrong_method=(405, "want POST")),
    Route(
        "file-put/",
        _file_put,
        Access.WRITE,
        "file access denied",
        methods=("PUT", "POST"),
        wrong_method=(400, "want PUT to put file"),
    ),
    Route("debug-portmap", _port_mapping, Access.WRITE, "debug access denied"),
    *(
        Route(
            name,
            _no_event_bus,
            Access.WRITE,
            "event bus access denied",
            methods=_GET,
            wrong_method=(405, "GET required"),
        )
        for name in ("debug-bus-events", "debug-bus-graph", "debug-bus-queues")
    ),
    Route(
        "debug-peer-relay-sessions",
        _relayed_sessions,
        Access.WRITE,
        "debug access denied",
        methods=_GET,
        wrong_method=(405, "GET required"),
    ),
    Route(
        "conn25/state",
        _connector_state,
        Access.READ,
        "conn25/state access denied",
        methods=_GET,
        wrong_method=(405, "GET required"),
    ),
    Route(
        "set-push-device-token",
        _push_token,
        Access.WRITE,
        "set push device token access denied",
        methods=_POST,
        wrong_method=(405, "unsupported method"),
    ),
    Route(
        "handle-push-message",
        _push_message,
        Access.WRITE,
        "handle push message not allowed",
        methods=_POST,
        wrong_method=(405, "unsupported method"),
    ),
]
