"""The C loops of `tests/native/fuzz.pyx`: what they start from, and their turns in a campaign.

They reach the C functions of `_fast` without the interpreter, some hundred thousand times a second. Built with
``MESHD_SANITIZE=1`` like the extensions, they run under AddressSanitizer; else a read beyond an input ends the process.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

from meshd._fast import segment
from meshd._fast.filter import Filter, FlowTable
from meshd.wire import control
from meshd.wire.control import codec
from perf.micro.native import load
from tests.fuzz.documents import map_messages
from tests.fuzz.hostile import Hostile
from tests.fuzz.state import State
from tests.unit.fast import offload, viapackets
from tests.unit.fast.packets import A4, A6, B4, B6, ip, tcp, udp

CHUNK = 100_000
"""Executions of one call: what a crash is narrowed down to, by the seed that was printed."""
PREFIX = "c_"


@lru_cache(maxsize=1)
def module() -> ModuleType:
    return load(Path(__file__).parents[1] / "native" / "fuzz.pyx")


def _packets() -> list[bytes]:
    hostile = Hostile(Random(1))
    made = [hostile.packet(inward=True) for _ in range(300)]
    made += [ip(6, tcp(80, 443, 0x10) + b"x" * 40, a, b) for a, b in ((A4, B4), (A6, B6))]
    made += [ip(17, udp(3, 53, b"y" * 30), a, b) for a, b in ((A4, B4), (A6, B6))]
    return [packet[:1400] for packet in made if packet]


def _super_packets() -> list[bytes]:
    out = []
    for version in (4, 6):
        for size, payload in ((100, 450), (536, 1200), (7, 60), (1000, 1500)):
            for make in (offload.super_tcp, offload.super_udp):
                header, packet = make(bytes(range(256)) * 6, size, version=version)
                out.append(header + packet[: len(packet) - 1536 + payload])
                out.append(b"\1\0" + header[2:] + packet[:200])
    return out + [bytes(10) + packet for packet in _packets()[:50]]


def _batches() -> list[bytes]:
    """Packets of one flow, each behind its length in eights of bytes."""
    out = []
    for version in (4, 6):
        for make in (offload.super_tcp, offload.super_udp):
            # Headers and payload together must be a multiple of 8 for the length byte.
            for size in (84, 100, 68, 124):
                header, packet = make(bytes(range(200)) * 2, size, version=version)
                pieces = segment.split(header, packet)
                batch = [bytes([len(p) // 8]) + p for p in pieces if len(p) % 8 == 0 and len(p) < 2048]
                if len(batch) > 1:
                    out += [b"".join(batch), b"".join(reversed(batch))]
    mixed = [bytes([len(p) // 8]) + p[: len(p) // 8 * 8] for p in _packets() if 8 <= len(p) < 300]
    return out + [b"".join(mixed[at : at + 6]) for at in range(0, len(mixed), 6)]


def _rules() -> tuple[list[Any], list[tuple[bytes, int]]]:
    def whole(size: int) -> tuple[bytes, bytes]:
        return bytes(size), b"\xff" * size

    rules: list[Any] = [
        ([(A4, A4), (A6, A6)], [(B4, B4, 80, 443), (B6, B6, 0, 65535)], (6, 17)),
        ([whole(4)], [(B4, B4, 53, 53), (bytes([10, 0, 0, 0]), bytes([10, 255, 255, 255]), 0, 65535)], (17, 132)),
        ([(bytes([100, 64, 0, 0]), bytes([100, 64, 255, 255]))], [(*whole(4), 0, 65535)], (47, 1)),
        ([whole(16)], [(*whole(16), 22, 22)], (6, 58)),
    ]
    return rules, [(B4, 32), (B6, 128), (bytes([10, 0, 0, 0]), 8)]


def _filters() -> dict[str, Any]:
    """A program in classes, and the same rules with so many others that it is scanned."""
    rules, local = _rules()

    def strange(number: int) -> bytes:
        return bytes([241, 0, number >> 8, number & 255])

    hosts = [strange(number) for number in range(600)]
    others: list[Any] = [([(h, h)], [(h, h, n % 60000, n % 60000)], (n % 200,)) for n, h in enumerate(hosts)]
    return {
        "program": Filter(rules, local),
        "twin": Filter([*rules, *others], local),
        "flows": FlowTable(seed=3),
    }


def _names() -> dict[str, Any]:
    return {"names": codec._shape(control.MapResponse).names}


def _short(count: int, size: int) -> Callable[[], list[bytes]]:
    return lambda: [Random(number).randbytes(size) for number in range(count)]


def _control_messages() -> list[bytes]:
    head = (20).to_bytes(8, "little") + (17).to_bytes(4, "little") + (104).to_bytes(4, "little")
    other = (28).to_bytes(8, "little") + bytes(4) + (8).to_bytes(4, "little") + bytes(16)
    return [head + b"\x00\x05\0\0" + bytes(4), other + head + b"\x00\x05\0\0", head[:16] + b"\x05\0" + bytes(6)]


def _via_packets() -> list[bytes]:
    """Flows that begin, their answers and errors about them, each behind a virtio-net header."""
    plain = [packet for packets in viapackets.conversations() for packet in packets]
    headers = [bytes(10), offload.vnet(1, start=20, offset=16), offload.vnet(1, start=20, offset=6)]
    headers += [offload.vnet(1, 1, 54, 300, 20, 16), offload.vnet(1, 5, 42, 300, 20, 6)]
    return [header + packet for packet in plain for header in headers if packet[0] >> 4 == 4 or header == headers[0]]


SEEDS: dict[str, Callable[[], list[bytes]]] = {
    "checksum": lambda: [bytes(0), b"\xff" * 63, b"\xff" * 200, *_short(20, 700)()],
    "coalesce": _batches,
    "control_message": _control_messages,
    "filter": _packets,
    "json_names": lambda: [*map_messages(), *map(bytes.lower, map_messages()), b"[" * 80],
    "masquerade": _packets,
    "packet": _packets,
    "prefix_map": _short(60, 200),
    "ranges": _short(60, 40),
    "segment": _super_packets,
    "via": _via_packets,
}
PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "filter": _filters,
    "json_names": _names,
    "via": lambda: {"via": viapackets.translator()},
}
NAMES = tuple(PREFIX + name for name in SEEDS)


class NativeCampaign:
    """One C loop and its count; see `tests.fuzz.campaign`."""

    corpus = 0
    """In place of the size of a corpus: of a hundred executions, so many came further than the first refusal."""

    def __init__(self, name: str, folder: Path, seed: int) -> None:
        self.state = State(name, folder)
        self._name = name.removeprefix(PREFIX)
        self._seed = seed
        self._parts: dict[str, Any] | None = None
        self._seeds: list[bytes] = []

    def turn(self, seconds: float, limit: int) -> None:
        state = self.state
        if self._parts is None:
            self._seeds = SEEDS[self._name]()
            self._parts = PARTS[self._name]() if self._name in PARTS else {}
        began = time.process_time()
        while state.executions < limit and time.process_time() - began < seconds:
            count = min(CHUNK, limit - state.executions)
            # Written down first: after a crash the chunk is known, and runs again with this seed.
            state.save({"chunk": state.executions, "seed": self._seed})
            deep, broken, data = module().run(
                self._name, self._seeds, count, self._seed + state.executions, **self._parts
            )
            state.executions += count
            self.corpus = min(deep * 100 // count, 100)
            if broken:
                state.found(f"promise {broken}", data, f"promise {broken} of {self._name}")
        state.seconds += time.process_time() - began
        state.memory_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        state.save()
