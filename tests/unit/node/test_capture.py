"""The pcap stream of packets and disco frames."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Any

import pytest

from meshd.base.addr import AddrPort
from meshd.base.errors import MeshdError
from meshd.node.capture import HEADER, MAX_PENDING_BYTES, CaptureOutput, PacketCapture, no_tap
from meshd.testing.clock import FakeClock


class World:
    """A tap and a source of disco frames that are fed by hand."""

    def __init__(self) -> None:
        self.deliver: Callable[[bool, bytes], None] | None = None
        self.frame: Any = None
        self.taps = 0
        self.capture = PacketCapture(FakeClock(wall=100.5), self, self.open_tap)

    def open_tap(self, deliver: Callable[[bool, bytes], None]) -> World:
        self.deliver = deliver
        self.taps += 1
        return self

    def close(self) -> int:
        self.deliver = None
        return 0

    def watch_disco(self, told: Any) -> None:
        self.frame = told


def records(stream: bytes) -> list[tuple[int, int, bytes]]:
    """(path, original length, data) of each record of a stream without its header."""
    found, at = [], 0
    while at < len(stream):
        seconds, micros, kept, whole = struct.unpack_from("<IIII", stream, at)
        assert (seconds, micros) == (100, 500_000)
        path, snat, dnat = struct.unpack_from("<HBB", stream, at + 16)
        assert (snat, dnat) == (0, 0)
        found.append((path, whole - 4, stream[at + 20 : at + 16 + kept]))
        at += 16 + kept
    return found


async def read(output: CaptureOutput) -> bytes:
    return await asyncio.wait_for(anext(output), 5)


def test_capture_is_a_pcap_stream_with_directions() -> None:
    """DB-03: header 2.4, snap length 65535, link type 147; each record tells where its packet came from."""

    async def run() -> None:
        made = World()
        output = made.capture.output()
        assert await read(output) == HEADER == struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 147)
        assert made.deliver is not None
        made.deliver(True, b"one")
        made.deliver(False, b"two")
        made.deliver(True, bytes(70000))
        assert records(await read(output)) == [(0, 3, b"one"), (1, 3, b"two"), (0, 70000, bytes(65531))]

    asyncio.run(run())


def test_capture_has_disco_frames_as_they_were_opened() -> None:
    """DB-03: path 254; flag, relay client, port, address, message."""

    async def run() -> None:
        made = World()
        output = made.capture.output()
        await read(output)
        made.frame(AddrPort.parse("192.0.2.7:41641"), None, b"\x01\x00ping")
        made.frame(AddrPort.parse("127.3.3.40:9"), b"k" * 32, b"\x03\x00")
        direct, relayed = records(await read(output))
        ping = b"\x00" + bytes(32) + struct.pack("<HH", 41641, 4) + bytes([192, 0, 2, 7])
        assert direct[2] == ping + struct.pack("<H", 6) + b"\x01\x00ping"
        assert (direct[0], relayed[0]) == (254, 254)
        assert relayed[2][:33] == b"\x01" + b"k" * 32

    asyncio.run(run())


def test_capture_tap_stands_while_somebody_reads() -> None:
    """DB-03: one tap for many readers, gone with the last of them."""

    async def run() -> None:
        made = World()
        assert (made.deliver, made.frame) == (None, None)
        first, second = made.capture.output(), made.capture.output()
        assert made.taps == 1
        await first.aclose()
        assert made.deliver is not None
        made.deliver(True, b"x")
        await read(second)
        await second.aclose()
        await second.aclose()
        assert (made.deliver, made.frame) == (None, None)
        with pytest.raises(StopAsyncIteration):
            await read(second)
        made.capture.output()
        assert made.taps == 2

    asyncio.run(run())


def test_capture_slow_reader_misses_packets_and_memory_stays_bounded() -> None:
    """DB-03."""

    async def run() -> None:
        made = World()
        output = made.capture.output()
        assert made.deliver is not None
        for _ in range(200):
            made.deliver(True, bytes(60000))
        assert len(await read(output)) <= MAX_PENDING_BYTES
        assert output.left_out > 50
        made.deliver(True, b"again")
        assert records(await read(output)) == [(0, 5, b"again")]

    asyncio.run(run())


def test_capture_without_interface_says_so() -> None:
    """DB-03."""
    with pytest.raises(MeshdError, match="has none"):
        PacketCapture(FakeClock(), World(), no_tap).output()
