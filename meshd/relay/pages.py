"""The HTTP paths of a relay: the upgrade to DERP and the small answers that clients probe with."""

from __future__ import annotations

import asyncio
import json
import re
import socket

from meshd.io.http.front import Request, Response, Upgrade
from meshd.relay.server import RelayServer

MAX_CHALLENGE = re.compile(r"[A-Za-z0-9._-]{1,64}")
BOOTSTRAP_TIMEOUT_S = 3.0
BOOTSTRAP_FRESH_S = 60.0
BOOTSTRAP_RETRY_S = 5.0
PROBE_HEADERS = (("Access-Control-Allow-Origin", "*"), ("Cache-Control", "no-cache, no-store"))


def generate_204(request: Request) -> Response:
    """The answer that proves there is no captive portal between."""
    challenge = request.headers.get("x-tailscale-challenge", "")
    if MAX_CHALLENGE.fullmatch(challenge):
        return Response(204, headers=(("X-Tailscale-Response", f"response {challenge}"),))
    return Response(204)


class RelayPages:
    """Answers the relay's paths; `bootstrap_names` are the only host names it resolves for others."""

    def __init__(self, relay: RelayServer, bootstrap_names: tuple[str, ...] = ()) -> None:
        self._relay = relay
        self._bootstrap_names = bootstrap_names
        self._addresses: dict[str, list[str]] = {}
        self._fresh_until: dict[str, float] = {}
        self._lookups: dict[str, asyncio.Task[None]] = {}

    async def handle(self, request: Request) -> Response | Upgrade | None:
        """The answer, or None for a path that is not the relay's."""
        match request.path:
            case "/derp":
                return self._derp(request)
            case "/derp/probe" | "/derp/latency-check":
                if request.method not in ("GET", "HEAD"):
                    return Response(405, b"only GET and HEAD\n")
                return Response(200, headers=PROBE_HEADERS)
            case "/generate_204":
                return generate_204(request)
            case "/bootstrap-dns":
                return await self._bootstrap_dns(request.query.get("q", ""))
            case "/robots.txt":
                return Response(200, b"User-agent: *\nDisallow: /\n")
        return None

    def _derp(self, request: Request) -> Response | Upgrade:
        if request.wants_upgrade() != "derp":
            return Response(
                426,
                b"this is a relay; connect with Upgrade: DERP\n",
                headers=(("Upgrade", "DERP"), ("Connection", "Upgrade")),
            )
        head = b""
        if request.headers.get("derp-fast-start") != "1":
            head = (
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n"
                b"Derp-Version: 2\r\nDerp-Public-Key: %s\r\n\r\n" % self._relay.public.raw.hex().encode()
            )
        return Upgrade(head, lambda transport: self._relay.attach(transport, request.peer_ip))

    async def _bootstrap_dns(self, name: str) -> Response:
        """Addresses of the names this relay is known by, for clients whose resolver does not work."""
        answer: dict[str, list[str]] = {}
        for known in self._bootstrap_names:
            if name and name != known:
                continue
            await self._look_up(known)
            if known in self._addresses:
                answer[known] = self._addresses[known]
        return Response(200, json.dumps(answer).encode(), "application/json")

    async def _look_up(self, name: str) -> None:
        """Bring the addresses of a name up to date, by one lookup at a time: anybody can ask, as often as he likes, and
        lookups cannot be broken off."""
        loop = asyncio.get_running_loop()
        lookup = self._lookups.get(name)
        if lookup is None:
            if loop.time() < self._fresh_until.get(name, 0.0):
                return
            lookup = self._lookups[name] = loop.create_task(self._ask_resolver(name))
        await asyncio.wait([lookup], timeout=BOOTSTRAP_TIMEOUT_S)

    async def _ask_resolver(self, name: str) -> None:
        loop = asyncio.get_running_loop()
        fresh_s = BOOTSTRAP_RETRY_S
        try:
            found = await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            self._addresses[name] = sorted({str(address[0]) for *_, address in found})
            fresh_s = BOOTSTRAP_FRESH_S
        except (OSError, UnicodeError):
            pass  # what was found before is better than nothing
        finally:
            self._fresh_until[name] = loop.time() + fresh_s
            del self._lookups[name]
