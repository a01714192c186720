"""Routes that keep small things for programs that show this node to a user: favourites, and how services are opened."""

from __future__ import annotations

import time
from typing import Any

from meshd.base.gotime import format_time
from meshd.feature.localapi.jsontext import json_response, parse_object
from meshd.feature.localapi.route import Access, Call, Route, require
from meshd.io.http.h1server import HttpError, Response

MAX_ENTRIES = 1000
"""Of one kind. A list for people; the file it goes to is read and written whole."""
MAX_CHARACTERS = 255
"""Of one name in it."""

_PINNED = {"Devices": "ID", "ExitNodes": "ID", "Services": "Name"}
_CLIENT_FIELDS = ("Client", "Username", "DatabaseName")


async def _pins(call: Call) -> Response:
    pins = call.backend.kept("favorites")
    if call.request.method == "POST":
        require(call, Access.WRITE, "pins write access denied")
        wanted = parse_object(await call.request.body())
        given = wanted.get("Pins") or {}
        if not isinstance(given, dict):
            raise HttpError(400, "Pins: expected an object")
        for kind, field in _PINNED.items():
            if wanted.get(kind + "Set") is True:
                pins[kind] = _entries(kind, field, given.get(kind) or [])
        pins = {kind: pins[kind] for kind in _PINNED if pins.get(kind)}
        call.backend.keep("favorites", pins)
    return json_response(pins)


def _entries(kind: str, field: str, value: Any) -> list[dict[str, str]]:
    if not isinstance(value, list) or not all(isinstance(e, dict) and _is_name(e.get(field)) for e in value):
        raise HttpError(400, f"{kind}: expected a list of objects with {field}")
    if len(value) > MAX_ENTRIES:
        raise HttpError(400, f"{kind}: more than {MAX_ENTRIES} entries")
    return [{field: entry[field]} for entry in value]


async def _service_clients(call: Call) -> Response:
    clients = call.backend.kept("service-clients")
    if call.request.method == "POST":
        require(call, Access.WRITE, "service-clients write access denied")
        wanted = parse_object(await call.request.body())
        key = wanted.get("Key")
        if not isinstance(key, str) or not _is_name(key):
            raise HttpError(400, "Key: expected a service and its port, such as svc:my-db:5432")
        entry = dict(clients.get(key) or {})
        for field in _CLIENT_FIELDS:
            value = wanted.get(field) or ""
            if value and not _is_name(value):
                raise HttpError(400, f"{field}: expected a text of at most {MAX_CHARACTERS} characters")
            entry |= {field: value} if value else {}
        clients = clients | {key: entry | {"LastUsed": format_time(time.time())}}
        if len(clients) > MAX_ENTRIES:
            raise HttpError(400, f"more than {MAX_ENTRIES} services")
        call.backend.keep("service-clients", clients)
    return json_response(clients)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_CHARACTERS


_METHODS, _WRONG = ("GET", "POST"), (405, "use GET or POST")

ROUTES = [
    Route("pins", _pins, Access.READ, "pins access denied", methods=_METHODS, wrong_method=_WRONG),
    Route(
        "prefs/service-clients",
        _service_clients,
        Access.READ,
        "service-clients access denied",
        methods=_METHODS,
        wrong_method=_WRONG,
    ),
]
