"""Connections into the network for local programs, and what a dial comes to in each way it can be made."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from meshd.base.addr import AddrPort, parse_ip
from meshd.base.errors import MeshdError
from meshd.feature.localapi.route import Access, Call, Route
from meshd.feature.localapi.waiting import one_waiter
from meshd.io.dial import dial_tcp
from meshd.io.http.h1server import HttpError, Response
from meshd.io.joinstreams import close_within, join_streams

PROTOCOL = "ts-dial"
_LAST_BYTE_S = 30.0  # for the far end to take what is left
_PATIENCE_S = 5.0  # of one dial in debug-dial-types


async def _dial(call: Call) -> Response:
    request = call.request
    if "upgrade" not in request.header("connection").lower() or request.header("upgrade") != PROTOCOL:
        raise HttpError(400, "bad ts-dial upgrade")
    host, port = request.header("dial-host"), request.header("dial-port")
    if not host or not port:
        raise HttpError(400, "missing Dial-Host or Dial-Port header")
    network = request.header("dial-network") or "tcp"
    if not network.startswith("tcp"):
        raise HttpError(400, f"unsupported network {network[:20]!r}")
    number = _port(port)
    address, ours = call.backend.dial_target(host)
    if not ours:
        with one_waiter(request.peer, call.may), request.cancel_if_gone():
            there = await _resolved(call, address, number)
        return Response(200, [("Dial-Self", "true"), ("Dial-Addr", there)])
    await request.body()  # nothing is in it, but nothing is dialled either for a client that never ends its request
    try:
        with request.cancel_if_gone():
            far = await asyncio.open_connection(address, number)
    except OSError as error:
        raise HttpError(502, f"dial failure: {error.strerror or error}") from None

    async def joined(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await join_streams(reader, writer, *far)
        finally:
            await close_within(far[1], _LAST_BYTE_S)

    headers = [("Connection", "upgrade"), ("Upgrade", PROTOCOL)]
    return Response(101, headers, take_over=joined, abandon=far[1].close)


async def _resolved(call: Call, host: str, port: int) -> str:
    try:
        found = await call.backend.look_up(host, port)
    except OSError as error:
        raise HttpError(502, f"resolve failure: {error.strerror or error}") from None
    return str(AddrPort(parse_ip(str(found[0][1][0])), port))


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) <= 0xFFFF):
        raise HttpError(400, "invalid port")
    return int(text)


async def _dial_types(call: Call) -> Response:
    """Every way to dial, at once; a line each as it ends. "SystemDial" goes around the tunnel."""
    try:
        ip = parse_ip(await call.request.value("ip"))
    except ValueError:
        raise HttpError(400, "invalid IP") from None
    port = _port(await call.request.value("port"))
    network = await call.request.value("network") or "tcp"
    if network not in ("tcp", "tcp4", "tcp6"):
        raise HttpError(400, f"unsupported network {network[:20]!r}")
    lines: list[str] = []

    async def attempt(name: str, dial: Callable[[], Awaitable[Callable[[], None]]]) -> None:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                close = await dial()
        except TimeoutError:
            outcome = f"connected=false err=dial tcp {AddrPort(ip, port)}: i/o timeout"
        except (OSError, MeshdError) as error:
            outcome = f"connected=false err=dial tcp {AddrPort(ip, port)}: {getattr(error, 'strerror', None) or error}"
        else:
            close()
            outcome = "connected=true err=<nil>"
        lines.append(f"[{name}] {outcome}\n")

    async def bare() -> Callable[[], None]:
        return (await asyncio.open_connection(str(ip), port))[1].close

    async def user() -> Callable[[], None]:
        address, _ = call.backend.dial_target(str(ip))
        return (await asyncio.open_connection(address, port))[1].close

    async def around() -> Callable[[], None]:
        return (await dial_tcp(str(ip), port)).close

    with call.request.cancel_if_gone():
        await asyncio.gather(attempt("BareDial", bare), attempt("UserDial", user), attempt("SystemDial", around))
    return Response(200, [("Content-Type", "text/plain; charset=utf-8")], "".join(lines).encode())


ROUTES = [
    Route("dial", _dial, Access.OPEN, methods=("POST",), wrong_method=(405, "POST required")),
    Route(
        "debug-dial-types",
        _dial_types,
        Access.WRITE,
        "debug-dial-types access denied",
        methods=("POST",),
        wrong_method=(405, "only POST allowed"),
    ),
]
