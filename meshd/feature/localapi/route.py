"""What a LocalAPI route is: a name, who may use it, which methods it takes, and a function."""

from __future__ import annotations

import base64
import enum
from collections.abc import Awaitable, Callable

import msgspec

from meshd.base.errors import MeshdError
from meshd.feature.localapi.backendapi import LocalBackend
from meshd.feature.localapi.jsontext import json_response
from meshd.feature.localapi.permission import Permissions
from meshd.feature.localapi.requestlog import RequestLog
from meshd.io.http.h1server import HttpError, Request, Response


class Access(enum.Enum):
    """Who may use a route."""

    OPEN = "open"
    READ = "read"
    WRITE = "write"


class Call(msgspec.Struct):
    """One request that found its route. `rest` is what follows the prefix of a prefix route."""

    request: Request
    backend: LocalBackend
    may: Permissions
    rest: str
    log: RequestLog


class Route(msgspec.Struct, frozen=True):
    """`name` ends in a slash for routes that take everything below it.

    `denied` is the text of a 403, `wrong_method` status and text for methods other than `methods` (empty: all are
    welcome). Permission is judged before the method.
    """

    name: str
    handle: Callable[[Call], Awaitable[Response]]
    access: Access
    denied: str = "access denied"
    methods: tuple[str, ...] = ()
    wrong_method: tuple[int, str] = (405, "use POST")

    async def serve(self, call: Call) -> Response:
        """Check, then run."""
        require(call, self.access, self.denied)
        if self.methods and call.request.method not in self.methods:
            raise HttpError(*self.wrong_method, [("Allow", ", ".join(self.methods))])
        try:
            return await self.handle(call)
        except MeshdError as error:
            raise HttpError(STATUS_BY_CODE.get(error.code, 500), str(error)) from error


def require(call: Call, access: Access, denied: str) -> None:
    """HttpError 403 unless the caller has that access."""
    allowed = {Access.OPEN: True, Access.READ: call.may.read, Access.WRITE: call.may.write}[access]
    if not allowed:
        raise HttpError(403, denied)


def reason_of(call: Call) -> str:
    """What the user gave as reason for the request (base64 in a header); "" for none, or one that nobody can read."""
    try:
        return base64.b64decode(call.request.header("x-tailscale-reason") or "", validate=True).decode()
    except ValueError:
        return ""


STATUS_BY_CODE = {
    "invalid": 400,
    "denied": 403,
    "not_found": 404,
    "conflict": 409,
    "precondition": 412,
    "internal": 500,
    "unsupported": 501,
    "unavailable": 503,
}
"""HTTP status by the code of a MeshdError; anything else is 500."""


def error_response(error: MeshdError, *, key: str = "error", status: int = 500) -> Response:
    """An error as a JSON object with one member, for routes whose clients parse that."""
    return json_response({key: str(error)}, status=status)


NO_CONTENT = 204
"""Status of routes that only do something."""


def plain(text: str, content_type: str = "text/plain") -> Response:
    """Text as it is."""
    return Response(200, [("Content-Type", content_type)], text.encode())
