"""Routes over the preferences, and the serve configuration that a node without serve has."""

from __future__ import annotations

import hashlib

from meshd.base.errors import MeshdError
from meshd.feature.localapi.jsontext import json_response, parse_object
from meshd.feature.localapi.route import Access, Call, Route, error_response, require
from meshd.io.http.h1server import HttpError, Response


async def _prefs(call: Call) -> Response:
    if call.request.method != "PATCH":
        return json_response(call.backend.prefs(), tabs=True)
    require(call, Access.WRITE, "prefs write access denied")
    masked = parse_object(await call.request.body())
    try:
        changed = await call.backend.edit_prefs(masked)
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
        return error_response(MeshdError(f"decoding config: {error.text}"))
    if not call.backend.has_netmap():
        return error_response(MeshdError("updating config: netMap is nil"))
    condition = call.request.header("if-match")
    if condition and condition != etag:
        raise HttpError(412, "etag mismatch")
    if any(wanted.values()):
        return error_response(MeshdError("updating config: this build of meshd cannot serve"))
    return Response(200)


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
