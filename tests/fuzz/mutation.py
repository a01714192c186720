"""Makes new inputs from known ones: bytes changed, cut and joined; for texts, tokens put in each other's place.

Everything comes from one random generator, so that a run is repeated by its seed and its corpus.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from random import Random
from types import ModuleType

from perf.micro.native import load

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[-+.\w]+|\s+|.', re.DOTALL)
_ROUNDS = (1, 1, 1, 1, 2, 2, 3, 6)
_NUMBERS = (0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 255, 256, 1279, 1280, 32767, 32768, 65535, 65536)
_LARGE = (0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 63, (1 << 64) - 1)
_EDGES = sorted(
    {
        struct.pack(form, number)
        for number in (*_NUMBERS, *_LARGE)
        for form, bits in (("B", 8), (">H", 16), ("<H", 16), (">I", 32), ("<I", 32), (">Q", 64), ("<Q", 64))
        if number < 1 << bits
    }
)
_VALUES = [
    *(b"null", b"true", b"false", b"0", b"-1", b"5.0", b"1e3", b"1e999", b"-0", b"65536", b"4294967296"),
    *(b"9223372036854775808", b"123456789012345678901234567890", b"[]", b"{}", b"[null]", b'{"a":1}', b'""', b'"x"'),
    *(b'"\\u0000"', b'"\\ud800"', b'"\\n"', b'"0"', b'"*"', b'"100.64.0.1"', b'"10.0.0.0/8"', b'"fd7a::1/128"'),
    *(b'"1.2.3.4:5"', b'"[::1]:0"', b'"0.0.0.0/0"', b'"2024-02-29T00:00:00Z"', b'"9999-12-31T23:59:59.9Z"', b'"AQI="'),
]
_NOISE = [
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b'"',
    b"\\",
    b"//",
    b"/*",
    b"*/",
    b"\n",
    b" ",
    b"\0",
    b"\xff",
    b"\xc3\xa9",
]


@lru_cache(maxsize=1)
def _native() -> ModuleType:
    return load(Path(__file__).parents[1] / "native" / "mutate.pyx")


class Seed:
    """A known input, in pieces too when it is a text."""

    __slots__ = ("data", "pieces", "places")

    def __init__(self, data: bytes, *, text: bool) -> None:
        self.data = data
        self.pieces = _TOKEN.findall(data) if text else []
        self.places = [at for at, piece in enumerate(self.pieces) if piece[:1] == b'"' or piece[0] in b"-0123456789tfn"]


class Mutator:
    """Makes inputs of at most ``limit`` bytes from seeds that are added one after the other.

    ``next()`` is the next input; half of the time it is made of one of the newest seeds.
    """

    def __init__(self, random: Random, *, text: bool, limit: int, dictionary: Iterable[bytes] = ()) -> None:
        self.seeds: list[Seed] = []
        self._bits = random.getrandbits
        self._text = text
        self._limit = limit
        self._bytes = _native().ByteMutator(random.getrandbits(64), limit, [*dictionary, *_EDGES])
        self.next: Callable[[], bytes] = self._next_text if text else self._bytes.next
        self._strings = [value for value in _VALUES if value[:1] == b'"']
        self._known = set(_VALUES)
        self._values = list(_VALUES)

    def add(self, data: bytes) -> None:
        seed = Seed(data[: self._limit], text=self._text)
        self.seeds.append(seed)
        self._bytes.add(seed.data)
        for at in seed.places:
            piece = seed.pieces[at]
            if piece not in self._known and len(piece) < 100 and len(self._known) < 4000:
                self._known.add(piece)
                self._values.append(piece)
                if piece[:1] == b'"':
                    self._strings.append(piece)

    def _next_text(self) -> bytes:
        seeds, r = self.seeds, self._bits(64)
        count = len(seeds)
        at = (r >> 16) % count if r & 1 or count < 16 else count - 1 - (r >> 16) % 8
        seed = seeds[at]
        if seed.places and r & 6:
            return self._tokens(seed)
        changed: bytes = self._bytes.change(seed.data)
        return changed

    def _tokens(self, seed: Seed) -> bytes:
        bits, pieces, places = self._bits, list(seed.pieces), seed.places
        for _ in range(_ROUNDS[bits(3)]):
            r = bits(64)
            kind, value = r & 15, r >> 32
            if kind < 10:  # a value for a value, a name for a name
                at = places[(r >> 8 & 0xFFFFFF) % len(places)]
                if at >= len(pieces):
                    continue
                pool = self._strings if at + 1 < len(pieces) and pieces[at + 1] == b":" else self._values
                pieces[at] = pool[value % len(pool)]
                continue
            at = (r >> 8 & 0xFFFFFF) % (len(pieces) + 1)
            if kind == 10:
                del pieces[at : at + 1 + (value & 7)]
            elif kind == 11:
                pieces[at:at] = pieces[at : at + 1 + (value & 15)]
            elif kind == 12:
                pieces.insert(at, _NOISE[value % len(_NOISE)])
            elif kind == 13 and at < len(pieces):
                pieces[at] = _NOISE[value % len(_NOISE)]
            elif kind == 14:
                other = self.seeds[value % len(self.seeds)].pieces
                start = (r >> 48) % (len(other) + 1)
                pieces[at : at + 1 + (value & 3)] = other[start : start + 1 + (value >> 2 & 15)]
            elif kind == 15 and at < len(pieces):
                piece = bytearray(pieces[at])
                piece[(value & 255) % len(piece)] = value >> 8 & 255
                pieces[at] = bytes(piece)
        return b"".join(pieces)[: self._limit]
