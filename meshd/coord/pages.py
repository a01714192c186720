"""The HTTP paths outside ts2021: keys, upgrades, probes, and the page a user is sent to."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from html import escape

from meshd.base.errors import WireError
from meshd.base.keys import MachinePrivate, MachinePublic, NodePublic
from meshd.base.log import get_logger, kv
from meshd.coord.control import MIN_VERSION, ControlService
from meshd.coord.registration import Registrar
from meshd.io.http.front import Request, Response, Upgrade
from meshd.io.noise_server import NoiseServerStream, early_payload
from meshd.relay.pages import RelayPages, generate_204
from meshd.wire.control import DERPAdmitRequest, DERPAdmitResponse, OverTLSPublicKey, decode, encode
from meshd.wire.noise import INITIATION_SIZE, Responder

log = get_logger(__name__)

UPGRADE_NAME = "tailscale-control-protocol"
HANDSHAKE_HEADER = "x-tailscale-handshake"
JSON = "application/json"
_SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: tailscale-control-protocol\r\nConnection: upgrade\r\n\r\n"
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="robots" content="noindex"><title>Join the network</title>
<body style="font-family: sans-serif; max-width: 40em; margin: 3em auto">
<h1>One more step</h1>
<p>To let this machine in, run on the coordination server:</p>
<pre style="background: #eee; padding: 1em">mesh-coord nodes approve {id}</pre>
<p>Only do so if you started this login yourself.</p>
</body></html>
"""


class CoordPages:
    """Routes the requests of the server's one port."""

    def __init__(
        self,
        private: MachinePrivate,
        control: ControlService,
        registrar: Registrar,
        relay: RelayPages | None,
        knows_node_key: Callable[[str], bool],
    ) -> None:
        self._key = encode(OverTLSPublicKey(public_key=private.public().text()))
        self._responder = Responder(private)
        self._control = control
        self._registrar = registrar
        self._relay = relay
        self._knows_node_key = knows_node_key

    async def handle(self, request: Request) -> Response | Upgrade:
        """The answer to one request."""
        match request.path:
            case "/key":
                return self._key_page(request)
            case "/ts2021":
                return self._ts2021(request)
            case "/health":
                return Response(200, b'{"status":"pass"}', JSON)
            case "/verify":
                return self._verify(request)
            case "/generate_204":
                return generate_204(request)
            case "/":
                return Response(200, b"This is a mesh-coord server.\n")
        if request.path.startswith("/register/"):
            return self._register_page(request.path.removeprefix("/register/"))
        if self._relay is not None:
            answer = await self._relay.handle(request)
            if answer is not None:
                return answer
        return Response(404, b"not found\n")

    def _key_page(self, request: Request) -> Response:
        text = request.query.get("v", "")
        if not text.isascii() or not text.isdigit() or len(text) > 6:
            return Response(400, b"the parameter v (capability version) is missing or not a number\n")
        if int(text) < MIN_VERSION:
            return Response(400, f"client version {int(text)} is too old, {MIN_VERSION} is needed\n".encode())
        return Response(200, self._key, JSON)

    def _ts2021(self, request: Request) -> Response | Upgrade:
        if request.method != "POST":
            return Response(405, b"use POST\n")
        wanted = request.wants_upgrade()
        if not wanted:
            return Response(400, b"missing next protocol: a proxy on the way may have removed the Upgrade header\n")
        if wanted != UPGRADE_NAME:
            return Response(400, b"unknown next protocol\n")
        try:
            initiation = base64.b64decode(request.headers.get(HANDSHAKE_HEADER, ""), validate=True)
            if len(initiation) != INITIATION_SIZE:
                raise WireError(f"the handshake has {len(initiation)} bytes")
            reply, machine_key, version, noise = self._responder.respond(initiation)
        except ValueError as error:
            log.info("handshake_refused", extra=kv(addr=request.peer_ip, reason=str(error)))
            return Response(400, b"invalid handshake\n")
        if version < MIN_VERSION:
            return Response(400, f"client version {version} is too old, {MIN_VERSION} is needed\n".encode())
        machine = MachinePublic(machine_key)
        source_ip = request.peer_ip

        def attach(transport: asyncio.Transport) -> NoiseServerStream:
            return NoiseServerStream(
                transport,
                noise,
                lambda stream: self._control.handle(machine, version, source_ip, stream),
                first=early_payload(),
            )

        return Upgrade(_SWITCH + reply, attach)

    def _register_page(self, registration_id: str) -> Response:
        entry = self._registrar.pending.get(registration_id, asyncio.get_running_loop().time())
        if entry is None:
            return Response(404, b"This registration is not known. Start the login again on the machine.\n")
        if entry.done.is_set():
            return Response(200, b"This registration is finished.\n")
        return Response(200, _PAGE.format(id=escape(entry.id)).encode(), "text/html; charset=utf-8")

    def _verify(self, request: Request) -> Response:
        """Relays of the network ask here whether a client may use them."""
        if request.method != "POST":
            return Response(405, b"use POST\n")
        try:
            question = decode(DERPAdmitRequest, request.body)
            key = NodePublic.parse(question.node_public)
        except ValueError:
            return Response(400, b"malformed question\n")
        return Response(200, encode(DERPAdmitResponse(allow=self._knows_node_key(key.text()))), JSON)
