"""The one-exchange HTTP/1.1 client against answers written by hand."""

from __future__ import annotations

import asyncio

import pytest

from meshd.base.errors import MeshdError
from meshd.io.http.h1client import Answer, fetch, upgrade


class Canned:
    """A stream whose other end says these chunks, then closes."""

    def __init__(self, *chunks: bytes) -> None:
        self.chunks = list(chunks)
        self.sent = b""
        self.reads = 0

    async def read(self) -> bytes:
        self.reads += 1
        return self.chunks.pop(0) if self.chunks else b""

    def write(self, data: bytes) -> None:
        self.sent += data

    async def drain(self) -> None: ...

    def close(self) -> None: ...


class Endless(Canned):
    """Never stops talking."""

    async def read(self) -> bytes:
        self.reads += 1
        return self.chunks[0] if self.reads == 1 else self.chunks[1]


def get(stream: Canned, limit: int = 1000, body: bytes = b"") -> Answer:
    return asyncio.run(fetch(stream, "POST" if body else "GET", "/x", [("Host", "h")], body, limit=limit))


@pytest.mark.parametrize(
    "chunks",
    [
        [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"],
        [b"HTTP/1.1 200 OK\r\nContent-Le", b"ngth: 5\r\n\r\nhel", b"lo"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello"],
        [b"HTTP/1.0 200 OK\r\n\r\nhello"],
        [b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"],
    ],
)
def test_fetch_reads_every_form_of_body(chunks: list[bytes]) -> None:
    answer = get(Canned(*chunks))
    assert (answer.status, answer.body) == (200, b"hello")


def test_fetch_sends_the_body_with_its_length() -> None:
    stream = Canned(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert get(stream, body=b"data").status == 204
    assert b"Content-Length: 4\r\n" in stream.sent
    assert stream.sent.endswith(b"\r\n\r\ndata")


@pytest.mark.parametrize(
    ("chunks", "words"),
    [
        ([], "closed before"),
        ([b"garbage\r\n\r\n"], "not HTTP"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello"], "not HTTP"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"], "not HTTP"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + bytes(5000)], "longer than 1000"),
    ],
)
def test_fetch_broken_answer_is_an_error(chunks: list[bytes], words: str) -> None:
    with pytest.raises(MeshdError, match=words) as caught:
        get(Canned(*chunks))
    assert caught.value.code == "http"


@pytest.mark.parametrize(
    ("head", "more"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-Header: " + b"y" * 1000 + b"\r\n"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"y" * 1000),
        (b"HTTP/1.1 200 OK\r\n\r\n", bytes(1000)),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 100),
    ],
)
def test_fetch_endless_answer_is_cut_off(head: bytes, more: bytes) -> None:
    """Memory is bounded: after at most a hundred reads of a kilobyte there is an error."""
    stream = Endless(head, more)
    with pytest.raises(MeshdError):
        get(stream)
    assert stream.reads < 100


def test_upgrade_hands_over_the_bytes_behind_the_head() -> None:
    stream = Canned(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nnext")
    answer = asyncio.run(upgrade(stream, "POST", "/", [("Host", "h"), ("Upgrade", "x"), ("Connection", "upgrade")]))
    assert (answer.status, answer.rest, answer.headers["upgrade"]) == (101, b"next", "x")


def test_upgrade_refusal_shows_the_beginning_of_the_body() -> None:
    stream = Canned(b"HTTP/1.1 400 Bad\r\n\r\n" + b"missing next protocol" * 1000)
    answer = asyncio.run(upgrade(stream, "POST", "/", [("Host", "h")]))
    assert answer.status == 400
    assert answer.body.startswith(b"missing next protocol")
    assert len(answer.body) <= 4096
