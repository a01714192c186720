"""Profiles for pprof, read back by a few lines that know protocol buffers."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

from meshd.wire.pprof import Frame, Kind, encode_profile


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            return value, at


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        value, at = _varint(data, at)
        if tag & 7 == 2:
            yield tag >> 3, data[at : at + value]
            at += value
        else:
            assert tag & 7 == 0
            yield tag >> 3, value


def numbers(data: bytes) -> list[int]:
    found, at = [], 0
    while at < len(data):
        value, at = _varint(data, at)
        found.append(value)
    return found


def read(data: bytes) -> dict[str, object]:
    """Kinds, and samples as (function, file, line) with their values."""
    profile = list(fields(gzip.decompress(data)))
    texts = [value.decode() for field, value in profile if field == 6]

    def named(*wanted: int) -> dict[int, tuple]:
        return {dict(fields(v))[1]: dict(fields(v)) for f, v in profile if f in wanted}

    functions, places = named(5), named(4)

    def place(number: int) -> tuple[str, str, int]:
        line = dict(fields(places[number][4]))
        function = functions[line[1]]
        return texts[function[2]], texts[function.get(4, 0)], line.get(2, 0)

    samples = {}
    for field, value in profile:
        if field == 2:
            sample = dict(fields(value))
            samples[tuple(place(n) for n in numbers(sample[1]))] = numbers(sample[2])
    kinds = [tuple(texts[dict(fields(v))[n]] for n in (1, 2)) for f, v in profile if f == 1]
    rest = {field: value for field, value in profile if field in (9, 10, 12)}
    return {"texts": texts, "kinds": kinds, "samples": samples, "rest": rest}


def test_profile_reads_back() -> None:
    a, b = Frame("f", "x.py", 3), Frame("g", "x.py", 300)
    cpu = Kind("cpu", "nanoseconds")
    data = encode_profile(
        (Kind("samples", "count"), cpu),
        [((a, b), (1, 10_000_000)), ((b,), (2, 5))],
        wall=1.5,
        duration_s=2.0,
        period=(cpu, 10_000_000),
    )
    got = read(data)
    assert got["texts"][0] == ""
    assert got["kinds"] == [("samples", "count"), ("cpu", "nanoseconds")]
    assert got["samples"] == {
        (("f", "x.py", 3), ("g", "x.py", 300)): [1, 10_000_000],
        (("g", "x.py", 300),): [2, 5],
    }
    assert got["rest"] == {9: 1_500_000_000, 10: 2_000_000_000, 12: 10_000_000}


def test_profile_without_samples_is_one() -> None:
    got = read(encode_profile((Kind("inuse_space", "bytes"),), [], wall=0.0))
    assert (got["kinds"], got["samples"]) == ([("inuse_space", "bytes")], {})
