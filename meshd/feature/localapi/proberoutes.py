"""Routes that probe the network: ping and netcheck. They stop when their client leaves."""

from __future__ import annotations

from typing import cast, get_args

from meshd.base.addr import IPAddress, parse_ip
from meshd.base.errors import MeshdError
from meshd.feature.localapi.backendapi import PingKind
from meshd.feature.localapi.jsontext import json_response
from meshd.feature.localapi.route import Access, Call, Route, error_response, require
from meshd.feature.localapi.waiting import one_waiter
from meshd.io.http.h1server import HttpError, Response

MAX_PING_BYTES = 65535 - 20 - 8
"""Largest disco ping: what a UDP datagram over IPv4 can carry."""

_KINDS = {kind.lower(): kind for kind in get_args(PingKind)}


async def _ping(call: Call) -> Response:
    request = call.request
    address = await request.value("ip")
    if not address:
        raise HttpError(400, "missing 'ip' parameter")
    try:
        ip = parse_ip(address)
    except ValueError:
        raise HttpError(400, "invalid IP") from None
    wanted = await request.value("type")
    if not wanted:
        raise HttpError(400, "missing 'type' parameter")
    kind = _KINDS.get(wanted.lower())
    if kind is None:
        raise HttpError(400, f"unknown ping type {wanted!r}, expected one of {', '.join(_KINDS.values())}")
    size = _size(await request.value("size"), kind)
    try:
        with one_waiter(request.peer, call.may), request.cancel_if_gone():
            result = await call.backend.ping(ip, cast("PingKind", kind), size)
    except MeshdError as error:
        return error_response(error)
    return json_response(result)


def _size(text: str, kind: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise HttpError(400, "invalid 'size' parameter")
    size = int(text)
    if size and kind != "disco":
        raise HttpError(400, "'size' parameter is only supported with disco pings")
    if size > MAX_PING_BYTES:
        raise HttpError(400, f"maximum value for 'size' is {MAX_PING_BYTES}")
    return size


async def _netcheck(call: Call) -> Response:
    address, port = await call.request.value("bind-address"), await call.request.value("bind-port")
    bound: tuple[IPAddress | None, int] | None = None
    if address or port:
        require(call, Access.WRITE, "netcheck access denied: only root and the operator choose its address and port")
        bound = _bind_address(address), _bind_port(port)
    with one_waiter(call.request.peer, call.may), call.request.cancel_if_gone():
        report = await call.backend.netcheck(bound)
    return json_response(report)


def _bind_address(text: str) -> IPAddress | None:
    try:
        return parse_ip(text) if text else None
    except ValueError:
        raise HttpError(400, "invalid 'bind-address'") from None


def _bind_port(text: str) -> int:
    if text and not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 0xFFFF):
        raise HttpError(400, "invalid 'bind-port'")
    return int(text or 0)


async def _relay_report(call: Call) -> Response:
    region = await call.request.value("region")
    with call.request.cancel_if_gone():
        return json_response(await call.backend.relay_report(region))


ROUTES = [
    Route("ping", _ping, Access.OPEN, methods=("POST",), wrong_method=(400, "want POST")),
    Route("netcheck", _netcheck, Access.READ, "netcheck access denied", methods=("POST",)),
    Route(
        "debug-derp-region",
        _relay_report,
        Access.WRITE,
        "debug access denied",
        methods=("POST",),
        wrong_method=(405, "POST required"),
    ),
]
