"""The HTTP proxy against real servers on the loopback interface."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from meshd.feature.proxy.httpproxy import http_proxy
from meshd.feature.proxy.listener import Connection, ProxyListener, either
from meshd.feature.proxy.socks5 import socks5

Origin = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def dial(host: str, port: int) -> Connection:
    if host == "refuse":
        raise ConnectionRefusedError(111, "refused")
    return await asyncio.open_connection("127.0.0.1", port)


async def talk(request: bytes, origin: Origin, *, end: bool = False, both: bool = False) -> bytes:
    """What a client sees that sends this; PORT is the origin's."""
    target = await asyncio.start_server(origin, "127.0.0.1", 0)
    port = target.sockets[0].getsockname()[1]
    serve = either(socks5(dial), http_proxy(dial)) if both else http_proxy(dial)
    server = ProxyListener(serve, "--outbound-http-proxy-listen")
    await server.start("127.0.0.1:0")
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request.replace(b"PORT", b"%d" % port).replace(b"PP", port.to_bytes(2, "big")))
    if end:
        writer.write_eof()
    try:
        async with asyncio.timeout(5):
            return await reader.read()
    finally:
        writer.close()
        await server.close()
        target.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1000):
        writer.write(data)
        await writer.drain()
    writer.close()


async def show(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers with the request as it came; does not close by itself, as a bad server might."""
    head = await reader.readuntil(b"\r\n\r\n")
    body = b""
    if b"content-length: 4" in head.lower():
        body = await reader.readexactly(4)
    answer = head + body
    writer.write(b"HTTP/1.1 200 Fine\r\nContent-Length: %d\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n" % len(answer))
    writer.write(answer)
    await writer.drain()
    await reader.read()
    writer.close()


def test_http_proxy_connect_carries_data_both_ways() -> None:
    """flag:--outbound-http-proxy-listen: what comes with the request is not lost."""
    seen = asyncio.run(talk(b"CONNECT peer:PORT HTTP/1.1\r\nHost: peer\r\n\r\nhello", echo, end=True))
    assert seen == b"HTTP/1.1 200 OK\r\n\r\nhello"


def test_http_proxy_passes_a_request_with_its_body_on() -> None:
    """Headers of the hop stay behind, in both directions; the host is that of the URL; one request a connection."""
    request = (
        b"POST http://peer:PORT/a?b=c HTTP/1.1\r\nHost: other\r\nProxy-Authorization: Basic secret\r\n"
        b"Connection: X-Mine\r\nX-Mine: 1\r\nX-End: 2\r\nContent-Length: 4\r\n\r\nbody"
        b"GET http://elsewhere/ HTTP/1.1\r\nHost: elsewhere\r\n\r\n"
    )
    seen = asyncio.run(talk(request, show))
    head, _, shown = seen.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"x-hop" not in head.lower()
    assert b"connection: close" in head.lower()
    assert shown.startswith(b"POST /a?b=c HTTP/1.1\r\n")
    assert shown.endswith(b"\r\n\r\nbody")
    assert b"host: peer:" in shown.lower()
    assert b"x-end: 2" in shown.lower()
    for left_out in (b"secret", b"X-Mine", b"x-mine", b"elsewhere", b"other"):
        assert left_out not in shown


@pytest.mark.parametrize(
    ("request_line", "status", "text"),
    [
        (b"GET /here HTTP/1.1", b"400", b"bogus RequestURI; must be absolute URL or CONNECT"),
        (b"GET https://peer/ HTTP/1.1", b"400", b"bogus RequestURI"),
        (b"CONNECT peer HTTP/1.1", b"400", b"the request names no host and port"),
        (b"CONNECT peer:99999 HTTP/1.1", b"400", b"the request names no host and port"),
        (b"CONNECT refuse:1 HTTP/1.1", b"502", b"cannot connect to refuse port 1"),
        (b"GET http://refuse/ HTTP/1.1", b"502", b"cannot connect to refuse port 80"),
        (b"nonsense", b"400", b""),
    ],
)
def test_http_proxy_refusals_are_told(request_line: bytes, status: bytes, text: bytes) -> None:
    seen = asyncio.run(talk(request_line + b"\r\nHost: x\r\n\r\n", echo))
    assert seen.startswith(b"HTTP/1.1 " + status)
    assert text in seen
    assert b"Traceback" not in seen


def test_http_proxy_server_that_answers_nonsense_is_a_bad_gateway() -> None:
    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"\x00\x01\x02\r\n\r\n")
        writer.close()

    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    for origin in (nonsense, silence):
        seen = asyncio.run(talk(b"GET http://peer:PORT/ HTTP/1.1\r\nHost: peer\r\n\r\n", origin))
        assert seen.startswith(b"HTTP/1.1 502 ")


def test_http_proxy_endless_head_is_refused() -> None:
    seen = asyncio.run(talk(b"GET http://peer:PORT/ HTTP/1.1\r\nX: " + b"a" * 100_000, echo))
    assert seen.startswith(b"HTTP/1.1 4")


def test_both_proxies_share_an_address() -> None:
    """flag:--socks5-server and flag:--outbound-http-proxy-listen at one address: the first byte decides."""
    seen = asyncio.run(talk(b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01PPhi", echo, end=True, both=True))
    assert seen[:4] == b"\x05\x00\x05\x00"
    assert seen.endswith(b"hi")
    seen = asyncio.run(talk(b"CONNECT peer:PORT HTTP/1.1\r\nHost: x\r\n\r\nhi", echo, end=True, both=True))
    assert seen.endswith(b"\r\n\r\nhi")
