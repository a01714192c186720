"""Fuzz targets of what strangers can say to a coordination server before they proved who they are."""

from __future__ import annotations

import asyncio
import base64
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

from meshd.base.keys import MachinePrivate, NodePrivate
from meshd.coord.pages import CoordPages
from meshd.coord.pending import PendingRegistrations
from meshd.io.http import front
from meshd.io.http.h2server import H2Stream
from meshd.relay.pages import RelayPages
from meshd.relay.server import RelayServer
from meshd.wire import noise
from tests.fuzz.eventloop import BENCH, Wire
from tests.fuzz.fuzz_stream import _HTTP, _requests
from tests.fuzz.target import target

_PRIVATE = MachinePrivate(bytes(31) + b"\x40")
_CLIENT = MachinePrivate(bytes(31) + b"\x41")


def _calls() -> list[bytes]:
    public = NodePrivate(bytes(31) + b"\x42").public().text().encode()
    hello = base64.b64encode(noise.Initiator(_CLIENT, _PRIVATE.public(), 113, bytes(range(32))).message())
    upgrade = b"Connection: upgrade\r\nUpgrade: tailscale-control-protocol\r\n"
    question = b'{"NodePublic":"%s"}' % public
    lines = [
        b"GET /key?v=113 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /register/0123456789abcdef HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /verify HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (len(question), question),
        b"POST /ts2021 HTTP/1.1\r\nHost: a\r\n%sX-Tailscale-Handshake: %s\r\n\r\n" % (upgrade, hello),
        b"POST /ts2021 HTTP/1.1\r\nHost: a\r\n%sX-Tailscale-Handshake: %s\r\n\r\n\4\0\5hello" % (upgrade, hello),
        b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n",
    ]
    return [*lines, lines[0] + lines[1]]


def _control(machine: object, version: int, source_ip: str, stream: H2Stream) -> None:
    raise AssertionError("a stranger got a request through")


@lru_cache(maxsize=1)
def _pages() -> CoordPages:
    """They keep nothing of a connection."""
    control: Any = SimpleNamespace(handle=_control)
    registrar: Any = SimpleNamespace(pending=PendingRegistrations())
    relay = RelayPages(RelayServer(NodePrivate(bytes(31) + b"\x43")), ())
    return CoordPages(_PRIVATE, control, registrar, relay, lambda key: False)


@target(seeds=lambda: [*_calls(), *_requests()], dictionary=(*_HTTP, b"?v=", b"/register/", b"/ts2021"), limit=900)
def fuzz_coord_connection(data: bytes) -> None:
    async def live() -> None:
        await Wire(front.FrontConnection(_pages().handle, False, lambda: None)).feed(data)
        await asyncio.sleep(0.1)

    BENCH.run(live)
