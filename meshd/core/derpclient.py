"""The client side of one relay connection (DERP protocol), without I/O.

Feed plaintext with ``receive_data``, send what ``data_to_send`` returns, run the effects of ``drain()``.
A connection that failed stays failed; dial again with a new machine.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from enum import Enum
from typing import NamedTuple

from meshd._fast.derpframes import BUNDLE_TYPE, MAX_FRAME, RelayedPackets, split_frames
from meshd.base.crypto import box_shared
from meshd.base.errors import WireError
from meshd.base.keys import NodePrivate, NodePublic
from meshd.core.tokenbucket import TokenBucket
from meshd.wire import derp
from meshd.wire.derpinfo import ClientInfo

SETUP_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 120.0  # two missed keepalives
PROBE_TIMEOUT_S = 3.0
MAX_HEALTH_BYTES = 512
MAX_HTTP_HEAD_BYTES = 16 << 10

_FRAME = struct.Struct(">BI")
_KEY_BYTES = 32
_BUNDLE = struct.Struct(">BBH")


class State(Enum):
    """How far the connection is."""

    UPGRADING = "upgrading"  # waiting for the HTTP answer
    KEY_WAIT = "key_wait"  # waiting for the server's key
    RUNNING = "running"
    FAILED = "failed"


class Ready(NamedTuple):
    """Packets may be sent from now on."""


class PacketsReceived(NamedTuple):
    """Packets in arrival order. ``transport`` are WireGuard data, ``other`` everything else with its sender.

    ``sources`` are the node keys heard: each can be reached through this relay.
    """

    transport: RelayedPackets
    other: list[tuple[bytes, bytes]]
    sources: set[bytes]


class PeerGone(NamedTuple):
    """A peer is not (any more) connected to this relay. Reason 0: left, 1: was never there."""

    key: bytes
    reason: int


class HealthChanged(NamedTuple):
    """The relay reports a problem of ours; empty when it is over."""

    text: str


class Restarting(NamedTuple):
    """The relay will restart: reconnect after the first and try for the second number of seconds."""

    reconnect_in_s: float
    try_for_s: float


class ProbeAnswered(NamedTuple):
    """The relay answered a ping after this many seconds."""

    latency_s: float


class Failed(NamedTuple):
    """The connection is of no use any more."""

    reason: str


Effect = Ready | PacketsReceived | PeerGone | HealthChanged | Restarting | ProbeAnswered | Failed


class DerpClient:
    """One connection to one relay. With ``server_key`` (from the TLS chain) it starts without a round trip."""

    def __init__(
        self,
        private: NodePrivate,
        *,
        host: str,
        random: Callable[[int], bytes],
        server_key: bytes | None = None,
        preferred: bool = False,
        ideal_node: str = "",
    ) -> None:
        self.state = State.UPGRADING
        self.last_received = 0.0
        self.dropped_by_rate = 0
        self.answers_pings = True
        """Off while the relay does not read: its answers would pile up here."""
        self._private = private
        self._host = host
        self._random = random
        self._server_key = server_key
        self._preferred = preferred
        self._ideal_node = ideal_node
        self._public = private.public().raw
        self._shared = b""
        self._pieces: list[bytes] = []  # of a header or frame that is not whole yet
        self._held = 0
        self._needed = 0  # so long it has to become before it is worth a look
        self._to_send: list[bytes] = []
        self._outbox: list[Effect] = []
        self._started = 0.0
        self._probe: tuple[bytes, float] | None = None
        self._bucket: TokenBucket | None = None

    def start(self, now: float) -> None:
        """Queue the request, and in a fast start everything that follows it."""
        self._started = self.last_received = now
        head = [f"GET /derp HTTP/1.1\r\nHost: {self._host}\r\nConnection: Upgrade\r\nUpgrade: DERP\r\n"]
        if self._ideal_node and self._ideal_node.isprintable():  # control made the name up
            head.append(f"Ideal-Node: {self._ideal_node}\r\n")
        if self._server_key is not None:
            head.append("Derp-Fast-Start: 1\r\n")
        self._to_send.append(("".join(head) + "\r\n").encode("ascii", "replace"))
        if self._server_key is not None:
            try:
                self._introduce(self._server_key)
            except WireError as error:
                self._fail(str(error))

    def drain(self) -> list[Effect]:
        """The effects since the last call, in order."""
        effects = self._outbox
        if effects:
            self._outbox = []
        return effects

    def data_to_send(self) -> bytes:
        """Plaintext to write, possibly empty."""
        if not self._to_send:
            return b""
        data = self._to_send[0] if len(self._to_send) == 1 else b"".join(self._to_send)
        self._to_send.clear()
        return data

    def next_timer(self) -> float | None:
        """When ``handle_timer`` wants to be called."""
        if self.state is State.FAILED:
            return None
        if self.state is not State.RUNNING:
            return self._started + SETUP_TIMEOUT_S
        deadline = self.last_received + READ_TIMEOUT_S
        if self._probe is not None:
            deadline = min(deadline, self._probe[1] + PROBE_TIMEOUT_S)
        return deadline

    def handle_timer(self, now: float) -> None:
        """Give up on a relay that does not speak."""
        deadline = self.next_timer()
        if deadline is None or now < deadline:
            return
        if self.state is not State.RUNNING:
            self._fail("the relay did not finish the set-up within 10 s")
        elif self._probe is not None and now >= self._probe[1] + PROBE_TIMEOUT_S:
            self._fail("the relay did not answer a ping within 3 s")
        else:
            self._fail("nothing heard from the relay for 120 s")

    # -- sending -------------------------------------------------------------------------------------

    def send_packet(self, destination: bytes, packet: bytes, now: float) -> bool:
        """Queue one packet to a 32-byte node key; False when it was dropped."""
        if self.state is not State.RUNNING or len(packet) > derp.MAX_PACKET:
            return False
        size = _FRAME.size + _KEY_BYTES + len(packet)
        if self._bucket is not None and not self._bucket.take(size, now):
            self.dropped_by_rate += 1
            return False
        self._to_send.append(
            _FRAME.pack(int(derp.FrameType.SEND_PACKET), _KEY_BYTES + len(packet)) + destination + packet
        )
        return True

    def send_frames(self, frames: bytes, now: float) -> None:
        """Queue ready SendPacket frames; those beyond the server's rate are dropped."""
        if self.state is not State.RUNNING:
            return
        if self._bucket is None:
            self._to_send.append(frames)
            return
        for frame in _each(frames):
            if self._bucket.take(len(frame), now):
                self._to_send.append(frame)
            else:
                self._send_unbundled(frame, self._bucket, now)

    def _send_unbundled(self, frame: bytes, bucket: TokenBucket, now: float) -> None:
        """Of a frame that is too much at once, send what the server's rate allows."""
        for part in _unbundled(frame):
            if part is not frame and bucket.take(len(part), now):
                self._to_send.append(part)
            else:
                self.dropped_by_rate += 1

    def note_preferred(self, preferred: bool) -> None:
        """Tell the relay whether it is our home (it only counts that)."""
        if preferred == self._preferred:
            return
        self._preferred = preferred
        if self.state is State.RUNNING:
            self._to_send.append(derp.encode_note_preferred(preferred))

    def probe(self, now: float) -> None:
        """Ask whether the relay is still there; no answer within 3 s fails the connection."""
        if self.state is State.RUNNING and self._probe is None:
            data = self._random(derp.PING_SIZE)
            self._probe = (data, now)
            self._to_send.append(derp.encode_ping(data))

    # -- receiving -----------------------------------------------------------------------------------

    def receive_data(self, data: bytes, now: float) -> None:
        """Plaintext from the relay."""
        if self.state is State.FAILED:
            return
        self.last_received = now
        if self._pieces:
            self._pieces.append(data)
            self._held += len(data)
            if self._held < self._needed:
                return
            data = b"".join(self._pieces)
            self._keep(b"", 0)
        try:
            if self.state is State.UPGRADING:
                rest = self._http_answer(data)
                if rest is None:
                    return
                data = rest
            self._frames(data, now)
        except WireError as error:
            self._fail(f"the relay broke the protocol: {error}")

    def _keep(self, rest: bytes, needed: int) -> None:
        self._pieces = [rest] if rest else []
        self._held, self._needed = len(rest), needed

    def _http_answer(self, data: bytes) -> bytes | None:
        end = data.find(b"\r\n\r\n")
        if end < 0:
            if len(data) > MAX_HTTP_HEAD_BYTES:
                raise WireError("endless HTTP header")
            self._keep(data, 0)
            return None
        status = data[: data.find(b"\r\n")].split(b" ", 2)
        if len(status) < 2 or not status[0].startswith(b"HTTP/1."):
            raise WireError("not an HTTP answer")
        if status[1] != b"101":
            self._fail(f"the relay refused: HTTP {b' '.join(status[1:]).decode('ascii', 'replace')}")
            return None
        self.state = State.KEY_WAIT
        return data[end + 4 :]

    def _frames(self, data: bytes, now: float) -> None:
        found = split_frames(data)
        left: list[bytes] = []  # of peers that sent something first
        for kind, body in found.control:
            if kind == derp.FrameType.PEER_GONE and body[:_KEY_BYTES] in found.sources and _left_last(data, body):
                left.append(body)
            else:
                self._frame(kind, body, now)
            if self.state is State.FAILED:
                return
        if found.sources:
            self._outbox.append(PacketsReceived(found.transport, found.others, found.sources))
        for body in left:
            self._frame(derp.FrameType.PEER_GONE, body, now)
        if found.needed > derp.HEADER_SIZE + MAX_FRAME:
            raise WireError(f"a frame of {found.needed - derp.HEADER_SIZE} bytes")
        self._keep(data[found.whole :], found.needed)

    def _frame(self, kind: int, body: bytes, now: float) -> None:
        if kind == derp.FrameType.SERVER_KEY:
            self._server_key_received(derp.decode_server_key(body))
        elif self.state is not State.RUNNING:
            raise WireError(f"frame type {kind} before the server's key")
        elif kind == derp.FrameType.SERVER_INFO:
            self._server_info(body, now)
        elif kind == derp.FrameType.PING:
            if len(body) == derp.PING_SIZE and self.answers_pings:
                self._to_send.append(derp.encode_pong(body))
        elif kind == derp.FrameType.PONG:
            if self._probe is not None and body == self._probe[0]:
                self._outbox.append(ProbeAnswered(now - self._probe[1]))
                self._probe = None
        elif kind == derp.FrameType.PEER_GONE:
            gone = derp.decode_peer_gone(body)
            self._outbox.append(PeerGone(gone.peer, gone.reason))
        elif kind == derp.FrameType.HEALTH:
            self._outbox.append(HealthChanged(derp.decode_health(body[:MAX_HEALTH_BYTES])))
        elif kind == derp.FrameType.RESTARTING:
            restart = derp.decode_restarting(body)
            self._outbox.append(Restarting(restart.reconnect_in_ms / 1000, restart.try_for_ms / 1000))

    def _server_key_received(self, key: bytes) -> None:
        if self._server_key is not None:
            if key != self._server_key:
                raise WireError("the server's key is not the one in its certificate")
            return
        self._server_key = key
        self._introduce(key)

    def _introduce(self, server_key: bytes) -> None:
        try:
            self._shared = box_shared(self._private.raw, server_key)
        except ValueError:
            raise WireError("the server's key is a low-order point") from None
        info = ClientInfo(version=derp.PROTOCOL_VERSION, can_ack_pings=True)
        self._to_send.append(derp.encode_client_info(self._public, self._shared, self._random(24), info))
        if self._preferred:
            self._to_send.append(derp.encode_note_preferred(True))
        self.state = State.RUNNING
        self._outbox.append(Ready())

    def _server_info(self, body: bytes, now: float) -> None:
        info = derp.decode_server_info(self._shared, body)
        if info.token_bucket_bytes_per_second > 0:
            self._bucket = TokenBucket(info.token_bucket_bytes_per_second, info.token_bucket_bytes_burst, now)

    def _fail(self, reason: str) -> None:
        if self.state is not State.FAILED:
            self.state = State.FAILED
            self._keep(b"", 0)
            self._to_send.clear()
            self._outbox.append(Failed(reason))

    def close(self) -> None:
        """The connection went away underneath."""
        self._fail("the connection was closed")

    @property
    def server_key(self) -> NodePublic | None:
        """The relay's key once known."""
        return NodePublic(self._server_key) if self._server_key is not None else None


