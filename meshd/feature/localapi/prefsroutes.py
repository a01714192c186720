"""Routes over the preferences, and the serve configuration that a node without serve has."""

from __future__ import annotations

import hashlib

from meshd.base.errors import MeshdError
from meshd.feature.localapi.jsontext import json_response, parse_object
from meshd.feature.localapi.localadmin import is_local_admin
from meshd.feature.localapi.route import Access, Call, Route, error_response, reason_of, require
from meshd.io.http.h1server import HttpError, Response

CONFIG_LOCKED = "can't reconfigure tailscaled when using a config file; config file is locked"


async def _prefs(call: Call) -> Response:
    if call.request.method != "PATCH":
        return json_response(call.backend.prefs(), tabs=True)
    require(call, Access.WRITE, "prefs write access denied")
    masked = parse_object(await call.request.body())
    try:
        changed = await call.backend.edit_prefs(masked, reason_of(call))
    except MeshdError as error:
        return error_response(error, key="Error", status=500 if error.code == "internal" else 400)
    return json_response(changed, tabs=True)


async def _check_prefs(call: Call) -> Response:
    prefs = parse_object(await call.request.body(), complaint="invalid JSON body")
    try:
        call.backend.check_prefs(prefs)
    except MeshdError as error:
        return error_response(error, key="Error", status=200)
    return json_response({})


async def _serve_config(call: Call) -> Response:
    """This node serves nothing: its configuration is null, with the tag that conditional writers expect."""
    body = b"null"
    etag = hashlib.sha256(body).hexdigest()
    if call.request.method == "GET":
        return Response(200, [("Content-Type", "application/json"), ("Etag", etag)], body)
    require(call, Access.WRITE, "serve config denied")
    try:
        wanted = parse_object(await call.request.body())
    except HttpError as error:
        if error.status != 400:
            raise
        return error_response(MeshdError(f"decoding config: {error.text}"))
    if _reads_files(wanted) and not await is_local_admin(call.request.peer):
        raise HttpError(
            401, "must be root, or be an operator and able to run 'sudo mesh' to serve a path or Unix socket"
        )
    if call.backend.config_locked():
        return error_response(MeshdError(f"updating config: {CONFIG_LOCKED}"))
    if not call.backend.has_netmap():
        return error_response(MeshdError("updating config: netMap is nil"))
    condition = call.request.header("if-match")
    if condition and condition != etag:
        raise HttpError(412, "etag mismatch")
    if any(wanted.values()):
        return error_response(MeshdError("updating config: this build of meshd cannot serve"))
    return Response(200)


def _reads_files(node: object) -> bool:
    """Whether a serve configuration names files or sockets of this machine, which the daemon would open as root."""
    if isinstance(node, list):
        return any(_reads_files(item) for item in node)
    if not isinstance(node, dict):
        return False
    proxy = node.get("Proxy")
    return (
        bool(node.get("Path"))
        or (isinstance(proxy, str) and proxy.startswith("unix:"))
        or any(_reads_files(item) for item in node.values())
    )


ROUTES = [
    Route(
        "prefs",
        _prefs,
        Access.READ,
        "prefs access denied",
        methods=("GET", "HEAD", "PATCH"),
        wrong_method=(405, "unsupported method"),
    ),
    Route(
        "check-prefs",
        _check_prefs,
        Access.WRITE,
        "checkprefs access denied",
        methods=("POST",),
        wrong_method=(405, "unsupported method"),
    ),
    Route(
        "serve-config",
        _serve_config,
        Access.READ,
        "serve config denied",
        methods=("GET", "POST"),
        wrong_method=(405, "method not allowed"),
    ),
]
