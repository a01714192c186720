"""Tailnet lock, as a node answers whose network has none: a status with this node's key, and refusals."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from meshd.feature.localapi.jsontext import json_response, parse_object
from meshd.feature.localapi.route import Access, Call, Route
from meshd.io.http.h1server import HttpError, Response

_INACTIVE = "tailnet-lock is not active"


async def _status(call: Call) -> Response:
    return json_response(call.backend.lock_status(), tabs=True)


def _refuse(status: int, what: str, *, takes_json: bool = False) -> Callable[[Call], Awaitable[Response]]:
    async def handle(call: Call) -> Response:
        if takes_json:
            parse_object(await call.request.body(), complaint="invalid JSON body")
        raise HttpError(status, f"{what}: {_INACTIVE}")

    return handle


async def _verify_link(call: Call) -> Response:
    """Whether a link that asks to sign a node is genuine. None is, without a lock to sign for."""
    link = parse_object(await call.request.body(), complaint="invalid JSON for verifyRequest body")
    if not isinstance(link.get("URL"), str | None):
        raise HttpError(400, "invalid JSON for verifyRequest body")
    words = {"NodeKey": "", "TLPub": "", "DeviceName": "", "OSName": "", "EmailAddress": ""}
    return json_response({"IsValid": False, "Error": _INACTIVE, "Version": 0, **words}, tabs=True)


def _post(name: str, denied: str, handle: Callable[[Call], Awaitable[Response]]) -> Route:
    return Route(f"tka/{name}", handle, Access.WRITE, denied, methods=("POST",), wrong_method=(405, "use POST"))


_GET = ("GET",)
_USE_GET = (405, "use GET")

ROUTES = [
    Route("tka/status", _status, Access.READ, "lock status access denied", methods=_GET, wrong_method=_USE_GET),
    Route("tka/log", _refuse(500, "reading log failed"), Access.OPEN, methods=_GET, wrong_method=_USE_GET),
    Route(
        "tka/verify-deeplink",
        _verify_link,
        Access.READ,
        "signing deeplink verification access denied",
        methods=("POST",),
        wrong_method=(405, "use POST"),
    ),
    _post("wrap-preauth-key", "tailnet-lock modify access denied", _refuse(500, "wrapping failed", takes_json=True)),
    _post("init", "lock init access denied", _refuse(500, "initialization failed", takes_json=True)),
    _post("modify", "tailnet-lock modify access denied", _refuse(500, "tailnet-lock modify failed", takes_json=True)),
    _post("sign", "lock sign access denied", _refuse(500, "signing failed", takes_json=True)),
    _post("disable", "lock disable access denied", _refuse(400, "tailnet-lock disable failed")),
    _post(
        "force-local-disable",
        "tailnet-lock modify access denied",
        _refuse(400, "tailnet-lock local disable failed", takes_json=True),
    ),
    _post("affected-sigs", "lock access denied", _refuse(500, "listing the affected signatures failed")),
    _post("generate-recovery-aum", "lock access denied", _refuse(500, "generating a recovery AUM failed")),
    _post("cosign-recovery-aum", "lock access denied", _refuse(500, "co-signing the recovery AUM failed")),
    _post("submit-recovery-aum", "lock access denied", _refuse(500, "submitting the recovery AUM failed")),
]
