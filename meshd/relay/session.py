"""One connection to the relay, from the server key to the last packet."""

from __future__ import annotations

import asyncio
import random
from itertools import islice
from typing import TYPE_CHECKING

from meshd.base.keys import NodePublic
from meshd.base.log import get_logger, kv
from meshd.relay.outbox import Outbox
from meshd.wire.derp import (
    HEADER_SIZE,
    KEY_SIZE,
    MAX_CLIENT_INFO,
    MAX_FRAME,
    MAX_PACKET,
    FrameType,
    PeerGoneReason,
    encode_keep_alive,
    encode_peer_gone,
    encode_pong,
    encode_server_key,
)
from meshd.wire.disco import MAGIC as DISCO_MAGIC

if TYPE_CHECKING:
    from meshd.relay.server import RelayServer

log = get_logger(__name__)

# Plain integers: an IntEnum comparison per packet would show.
CLIENT_INFO = int(FrameType.CLIENT_INFO)
SEND_PACKET = int(FrameType.SEND_PACKET)
PING = int(FrameType.PING)
PONG = int(FrameType.PONG)
MESH_ONLY = (int(FrameType.WATCH_CONNS), int(FrameType.CLOSE_PEER), int(FrameType.FORWARD_PACKET))
RECV_PACKET_BYTE = bytes((FrameType.RECV_PACKET,))

MAX_OTHER_BYTES = MAX_FRAME
"""Largest frame of a kind that is only skipped."""
MAX_PING_BYTES = 1000
MAX_SENT_TO = 4096
"""Receivers remembered per client for the notice that it went away."""

HANDSHAKE_TIMEOUT_S = 10.0
KEEP_ALIVE_S = 60.0
KEEP_ALIVE_JITTER_S = 5.0
WRITE_TIMEOUT_S = 2.0
"""A connection that takes no byte for this long is ended."""
WRITE_BUFFER_BYTES = 256 * 1024
GONE_PER_SECOND = 1.0
GONE_BURST = 3.0


