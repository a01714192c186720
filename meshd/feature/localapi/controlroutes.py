"""Routes that pass something on to the coordination server, in the name of this node."""

from __future__ import annotations

from meshd.base.errors import MeshdError
from meshd.base.version import CAPABILITY_VERSION
from meshd.feature.localapi.jsontext import json_response, parse_object
from meshd.feature.localapi.route import Access, Call, Route, error_response
from meshd.io.http.h1server import HttpError, Response, reason_phrase

_SHOWN = 300  # characters of a server's words


async def _id_token(call: Call) -> Response:
    audience = (await call.request.value("aud")).strip()
    if not audience:
        raise HttpError(400, "no audience requested")
    body = {"CapVersion": CAPABILITY_VERSION, "Audience": audience}
    status, answer = await call.backend.ask_control("POST", "/machine/id-token", body)
    return _passed_on(status, "text/plain; charset=utf-8", answer)


async def _query_feature(call: Call) -> Response:
    feature = await call.request.value("feature")
    if not feature:
        raise HttpError(500, "missing feature")
    status, answer = await call.backend.ask_control("POST", "/machine/feature/query", {"Feature": feature})
    return _passed_on(status, "application/json", answer)


def _passed_on(status: int, kind: str, answer: bytes) -> Response:
    """A server's answer as ours; a status that ends no request becomes 502."""
    return Response(status if 200 <= status <= 599 else 502, [("Content-Type", kind)], answer)


async def _set_dns(call: Call) -> Response:
    record = {
        "Version": CAPABILITY_VERSION,
        "Name": await call.request.value("name"),
        "Type": "TXT",
        "Value": await call.request.value("value"),
    }
    try:
        await _told(call, "POST", "/machine/set-dns", record, "set-dns")
    except MeshdError as error:
        return error_response(error)
    return json_response({})


async def _set_device_attributes(call: Call) -> Response:
    update = {"Version": CAPABILITY_VERSION, "Update": parse_object(await call.request.body())}
    await _told(call, "PATCH", "/machine/set-device-attr", update, "set-device-attr")
    return json_response({})


async def _told(call: Call, method: str, path: str, body: dict[str, object], what: str) -> None:
    """MeshdError with the server's words unless it answers 200."""
    status, answer = await call.backend.ask_control(method, path, body)
    if status != 200:
        words = answer.decode("utf-8", "replace").strip()[:_SHOWN]
        raise MeshdError(f"{what} response: {status} {reason_phrase(status)}, {words}")


async def _disconnect(call: Call) -> Response:
    await call.backend.disconnect_control()
    return Response(200)


_POST = ("POST",)
_USE_POST = (405, "use POST")

ROUTES = [
    Route("id-token", _id_token, Access.WRITE, "id-token access denied"),
    Route("query-feature", _query_feature, Access.READ, methods=_POST, wrong_method=_USE_POST),
    Route("set-dns", _set_dns, Access.WRITE, methods=_POST, wrong_method=(400, "want POST")),
    Route(
        "alpha-set-device-attrs",
        _set_device_attributes,
        Access.WRITE,
        "set-device-attrs access denied",
        methods=("PATCH",),
        wrong_method=(405, "only PATCH allowed"),
    ),
    Route("disconnect-control", _disconnect, Access.WRITE, methods=_POST, wrong_method=_USE_POST),
]
