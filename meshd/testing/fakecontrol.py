"""A coordination server in the test's own process, on 127.0.0.1, that can go wrong at every layer.

Set ``fault`` to break one layer; replace ``answer_register`` and ``first_map`` to say something else; `push`
sends a message on every open map stream. What the client sent is kept in ``registers``, ``updates``,
``streams`` and ``answers``.
"""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Self

from meshd.base.errors import WireError
from meshd.base.keys import MachinePrivate, MachinePublic
from meshd.io.http.h2server import H2Stream
from meshd.io.noise_server import NoiseServerStream, early_payload
from meshd.wire.control import (
    Login,
    MapRequest,
    RegisterRequest,
    RegisterResponse,
    User,
    decode,
    encode,
)
from meshd.wire.mapframe import encode_map_frame
from meshd.wire.noise import Responder

if TYPE_CHECKING:
    import ssl


class Fault(Enum):
    """Where the server goes wrong."""

    NONE = auto()
    KEY_NOT_HTTP = auto()
    KEY_STATUS = auto()
    KEY_NOT_JSON = auto()
    KEY_ZERO = auto()
    KEY_ENDLESS = auto()
    KEY_CLOSED = auto()
    UPGRADE_NOT_HTTP = auto()
    UPGRADE_STATUS = auto()
    UPGRADE_OTHER = auto()
    EOF_AFTER_UPGRADE = auto()
    NOISE_GARBAGE = auto()
    NOISE_ERROR = auto()
    EARLY_GARBAGE = auto()
    EOF_AFTER_HANDSHAKE = auto()
    RECORD_GARBAGE = auto()
    H2_GARBAGE = auto()


@dataclass(frozen=True, slots=True)
class Refusal:
    """An HTTP answer other than 200."""

    status: int
    body: bytes = b""


RegisterAnswer = RegisterResponse | Refusal | bytes | None
"""None: no answer until `FakeControl.release`."""

_GARBAGE = b"\x00\x16\x03SSH-2.0-garbage\xff\xfe\r\n\r\n" * 8


def welcome(_: RegisterRequest) -> RegisterAnswer:
    """The answer that lets everybody in."""
    return RegisterResponse(
        user=User(id=1, display_name="u"), login=Login(id=1, login_name="u@example.com"), machine_authorized=True
    )


def node_json(node_id: int, key: str, **fields: Any) -> dict[str, Any]:
    """A plausible node."""
    address = [f"100.64.{node_id >> 8 & 255}.{node_id & 255}/32", f"fd7a:115c:a1e0:ab12::{abs(node_id):x}/128"]
    node = {
        "ID": node_id,
        "StableID": str(node_id),
        "Name": f"n{node_id}.mesh.test.",
        "User": 1,
        "Key": key,
        "Addresses": address,
        "AllowedIPs": address,
        "MachineAuthorized": True,
    }
    return {**node, **fields}


@dataclass(slots=True, eq=False)
class MapStream:
    """One open long poll."""

    request: MapRequest
    stream: H2Stream

    def send(self, message: Mapping[str, Any] | bytes) -> None:
        """A message as JSON, framed and compressed as asked; bytes go out as they are."""
        if not isinstance(message, bytes):
            message = encode_map_frame(json.dumps(message).encode(), zstd=self.request.compress == "zstd")
        self.stream.write(message)


@dataclass(eq=False)
class FakeControl:
    """Start with ``async with FakeControl() as control``; ``control.url`` is its URL."""

    fault: Fault = Fault.NONE
    answer_register: Callable[[RegisterRequest], RegisterAnswer] = welcome
    map_status: int = 200
    tls: ssl.SSLContext | None = None
    key: MachinePrivate = field(default_factory=MachinePrivate.generate)
    published_key: MachinePublic | None = None
    """What GET /key says, when it is not the truth."""
    registers: list[RegisterRequest] = field(default_factory=list)
    updates: list[MapRequest] = field(default_factory=list)
    streams: list[MapStream] = field(default_factory=list)
    """The open ones; ``opened`` counts all."""
    opened: int = 0
    answers: list[tuple[str, str, bytes]] = field(default_factory=list)
    """Everything else that was asked of the server: method, path, body."""
    key_requests: int = 0
    machines: list[MachinePublic] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    connections: set[_Connection] = field(default_factory=set)
    pending: list[tuple[RegisterRequest, H2Stream]] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def first_map(self, request: MapRequest) -> Mapping[str, Any] | bytes | None:
        """The first message of a stream; tests replace it."""
        return {"Node": node_json(1, request.node_key), "PacketFilter": [], "Domain": "mesh.test"}

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0, ssl=self.tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.drop()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def push(self, message: Mapping[str, Any] | bytes) -> None:
        """Send on every open map stream."""
        for stream in self.streams:
            stream.send(message)

    def drop(self) -> None:
        """Cut every connection."""
        for connection in list(self.connections):
            connection.abort()

    def release(self, answer: RegisterAnswer) -> None:
        """Answer the register requests that were kept waiting."""
        pending, self.pending = self.pending, []
        for _, stream in pending:
            _respond(stream, answer)

    async def until(self, done: Callable[[], object], seconds: float = 10) -> None:
        """Wait for something that requests bring about."""
        async with asyncio.timeout(seconds):
            while not done():
                self.news.clear()
                await self.news.wait()

    # -- requests over Noise -------------------------------------------------------------------------------

    def handle(self, stream: H2Stream) -> None:
        """One complete request."""
        body = bytes(stream.body)
        if stream.path == "/machine/register":
            self._register(decode(RegisterRequest, body), stream)
        elif stream.path == "/machine/map":
            self._map(decode(MapRequest, body), stream)
        else:
            self.answers.append((stream.method, stream.path, body))
            stream.respond(204, b"")
        self.news.set()

    def _register(self, request: RegisterRequest, stream: H2Stream) -> None:
        self.registers.append(request)
        answer = self.answer_register(request)
        if answer is None:
            self.pending.append((request, stream))
        else:
            _respond(stream, answer)

    def _map(self, request: MapRequest, stream: H2Stream) -> None:
        if self.map_status != 200:
            stream.respond(self.map_status, b"node not found", "text/plain")
            return
        if not request.stream:
            self.updates.append(request)
            stream.respond(200, b"")
            return
        opened = MapStream(request, stream)
        self.streams.append(opened)
        self.opened += 1
        stream.on_closed = lambda: self.streams.remove(opened)
        stream.start(200)
        first = self.first_map(request)
        if first is not None:
            opened.send(first)


