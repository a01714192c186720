"""JSON as LocalAPI clients read it: Go's encoder's line feed at the end, tabs where a person may look."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import islice
from typing import Any

import orjson

from meshd.io.http.h1message import HttpError, Response

SLICE = 256  # peers of a status that are written in one go: a few milliseconds
PIECE_BYTES = 1 << 16  # at least, that something large is encoded and sent in


def compact(value: object) -> bytes:
    """One line."""
    return orjson.dumps(value) + b"\n"


async def compact_in_turns(value: object) -> list[bytes]:
    """`compact` in pieces. Long lists and objects, down to the third level, are encoded in slices."""
    done: list[bytes] = []
    fresh: list[bytes] = []
    size = 0
    for piece in _pieces(value, 3):
        fresh.append(piece)
        size += len(piece)
        if size >= PIECE_BYTES:
            done.append(b"".join(fresh))
            fresh, size = [], 0
            await asyncio.sleep(0)
    return [*done, b"".join(fresh) + b"\n"]


def _pieces(value: object, depth: int) -> Iterator[bytes]:
    if isinstance(value, list) and len(value) > SLICE:
        for start in range(0, len(value), SLICE):
            yield (b"," if start else b"[") + orjson.dumps(value[start : start + SLICE])[1:-1]
        yield b"]"
    elif isinstance(value, dict) and len(value) > SLICE:
        members, begun = iter(value.items()), b"{"
        while some := dict(islice(members, SLICE)):
            yield begun + orjson.dumps(some)[1:-1]
            begun = b","
        yield b"}"
    elif isinstance(value, dict) and value and depth > 1:
        begun = b"{"
        for name, member in value.items():
            yield begun + orjson.dumps(name) + b":"
            yield from _pieces(member, depth - 1)
            begun = b","
        yield b"}"
    else:
        yield orjson.dumps(value)


async def response_in_turns(value: object) -> Response:
    """`json_response` of something that may be large."""
    headers = [("Content-Type", "application/json")]
    pieces = await compact_in_turns(value)
    return Response(200, headers, pieces[0]) if len(pieces) == 1 else Response(200, headers, _each(pieces), ends=True)


async def _each(pieces: list[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def indented(value: object) -> bytes:
    """Tab-indented. Fast for the status of ten thousand peers: the encoder indents, bytes.replace swaps."""
    data = orjson.dumps(value, option=orjson.OPT_INDENT_2) + b"\n"
    depth = 0
    while b"\n" + b"  " * (depth + 1) in data:
        depth += 1
    for level in range(depth, 0, -1):  # deepest first: a shallow pattern is the beginning of a deep line
        data = data.replace(b"\n" + b"  " * level, b"\n" + b"\t" * level)
    return data


def json_response(value: object, *, tabs: bool = False, status: int = 200) -> Response:
    """A JSON answer."""
    body = indented(value) if tabs else compact(value)
    return Response(status, [("Content-Type", "application/json")], body)


def status_response(status: object, peers: Iterator[str]) -> Response:
    """A status whose ``Peer`` is empty, with these members in it; each is text at its depth.

    With thousands of peers the answer is made while it is sent, so that everything else has its turn.
    """
    text = indented(status)
    headers = [("Content-Type", "application/json")]
    first = list(islice(peers, SLICE))
    if not first:
        return Response(200, headers, text)
    before, _, after = text.partition(b'\n\t"Peer": {}')  # it is there once: no string holds a line feed
    begun = b"".join((before, b'\n\t"Peer": {\n', ",\n".join(first).encode()))
    end = b"\n\t}" + after
    return Response(200, headers, begun + end if len(first) < SLICE else _in_slices(begun, peers, end), ends=True)


async def _in_slices(begun: bytes, peers: Iterator[str], end: bytes) -> AsyncIterator[bytes]:
    yield begun
    while some := list(islice(peers, SLICE)):
        await asyncio.sleep(0)
        yield (",\n" + ",\n".join(some)).encode()
    yield end


def parse_object(body: bytes, *, complaint: str | None = None) -> dict[str, Any]:
    """A request body that must be a JSON object (null counts as an empty one).

    Raises:
        HttpError: 400 with `complaint`, or with what is wrong where.
    """
    if not body.strip():
        raise HttpError(400, complaint or "EOF")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise HttpError(400, complaint or f"invalid JSON: {error}") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise HttpError(400, complaint or "the body is not a JSON object")
    return value
