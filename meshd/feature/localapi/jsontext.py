"""JSON as LocalAPI clients read it: Go's encoder's line feed at the end, tabs where a person may look."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import islice
from typing import Any

import orjson

from meshd.io.http.h1message import HttpError, Response

SLICE = 256  # peers of a status that are written in one go: a few milliseconds


def compact(value: object) -> bytes:
    """One line."""
    return orjson.dumps(value) + b"\n"


async def compact_in_turns(value: object) -> bytes:
    """`compact`, where long lists and objects down to the third level are encoded in slices."""
    return compact(await _encoded(value, 3))


async def _encoded(value: object, depth: int) -> object:
    if isinstance(value, list) and len(value) > SLICE:
        parts = []
        for start in range(0, len(value), SLICE):
            parts.append(orjson.dumps(value[start : start + SLICE])[1:-1])
            await asyncio.sleep(0)
        return orjson.Fragment(b"[" + b",".join(parts) + b"]")
    if isinstance(value, dict) and len(value) > SLICE:
        parts, members = [], iter(value.items())
        while some := dict(islice(members, SLICE)):
            parts.append(orjson.dumps(some)[1:-1])
            await asyncio.sleep(0)
        return orjson.Fragment(b"{" + b",".join(parts) + b"}")
    if isinstance(value, dict) and depth > 1:
        return {name: await _encoded(member, depth - 1) for name, member in value.items()}
    return value


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
