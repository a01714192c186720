"""A machine that speaks to a coordination server as tests and load generators need it: nothing is decided here."""

from __future__ import annotations

import asyncio
import base64
import ssl
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings

from meshd.base.keys import DiscoPrivate, MachinePrivate, MachinePublic, NodePrivate
from meshd.wire.control import (
    Hostinfo,
    MapRequest,
    MapResponse,
    OverTLSPublicKey,
    RegisterAuth,
    RegisterRequest,
    RegisterResponse,
    decode,
    encode,
)
from meshd.wire.earlypayload import EarlyPayloadReader
from meshd.wire.mapframe import MapFrameReader
from meshd.wire.noise import RESPONSE_SIZE, Initiator, StreamCipher

VERSION = 113
_WINDOW = 4 * 1024 * 1024
_END = object()


class RequestFailed(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status


async def fetch_key(host: str, port: int) -> MachinePublic:
    """The server's Noise key from `/key`."""
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(f"GET /key?v={VERSION} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return MachinePublic.parse(decode(OverTLSPublicKey, answer.partition(b"\r\n\r\n")[2]).public_key)


class ControlMachine:
    """One device with one node key."""

    def __init__(self, hostname: str = "machine") -> None:
        self.machine = MachinePrivate.generate()
        self.node = NodePrivate.generate()
        self.disco = DiscoPrivate.generate()
        self.hostinfo = Hostinfo(hostname=hostname, os="linux", backend_log_id="0" * 64)
        self.endpoints: tuple[str, ...] = ()
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._cipher: StreamCipher | None = None
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self._answers: dict[int, asyncio.Queue[Any]] = {}
        self._bodies: dict[int, bytes] = {}
        self._pump: asyncio.Task[None] | None = None
        self.paused = asyncio.Event()
        self.paused.set()

    async def connect(
        self, host: str, port: int, key: MachinePublic, *, version: int = VERSION, tls: ssl.SSLContext | None = None
    ) -> None:
        """Upgrade to Noise and start HTTP/2."""
        reader, writer = await asyncio.open_connection(host, port, ssl=tls)
        self._reader, self._writer = reader, writer
        initiator = Initiator(self.machine, key, version)
        message = base64.b64encode(initiator.message()).decode()
        writer.write(
            f"POST /ts2021 HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: upgrade\r\n"
            f"Upgrade: tailscale-control-protocol\r\nX-Tailscale-Handshake: {message}\r\n\r\n".encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        if status != 101:
            text = (await reader.read(1000)).decode("utf-8", "replace")
            writer.close()
            raise RequestFailed(status, text)
        self._cipher = StreamCipher(initiator.finish(await reader.readexactly(RESPONSE_SIZE)))
        self._h2.initiate_connection()
        self._h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW})
        self._h2.increment_flow_control_window(_WINDOW * 16)
        self._flush()
        self._pump = asyncio.get_running_loop().create_task(self._receive())

    async def close(self) -> None:
        """Hang up."""
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
        if self._writer is not None:
            self._writer.close()

    def send(self, path: str, body: bytes) -> int:
        """Start a request; `part` gives what comes back."""
        stream_id = self._h2.get_next_available_stream_id()
        self._answers[stream_id] = asyncio.Queue()
        self._h2.send_headers(
            stream_id,
            [(":method", "POST"), (":scheme", "https"), (":authority", "test"), (":path", path)],
        )
        self._bodies[stream_id] = body
        self._send_bodies()
        self._flush()
        return stream_id

    def _send_bodies(self) -> None:
        """Send what the server's windows allow of the bodies that wait."""
        for stream_id, body in list(self._bodies.items()):
            at = 0
            while at < len(body):
                room = min(self._h2.local_flow_control_window(stream_id), self._h2.max_outbound_frame_size)
                if room <= 0:
                    break
                self._h2.send_data(stream_id, body[at : at + room])
                at += room
            if at >= len(body):
                self._h2.end_stream(stream_id)
                del self._bodies[stream_id]
            else:
                self._bodies[stream_id] = body[at:]

    def cancel(self, stream_id: int) -> None:
        """Give a request up."""
        self._h2.reset_stream(stream_id, 8)
        self._flush()

    async def part(self, stream_id: int) -> bytes | int | None:
        """The next piece of an answer: its status, then data, then None at the end."""
        answers = self._answers[stream_id]
        item = await answers.get()
        if item is _END:
            answers.put_nowait(_END)
            return None
        return item  # type: ignore[no-any-return]

    async def request(self, path: str, body: bytes) -> bytes:
        """A whole answer; `RequestFailed` when the status is not 200."""
        stream_id = self.send(path, body)
        status = await self.part(stream_id)
        answer = bytearray()
        while (piece := await self.part(stream_id)) is not None:
            assert isinstance(piece, bytes)
            answer += piece
        if status != 200:
            raise RequestFailed(int(status or 0), answer.decode("utf-8", "replace"))
        return bytes(answer)

    async def register(self, auth_key: str = "", **fields: Any) -> RegisterResponse:
        """Register this machine's node key."""
        request = RegisterRequest(
            **{
                "version": VERSION,
                "node_key": self.node.public().text(),
                "hostinfo": self.hostinfo,
                "auth": RegisterAuth(auth_key=auth_key) if auth_key else None,
                **fields,
            }
        )
        return decode(RegisterResponse, await self.request("/machine/register", encode(request)))

    def map_request(self, **fields: Any) -> MapRequest:
        """What this machine tells of itself."""
        return MapRequest(
            **{
                "version": VERSION,
                "keep_alive": True,
                "node_key": self.node.public().text(),
                "disco_key": self.disco.public().text(),
                "hostinfo": self.hostinfo,
                "endpoints": self.endpoints,
                **fields,
            }
        )

    async def update(self, **fields: Any) -> None:
        """A lite update."""
        await self.request("/machine/map", encode(self.map_request(omit_peers=True, **fields)))

    async def stream(self, *, zstd: bool = True, **fields: Any) -> MapReader:
        """Open the map stream."""
        request = self.map_request(stream=True, compress="zstd" if zstd else "", **fields)
        stream_id = self.send("/machine/map", encode(request))
        status = await self.part(stream_id)
        if status != 200:
            text = await self.part(stream_id)
            raise RequestFailed(int(status or 0), text.decode() if isinstance(text, bytes) else "")
        return MapReader(self, stream_id, zstd=zstd)

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and self._writer is not None and self._cipher is not None:
            self._writer.write(self._cipher.seal_stream(data))

    async def _receive(self) -> None:
        assert self._reader is not None
        assert self._cipher is not None
        early = EarlyPayloadReader()
        decided = False
        try:
            while data := await self._reader.read(65536):
                await self.paused.wait()
                plain = self._cipher.open_stream(data)
                if not decided:
                    found = early.feed(plain)
                    if found is None:
                        continue
                    decided, plain = True, found[1]
                self._events(plain)
                self._flush()
        finally:
            for answers in self._answers.values():
                answers.put_nowait(_END)

    def _events(self, data: bytes) -> None:
        for event in self._h2.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                status = next(value for name, value in event.headers or () if name in (":status", b":status"))
                self._answers[event.stream_id or 0].put_nowait(int(status))
            elif isinstance(event, h2.events.DataReceived):
                self._h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
                self._answers[event.stream_id or 0].put_nowait(event.data or b"")
            elif isinstance(event, (h2.events.WindowUpdated, h2.events.RemoteSettingsChanged)):
                self._send_bodies()
            elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
                self._bodies.pop(event.stream_id or 0, None)
                self._answers[event.stream_id or 0].put_nowait(_END)


class MapReader:
    """The messages of one map stream."""

    def __init__(self, machine: ControlMachine, stream_id: int, *, zstd: bool) -> None:
        self._machine = machine
        self.stream_id = stream_id
        self._frames = MapFrameReader(zstd)
        self._waiting: list[bytes] = []

    async def next(self) -> MapResponse | None:
        """The next message; None at the end of the stream."""
        while not self._waiting:
            piece = await self._machine.part(self.stream_id)
            if piece is None:
                return None
            assert isinstance(piece, bytes)
            self._waiting = self._frames.feed(piece)
        return decode(MapResponse, self._waiting.pop(0))