class RelaySession:
    """The server side of one client; a `Stream` of the HTTP front."""

    __slots__ = (
        "_awake",
        "_dirty",
        "_gone_at",
        "_gone_tokens",
        "_keepalive",
        "_loop",
        "_outbox",
        "_paused",
        "_pong_waits",
        "_rate_at",
        "_rate_debt",
        "_rest",
        "_server",
        "_skip",
        "_stuck",
        "_task",
        "_timer",
        "_transport",
        "_written_left",
        "closed",
        "key",
        "sent_to",
        "source_ip",
    )

    def __init__(self, server: RelayServer, transport: asyncio.Transport, source_ip: str) -> None:
        self._server = server
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._outbox = Outbox()
        self._rest = bytearray()
        self._skip = 0
        self._paused = False
        self._awake = False
        self._pong_waits = False
        self._timer: asyncio.TimerHandle | None = None
        self._stuck: asyncio.TimerHandle | None = None
        self._keepalive: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._dirty: list[RelaySession] = []
        self._gone_tokens = GONE_BURST
        self._gone_at = 0.0
        self._rate_debt = 0.0
        self._rate_at = 0.0
        self._written_left = 0
        self.closed = False
        self.key = b""
        self.source_ip = source_ip
        self.sent_to: set[bytes] = set()

    def start(self) -> None:
        """Send the server key and wait for the client's."""
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self._transport.write(encode_server_key(self._server.public.raw))
        self._timer = self._loop.call_later(HANDSHAKE_TIMEOUT_S, self._handshake_timed_out)

    # --- bytes from the client ---------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self.closed:
            return
        if self._server.client_rate_bytes and self._awake:
            self._account(len(data))
        if self._skip:
            taken = min(self._skip, len(data))
            self._skip -= taken
            data = data[taken:]
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed():
                return
            data = bytes(self._rest)
            self._rest.clear()
        if self.key and self._awake:
            used = self._relay(data)
        else:
            used = self._greet(data)
        if self._over():
            return
        if used < len(data):
            self._rest += data[used:] if used else data

    def _needed(self) -> int:
        """Bytes that must be there before looking at the buffer again is worth it."""
        if not self._awake and self.key:
            return MAX_CLIENT_INFO
        if len(self._rest) < HEADER_SIZE:
            return HEADER_SIZE
        return HEADER_SIZE + int.from_bytes(self._rest[1:5], "big")

    def _greet(self, data: bytes) -> int:
        """The part before the client is known: exactly one ClientInfo frame."""
        if self.key:
            if len(data) > MAX_CLIENT_INFO:
                self._fail("too much data before admission")
            return 0
        if len(data) < HEADER_SIZE:
            return 0
        length = int.from_bytes(data[1:5], "big")
        if data[0] != CLIENT_INFO or not KEY_SIZE < length <= MAX_CLIENT_INFO:
            self._fail("the first frame is not a client info")
            return 0
        end = HEADER_SIZE + length
        if len(data) < end:
            return 0
        try:
            key = self._server.open_client_info(data[HEADER_SIZE:end])
        except ValueError as error:
            self._fail(str(error))
            return 0
        self.key = key
        self._task = self._loop.create_task(self._admit())
        return end

    async def _admit(self) -> None:
        key = NodePublic(self.key)
        admitted = await self._server.admit(key, self.source_ip)
        self._task = None
        if self.closed:
            return
        if not admitted:
            self._server.counters.refused += 1
            log.info("relay_client_refused", extra=kv(peer=key, addr=self.source_ip))
            self.abort()
            return
        self._disarm()
        self._awake = True
        self._write(self._server.seal_server_info(self.key))
        self._server.register(self)
        self._arm_keepalive()
        if self._rest:
            waiting = bytes(self._rest)
            self._rest.clear()
            self.data_received(waiting)

    def _relay(self, data: bytes) -> int:
        """Split a block into frames and move the packets; returns the bytes used."""
        server = self._server
        active = server.active
        dirty = self._dirty
        own_key = self.key
        size = len(data)
        at = 0
        packets = 0
        dropped = 0
        last_key = b""
        last: RelaySession | None = None
        while size - at >= HEADER_SIZE:
            kind = data[at]
            length = int.from_bytes(data[at + 1 : at + 5], "big")
            end = at + HEADER_SIZE + length
            if kind == SEND_PACKET:
                if not KEY_SIZE < length <= KEY_SIZE + MAX_PACKET:
                    self._fail("a packet has an impossible size")
                    break
                if end > size:
                    break
                key = data[at + 5 : at + 37]
                if key != last_key:
                    last_key = key
                    last = active.get(key)
                    if last is not None and len(self.sent_to) < MAX_SENT_TO:
                        self.sent_to.add(key)
                packets += 1
                is_disco = data.startswith(DISCO_MAGIC, at + 37)
                if last is None:
                    server.counters.dropped_unknown_destination += 1
                    if is_disco:
                        self._tell_not_here(key)
                else:
                    if not last._outbox:
                        dirty.append(last)
                    relayed = b"".join((RECV_PACKET_BYTE, data[at + 1 : at + 5], own_key, data[at + 37 : end]))
                    dropped += last._outbox.push_disco(relayed) if is_disco else last._outbox.push_data(relayed)
            elif end > size:
                if length > MAX_OTHER_BYTES:
                    self._fail("a frame is too large")
                elif kind not in (PING, PONG):
                    self._skip = end - size
                    at = size
                elif length > MAX_PING_BYTES:
                    self._fail("a ping has an impossible size")
                break
            elif not self._other(kind, data, at + HEADER_SIZE, length):
                break
            at = end
        counters = server.counters
        counters.packets_received += packets
        counters.bytes_received += at
        counters.dropped_queue_full += dropped
        if packets and active.get(own_key) is not self and not self.closed:
            server.activate(self)
        for session in dirty:
            session._flush()
        dirty.clear()
        return at

    def _other(self, kind: int, data: bytes, at: int, length: int) -> bool:
        """A frame that is not a packet; False when the connection was ended for it."""
        if kind == PING:
            if not 8 <= length <= MAX_PING_BYTES:
                self._fail("a ping has an impossible size")
                return False
            if not self._pong_waits:
                self._pong_waits = True
                self._write(encode_pong(data[at : at + 8]))
        elif kind in MESH_ONLY:
            self._fail("the client is not a relay of this mesh")
            return False
        return True

    # --- frames to the client ----------------------------------------------------------------------------

    def peer_gone(self, key: bytes, *, disconnected: bool) -> None:
        """Tell the client that `key` is not reachable through this relay."""
        reason = PeerGoneReason.DISCONNECTED if disconnected else PeerGoneReason.NOT_HERE
        self._write(encode_peer_gone(key, reason))

    def inherit(self, sent_to: set[bytes]) -> None:
        """Also remember those that an older connection of the key had sent to."""
        self.sent_to.update(islice(sent_to, max(0, MAX_SENT_TO - len(self.sent_to))))

    def _tell_not_here(self, key: bytes) -> None:
        now = self._loop.time()
        self._gone_tokens = min(GONE_BURST, self._gone_tokens + (now - self._gone_at) * GONE_PER_SECOND)
        self._gone_at = now
        if self._gone_tokens >= 1:
            self._gone_tokens -= 1
            self.peer_gone(key, disconnected=False)

    def _write(self, block: bytes) -> None:
        if self.closed:
            return
        if self._paused or self._outbox:
            self._outbox.push_control(block)
        else:
            self._pong_waits = False
            self._transport.write(block)

    def _flush(self) -> None:
        if self._paused or self.closed or not self._outbox:
            return
        counters = self._server.counters
        counters.packets_sent += self._outbox.packets
        block = self._outbox.take()
        self._pong_waits = False
        counters.bytes_sent += len(block)
        self._transport.write(block)

    def pause_writing(self) -> None:
        self._paused = True
        self._disarm_stuck()
        self._written_left = self._transport.get_write_buffer_size()
        self._stuck = self._loop.call_later(WRITE_TIMEOUT_S, self._check_progress)

    def resume_writing(self) -> None:
        self._paused = False
        self._disarm_stuck()
        self._flush()

    def _disarm_stuck(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None

    def _check_progress(self) -> None:
        left = self._transport.get_write_buffer_size()
        if left >= self._written_left:
            self._server.counters.write_timeouts += 1
            log.info("relay_client_stuck", extra=kv(peer=NodePublic(self.key) if self.key else "", bytes=left))
            self.abort()
            return
        self._written_left = left
        self._stuck = self._loop.call_later(WRITE_TIMEOUT_S, self._check_progress)

    def _arm_keepalive(self) -> None:
        delay_s = KEEP_ALIVE_S + random.uniform(0, KEEP_ALIVE_JITTER_S)
        self._keepalive = self._loop.call_later(delay_s, self._send_keepalive)

    def _send_keepalive(self) -> None:
        self._write(encode_keep_alive())
        self._arm_keepalive()

    # --- limits and the end ------------------------------------------------------------------------------

    def _account(self, received: int) -> None:
        """Pause reading for as long as the client's bytes exceed its rate."""
        now = self._loop.time()
        rate = self._server.client_rate_bytes
        self._rate_debt = max(0.0, self._rate_debt - (now - self._rate_at) * rate) + received
        self._rate_at = now
        excess = self._rate_debt - rate
        if excess > 0:
            self._server.counters.throttled += 1
            self._transport.pause_reading()
            self._loop.call_later(excess / rate, self._resume_reading)

    def _resume_reading(self) -> None:
        if not self.closed:
            self._transport.resume_reading()

    def _handshake_timed_out(self) -> None:
        self._server.counters.handshake_timeouts += 1
        self.abort()

    def _fail(self, reason: str) -> None:
        self._server.counters.protocol_errors += 1
        log.info("relay_protocol_error", extra=kv(addr=self.source_ip, reason=reason))
        self.abort()

    def _over(self) -> bool:
        return self.closed

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def abort(self) -> None:
        """End the connection at once."""
        self._end()
        self._transport.abort()

    def connection_lost(self) -> None:
        self._end()

    def _end(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._disarm()
        self._disarm_stuck()
        if self._keepalive is not None:
            self._keepalive.cancel()
        if self._task is not None and not self._task.done():
            self._task.cancel()
        if self._awake:
            self._server.unregister(self)
