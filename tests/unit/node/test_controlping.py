"""Calls of the server to the node."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from meshd.base.errors import MeshdError
from meshd.core.controladdress import ControlAddress
from meshd.node.controlping import PingAnswerer, answer_c2n


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


@pytest.mark.parametrize(
    "url", ["http://a\x01b/", "http://a b/", "http://\x7f/", "http:///x", "ftp://a/", "http://a\u0300/", "http://a:x/"]
)
def test_ping_answer_to_a_host_that_cannot_be_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a proxy would be asked for it, which takes a name as it is."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")

    async def main() -> None:
        link: Any = SimpleNamespace(address=ControlAddress(True, "c.example", 443, None, None))
        answerer = PingAnswerer(link, None, answer_c2n)
        with pytest.raises(MeshdError, match="unusable URL"):
            await answerer._send("HEAD", url, b"", noise=False)

    asyncio.run(main())
