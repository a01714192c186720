"""Calls of the server to the node."""

from __future__ import annotations

import asyncio

import pytest

from meshd.node.controlping import answer_c2n


@pytest.mark.parametrize(
    ("payload", "head", "body"),
    [
        (b"GET /echo HTTP/1.1\r\nHost: unused\r\nContent-Length: 2\r\n\r\nhi", b"HTTP/1.1 200 OK", b"hi"),
        (b"POST /echo?x=1 HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 200 OK", b""),
        (b"GET /debug/prefs HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 400 Bad Request", b"unknown c2n path\n"),
        (b"garbage", b"HTTP/1.1 400 Bad Request", b"bad request\n"),
        (b"", b"HTTP/1.1 400 Bad Request", b"bad request\n"),
        (b"\x00" * 100_000, b"HTTP/1.1 400 Bad Request", b"bad request\n"),
        (
            b"GET /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhi",
            b"HTTP/1.1 400 Bad Request",
            b"bad request\n",
        ),
    ],
)
def test_c2n_echo_and_nothing_else(payload: bytes, head: bytes, body: bytes) -> None:
    answer = asyncio.run(answer_c2n(payload))
    assert answer.startswith(head + b"\r\n")
    assert answer.endswith(b"\r\n\r\n" + body)
