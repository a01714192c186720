"""Routes over what the administrator of this machine decided: the configuration file and the system policy."""

from __future__ import annotations

import re
from urllib.parse import unquote

from meshd.base.errors import MeshdError
from meshd.feature.localapi.jsontext import json_response
from meshd.feature.localapi.route import Access, Call, Route
from meshd.io.http.h1server import HttpError, Response

_SCOPE = re.compile(r"(?:Profile(?:\([^()/]*\))?/)?User(?:\([^()/]*\))?|Profile(?:\([^()/]*\))?|Device", re.IGNORECASE)


async def _reload_config(call: Call) -> Response:
    """What went wrong is part of the answer, which is 200 all the same: clients expect it so."""
    try:
        return json_response({"Reloaded": await call.backend.reload_config(), "Err": ""})
    except MeshdError as error:
        return json_response({"Reloaded": False, "Err": str(error)})


async def _policy(call: Call) -> Response:
    """This machine has one policy: it is the answer for every scope."""
    scope = unquote(call.rest)
    if scope and _SCOPE.fullmatch(scope) is None:
        raise HttpError(400, f'"{call.rest[:64]}" is not a valid scope')
    if call.request.method == "POST":
        await call.backend.reload_policy()
    elif call.request.method != "GET":
        raise HttpError(405, "unsupported method")
    return json_response(call.backend.policy(), tabs=True)


ROUTES = [
    Route("policy/", _policy, Access.READ, "policy access denied"),
    Route("reload-config", _reload_config, Access.WRITE, methods=("POST",), wrong_method=(405, "use POST")),
]
