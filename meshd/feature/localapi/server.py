"""The LocalAPI server: one Unix socket, many routes.

It may serve before the node exists: requests then wait for `set_backend`, so that a client started together with the
daemon needs no retry loop.
"""

from __future__ import annotations

import asyncio
import base64
import socket
import time
from collections.abc import Callable
from urllib.parse import unquote

from meshd.base.version import CAPABILITY_VERSION, long_version
from meshd.feature.localapi import (
    absentroutes,
    authorityroutes,
    busroute,
    controlroutes,
    debugroutes,
    dialroutes,
    keptroutes,
    lockroutes,
    loginroutes,
    logtap,
    networkroutes,
    prefsroutes,
    proberoutes,
    statusroutes,
)
from meshd.feature.localapi.backendapi import LocalBackend
from meshd.feature.localapi.permission import permissions
from meshd.feature.localapi.requestlog import RequestLog
from meshd.feature.localapi.route import Call, Route
from meshd.feature.localapi.socketfile import SocketFile, open_socket
from meshd.io.http.h1server import HttpError, HttpServer, Limits, Request, Response, text_response
from meshd.io.peercred import PeerIdentity, peer_identity

PREFIX = "/localapi/v0/"

MAX_REASON_CHARACTERS = 300
"""Of a reason that a user gives for a change, as far as it is logged."""

_HOSTS = ("", "local-tailscaled.sock")
"""What clients put into Host. A browser that was lured here by DNS sends something else."""

_HEADERS = [
    ("Tailscale-Version", long_version()),
    ("Tailscale-Cap", str(CAPABILITY_VERSION)),
    (
        "Content-Security-Policy",
        "default-src 'none'; frame-ancestors 'none'; script-src 'none'; script-src-elem 'none'; script-src-attr 'none'",
    ),
    ("X-Frame-Options", "DENY"),
    ("X-Content-Type-Options", "nosniff"),
]

_ROUTES: dict[str, Route] = {
    route.name: route
    for module in (
        *(statusroutes, prefsroutes, loginroutes, proberoutes, busroute, debugroutes, networkroutes, controlroutes),
        *(dialroutes, keptroutes, lockroutes, logtap, absentroutes, authorityroutes),
    )
    for route in module.ROUTES
}

_ROOT_PAGE = (
    b"<html><title>Tailscale</title><body><h1>Tailscale</h1>This is the local Tailscale daemon, served by meshd.\n"
)


class LocalApiServer:
    """`start()` at once, `set_backend()` when the node is ready, `close()` at the end."""

    def __init__(
        self,
        backend: LocalBackend | None = None,
        *,
        limits: Limits = Limits(),  # noqa: B008 (immutable)
        identify: Callable[[int], PeerIdentity | None] = peer_identity,
        daemon_uid: int | None = None,
    ) -> None:
        self._backend = backend
        self._ready = asyncio.Event()
        if backend is not None:
            self._ready.set()
        self._daemon_uid = daemon_uid
        self._http = HttpServer(self._handle, limits=limits, identify=identify)
        self._file: SocketFile | None = None
        self._log = RequestLog(time.monotonic)

    async def start(self, path: str) -> None:
        """Create the socket file and serve it; MeshdError when that is not possible."""
        await self.start_on(open_socket(path))
        self._file = SocketFile(path)

    async def start_on(self, listener: socket.socket) -> None:
        """Serve a Unix socket that already listens (socket activation)."""
        await self._http.start(listener)

    def set_backend(self, backend: LocalBackend) -> None:
        """Let the waiting requests through."""
        self._backend = backend
        self._ready.set()

    async def close(self) -> None:
        """End all connections and remove the socket file."""
        if self._file is not None:  # first of all: once nobody listens there it may become another daemon's
            self._file.remove()
            self._file = None
        await self._http.close()

    async def _handle(self, request: Request) -> Response:
        if request.method == "CONNECT":
            raise HttpError(405, "bad method for platform")
        if request.raw_path == "/server-status" and request.method == "GET":
            return await self._server_status(request)
        if not request.raw_path.startswith("/localapi/"):
            if request.raw_path != "/":
                raise HttpError(404, "404 page not found")
            return Response(200, [("Content-Type", "text/html; charset=utf-8")], _ROOT_PAGE)
        if request.header("referer") or request.header("origin") or request.header("host") not in _HOSTS:
            self._log.refused(request.header("host"))
            raise HttpError(403, "invalid localapi request")
        try:
            response = await self._route(request)
        except HttpError as error:
            response = text_response(error.status, error.text)
            response.headers += error.headers
        names = {name.lower() for name, _ in response.headers}
        response.headers += [header for header in _HEADERS if header[0].lower() not in names]
        return response

    async def _route(self, request: Request) -> Response:
        route, rest = find_route(request.raw_path)
        if not self._ready.is_set():
            with request.cancel_if_gone():
                await self._ready.wait()
        backend = self._backend
        assert backend is not None
        if request.method not in ("GET", "HEAD", "OPTIONS"):
            uid = request.peer.uid if request.peer is not None else None
            self._log.note(request.method, route.name, uid, _reason(request))
        may = permissions(request.peer, backend, daemon_uid=self._daemon_uid)
        return await route.serve(Call(request, backend, may, rest, self._log))

    async def _server_status(self, request: Request) -> Response:
        if not self._ready.is_set():
            if await request.value("wait") != "true":
                return Response(503, [("Content-Type", "application/json")], b'{"error":"backend not ready"}')
            with request.cancel_if_gone():
                await self._ready.wait()
        return Response(200, [("Content-Type", "application/json")], b"{}")


def _reason(request: Request) -> str:
    """Why a user does what they do, for the log: printable, and not endless."""
    try:
        text = base64.b64decode(request.header("x-tailscale-reason"), validate=True).decode("utf-8", "replace")
    except ValueError:
        return ""
    return "".join(c if c.isprintable() else " " for c in text[:MAX_REASON_CHARACTERS])


def find_route(raw_path: str) -> tuple[Route, str]:
    """The route of a path and what follows its prefix (decoded); HttpError 404."""
    name = raw_path.removeprefix(PREFIX)
    if name != raw_path:
        if route := _ROUTES.get(name):
            return route, ""
        prefix, slash, rest = name.partition("/")
        if slash and (route := _ROUTES.get(prefix + slash)):
            return route, unquote(rest)
    raise HttpError(404, "404 page not found")