def _each(frames: bytes) -> Iterator[bytes]:
    offset = 0
    while offset + _FRAME.size <= len(frames):
        _, length = _FRAME.unpack_from(frames, offset)
        end = offset + _FRAME.size + length
        yield frames[offset:end]
        offset = end


def _left_last(data: bytes, gone: bytes) -> bool:
    """Whether the last that whole frames tell of a peer is that it left, and not another packet of it."""
    key, left = gone[:_KEY_BYTES], False
    for frame in _each(data):
        if frame[_FRAME.size : _FRAME.size + _KEY_BYTES] == key:
            left = frame[0] == derp.FrameType.PEER_GONE
    return left


def _unbundled(frame: bytes) -> list[bytes]:
    """A frame for each message of a bundle; any other frame as it is."""
    start = _FRAME.size + _KEY_BYTES + _BUNDLE.size
    if len(frame) <= start:
        return [frame]
    kind, zero, segment = _BUNDLE.unpack_from(frame, start - _BUNDLE.size)
    if kind != BUNDLE_TYPE or zero or not segment:
        return [frame]
    destination = frame[_FRAME.size : start - _BUNDLE.size]
    return [
        derp.encode_send_packet(destination, frame[offset : offset + segment])
        for offset in range(start, len(frame), segment)
    ]
