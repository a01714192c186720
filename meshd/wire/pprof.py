"""Profiles in the format that `go tool pprof`, speedscope and Grafana read: a protocol buffer, packed with gzip."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Frame(NamedTuple):
    """One place of a stack. ``line`` 0: unknown."""

    function: str
    file: str = ""
    line: int = 0


class Kind(NamedTuple):
    """What a value of a sample counts, and its unit: ("cpu", "nanoseconds"), ("inuse_space", "bytes")."""

    name: str
    unit: str


Stack = tuple[Frame, ...]
"""The innermost place first."""


def encode_profile(
    kinds: Sequence[Kind],
    samples: Iterable[tuple[Stack, Sequence[int]]],
    *,
    wall: float,
    duration_s: float = 0.0,
    period: tuple[Kind, int] | None = None,
) -> bytes:
    """A profile with a value of every kind for each sample. ``wall``: when it began, in unix seconds."""
    texts: dict[str, int] = {"": 0}
    places: dict[Frame, int] = {}
    functions: dict[tuple[str, str], int] = {}

    def text(value: str) -> int:
        return texts.setdefault(value, len(texts))

    def kind(value: Kind) -> bytes:
        return _number(1, text(value.name)) + _number(2, text(value.unit))

    body = [_bytes(1, kind(value)) for value in kinds]
    for stack, values in samples:
        ids = b"".join(_varint(places.setdefault(frame, len(places) + 1)) for frame in stack)
        body.append(_bytes(2, _bytes(1, ids) + _bytes(2, b"".join(_varint(value) for value in values))))
    for frame, number in places.items():
        function = functions.setdefault((frame.function, frame.file), len(functions) + 1)
        line = _number(1, function) + _number(2, frame.line)
        body.append(_bytes(4, _number(1, number) + _bytes(4, line)))
    for (name, file), number in functions.items():
        words = _number(2, text(name)) + _number(3, text(name)) + _number(4, text(file))
        body.append(_bytes(5, _number(1, number) + words))
    tail = _number(9, int(wall * 1e9)) + _number(10, int(duration_s * 1e9))
    if period is not None:
        tail += _bytes(11, kind(period[0])) + _number(12, period[1])
    table = b"".join(_bytes(6, value.encode("utf-8", "replace")) for value in texts)
    return gzip.compress(b"".join(body) + table + tail, compresslevel=6, mtime=0)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value) if value else b""


def _bytes(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data
