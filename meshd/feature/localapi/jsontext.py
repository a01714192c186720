"""JSON as LocalAPI clients read it: Go's encoder's line feed at the end, tabs where a person may look."""

from __future__ import annotations

from typing import Any

import orjson

from meshd.io.http.h1message import HttpError, Response


def compact(value: object) -> bytes:
    """One line."""
    return orjson.dumps(value) + b"\n"


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
