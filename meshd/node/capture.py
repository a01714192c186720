"""Packets and disco frames of this node as a pcap stream, for those who look for faults.

One tap, many readers. The packets are those of the tunnel interface as the host sees them: from the host before they
are sealed, from peers after they were opened and let through; a batch that the kernel handles as one packet is one
record. Each record begins with the direction and two address lengths that are always zero here, since this node
translates no addresses inside the tunnel.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from meshd.base.addr import AddrPort
from meshd.base.clock import Clock
from meshd.base.errors import MeshdError
from meshd.base.log import get_logger, kv
from meshd.base.ranges import DERP_MAGIC_IP

log = get_logger(__name__)

SNAP_LENGTH = 65535
LINK_TYPE = 147  # LINKTYPE_USER0: what a record begins with is ours to say
HEADER = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, SNAP_LENGTH, LINK_TYPE)
"""The file header of classic pcap, version 2.4."""

FROM_LOCAL, FROM_PEER, DISCO = 0, 1, 254
"""What a record is about."""

MAX_PENDING_BYTES = 8 << 20
"""That a reader may lag behind; what comes then is left out for that reader and counted."""

_RECORD = struct.Struct("<IIIIHBB")


class Tap(Protocol):
    """Delivers copies of packets until closed; ``close`` tells how many it missed."""

    def close(self) -> int: ...


OpenTap = Callable[[Callable[[bool, bytes], None]], Tap]
"""Starts a tap that calls with whether the host sent the packet, and the packet."""


class DiscoSource(Protocol):
    """Tells the disco frames that peers send: address, the relay client they came from, the opened message."""

    def watch_disco(self, told: Callable[[AddrPort, bytes | None, bytes], None] | None) -> None: ...


class CaptureOutput(AsyncIterator[bytes]):
    """One reader's pcap stream. It never ends by itself; ``aclose`` ends it."""

    def __init__(self, capture: PacketCapture) -> None:
        self._capture = capture
        self._pending = bytearray(HEADER)
        self._wake = asyncio.Event()
        self._wake.set()
        self._closed = False
        self.left_out = 0

    def put(self, record: bytes) -> None:
        if len(self._pending) + len(record) > MAX_PENDING_BYTES:
            self.left_out += 1
            return
        self._pending += record
        self._wake.set()

    def __aiter__(self) -> CaptureOutput:
        return self

    async def __anext__(self) -> bytes:
        await self._wake.wait()
        if self._closed:
            raise StopAsyncIteration
        self._wake.clear()
        data = bytes(self._pending)
        self._pending.clear()
        return data

    async def aclose(self) -> None:
        self._closed = True
        self._wake.set()
        self._capture.forget(self)


class PacketCapture:
    """``open_tap`` starts the tap with the first reader; it is closed with the last one."""

    def __init__(self, clock: Clock, disco: DiscoSource, open_tap: OpenTap) -> None:
        self._clock = clock
        self._disco = disco
        self._open_tap = open_tap
        self._tap: Tap | None = None
        self._outputs: set[CaptureOutput] = set()

    def output(self) -> CaptureOutput:
        """A pcap stream from now on. Raises MeshdError when nothing can be captured."""
        if self._tap is None:
            self._tap = self._open_tap(self._packet)
            self._disco.watch_disco(self._frame)
            log.info("capture_started")
        made = CaptureOutput(self)
        self._outputs.add(made)
        return made

    def forget(self, output: CaptureOutput) -> None:
        """A reader has left."""
        self._outputs.discard(output)
        if self._outputs or self._tap is None:
            return
        tap, self._tap = self._tap, None
        self._disco.watch_disco(None)
        log.info("capture_ended", extra=kv(missed=tap.close(), left_out=output.left_out))

    def _packet(self, outgoing: bool, data: bytes) -> None:
        self._write(FROM_LOCAL if outgoing else FROM_PEER, data)

    def _frame(self, source: AddrPort, relayed_from: bytes | None, message: bytes) -> None:
        address = source.ip.packed
        relayed = source.ip == DERP_MAGIC_IP
        self._write(
            DISCO,
            struct.pack("<B32sHH", relayed, relayed_from or bytes(32), source.port, len(address))
            + address
            + struct.pack("<H", len(message))
            + message,
        )

    def _write(self, path: int, data: bytes) -> None:
        kept = data[: SNAP_LENGTH - 4]
        wall = self._clock.wall()
        seconds = int(wall)
        micros = int((wall - seconds) * 1e6)
        record = _RECORD.pack(seconds, micros, len(kept) + 4, len(data) + 4, path, 0, 0) + kept
        for output in tuple(self._outputs):
            output.put(record)


def no_tap(deliver: Callable[[bool, bytes], None]) -> Tap:
    """For nodes without a tunnel interface."""
    del deliver
    raise MeshdError("packets can be captured on a tunnel interface only; this node has none", code="unsupported")