def _respond(stream: H2Stream, answer: RegisterAnswer) -> None:
    if isinstance(answer, Refusal):
        stream.respond(answer.status, answer.body, "text/plain")
    elif isinstance(answer, bytes):
        stream.respond(200, answer)
    elif answer is not None:
        stream.respond(200, encode(answer))


class _Connection(asyncio.Protocol):
    """One TCP connection: /key, the upgrade, anything else; then Noise."""

    def __init__(self, control: FakeControl) -> None:
        self._control = control
        self._buffer = b""
        self._noise: NoiseServerStream | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "abort")
        self._transport: Any = transport
        self._control.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._control.connections.discard(self)
        if self._noise is not None:
            self._noise.connection_lost()

    def pause_writing(self) -> None:
        if self._noise is not None:
            self._noise.pause_writing()

    def resume_writing(self) -> None:
        if self._noise is not None:
            self._noise.resume_writing()

    def abort(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._noise is not None:
            self._noise.data_received(data)
            return
        self._buffer += data
        if not self._buffer[:1].isalpha():  # a TLS hello, for example
            self._transport.abort()
            return
        head, blank, rest = self._buffer.partition(b"\r\n\r\n")
        if not blank:
            return
        self._buffer = rest
        method, path, _ = head.split(b"\r\n")[0].decode().split(" ")
        headers = {n.lower(): v.strip() for n, _, v in (x.partition(":") for x in head.decode().split("\r\n")[1:])}
        if path.startswith("/key"):
            self._key()
        elif path == "/ts2021":
            self._upgrade(b64decode(headers.get("x-tailscale-handshake", "")))
        else:
            self._control.answers.append((method, path, rest))
            self._control.news.set()
            self._close(b"HTTP/1.1 204 No Content\r\n\r\n")

    def _close(self, last: bytes) -> None:
        self._transport.write(last)
        self._transport.close()

    def _key(self) -> None:
        control = self._control
        control.key_requests += 1
        control.news.set()
        key = control.published_key or control.key.public()
        body = json.dumps({"legacyPublicKey": f"mkey:{'0' * 64}", "publicKey": key.text()}).encode()
        head = "HTTP/1.1 200 OK"
        match control.fault:
            case Fault.KEY_NOT_HTTP:
                return self._close(_GARBAGE)
            case Fault.KEY_CLOSED:
                self._transport.abort()
                return None
            case Fault.KEY_STATUS:
                head = "HTTP/1.1 503 Busy"
            case Fault.KEY_NOT_JSON:
                body = b"<html>hello</html>"
            case Fault.KEY_ZERO:
                body = json.dumps({"publicKey": f"mkey:{'0' * 64}"}).encode()
            case Fault.KEY_ENDLESS:
                body = b" " * 1_000_000
        return self._close(f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)

    def _upgrade(self, initiation: bytes) -> None:
        protocol = b"tailscale-control-protocol"
        match self._control.fault:
            case Fault.UPGRADE_NOT_HTTP:
                return self._close(_GARBAGE)
            case Fault.UPGRADE_STATUS:
                return self._close(b"HTTP/1.1 301 Moved\r\nLocation: https://elsewhere/\r\nContent-Length: 0\r\n\r\n")
            case Fault.UPGRADE_OTHER:
                protocol = b"websocket"
        switch = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: " + protocol + b"\r\nConnection: upgrade\r\n\r\n"
        match self._control.fault:
            case Fault.EOF_AFTER_UPGRADE:
                return self._close(switch)
            case Fault.NOISE_GARBAGE:
                return self._close(switch + _GARBAGE)
            case Fault.NOISE_ERROR:
                return self._close(switch + b"\x03\x00\x30" + b"go away".ljust(48))
        try:
            reply, machine, version, transport = Responder(self._control.key).respond(initiation)
        except WireError:
            return self._close(switch)  # as servers do: nothing but the end of the connection
        self._transport.write(switch + reply)
        match self._control.fault:
            case Fault.EOF_AFTER_HANDSHAKE:
                self._transport.close()
                return None
            case Fault.RECORD_GARBAGE:
                return self._close(b"\x04\x00\x20" + bytes(32))
            case Fault.EARLY_GARBAGE:
                return self._close(transport.seal(b"\xff\xff\xffTS\xff\xff\xff\xff{}"))
            case Fault.H2_GARBAGE:
                return self._close(
                    transport.seal(early_payload()) + transport.seal(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                )
        control = self._control
        control.machines.append(MachinePublic(machine))
        control.versions.append(version)
        self._noise = NoiseServerStream(self._transport, transport, control.handle, early_payload())
        if self._buffer:
            self._noise.data_received(self._buffer)
        return None
