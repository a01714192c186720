"""HTTP proxies of the environment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from meshd.base.errors import MeshdError
from meshd.io.proxy import Proxy, dial_through, proxy_for


@pytest.mark.parametrize(
    ("environ", "scheme", "host", "proxy"),
    [
        ({}, "http", "h.example", None),
        ({"HTTP_PROXY": "http://p:3128"}, "http", "h.example", Proxy("p", 3128)),
        ({"HTTP_PROXY": "http://p:3128"}, "https", "h.example", None),
        ({"https_proxy": "p:3128"}, "https", "h.example", Proxy("p", 3128)),
        ({"https_proxy": "http://p"}, "https", "h.example", Proxy("p", 80)),
        ({"https_proxy": "http://u:p%40ss@p:1"}, "https", "h", Proxy("p", 1, "Basic dTpwQHNz")),
        ({"http_proxy": "http://p:1"}, "http", "127.0.0.1", None),
        ({"http_proxy": "http://p:1"}, "http", "localhost", None),
        ({"http_proxy": "http://p:1"}, "http", "::1", None),
        ({"http_proxy": "http://p:1", "NO_PROXY": "*"}, "http", "h.example", None),
        ({"http_proxy": "http://p:1", "no_proxy": "other, example"}, "http", "h.example", None),
        ({"http_proxy": "http://p:1", "no_proxy": ".example"}, "http", "h.example", None),
        ({"http_proxy": "http://p:1", "no_proxy": "ample"}, "http", "h.example", Proxy("p", 1)),
        ({"http_proxy": "http://p:1", "no_proxy": "h.example:81"}, "http", "h.example", Proxy("p", 1)),
        ({"http_proxy": "http://p:1", "no_proxy": "h.example:80"}, "http", "h.example", None),
        ({"http_proxy": "http://p:1", "no_proxy": "h.example:\u00b2"}, "http", "h.example", Proxy("p", 1)),
        ({"http_proxy": "http://p:1", "no_proxy": f"x:{'9' * 5000},h.example"}, "http", "h.example", None),
        ({"http_proxy": "http://p:1", "no_proxy": "10.0.0.0/8"}, "http", "10.1.1.1", None),
        ({"http_proxy": "http://p:1", "no_proxy": "10.0.0.0/8"}, "http", "11.1.1.1", Proxy("p", 1)),
        ({"http_proxy": "http://p:1", "no_proxy": "2001:db8::1"}, "http", "2001:db8::1", None),
    ],
)
def test_proxy_for_follows_the_environment(
    environ: dict[str, str], scheme: str, host: str, proxy: Proxy | None
) -> None:
    assert proxy_for(scheme, host, 80, environ) == proxy


@pytest.mark.parametrize(
    "value",
    [
        *("socks5://p:1", "https://p:1", "http://", "http://p:99999"),
        *("http://[fd00::1:3128", "http://u:s\u2100cret@p:1", "http://u:s\udcffcret@p:1"),
    ],
)
def test_proxy_for_unusable_proxy_is_a_clear_error(value: str) -> None:
    with pytest.raises(MeshdError, match="HTTP_PROXY does not name") as refused:
        proxy_for("http", "h.example", 80, {"http_proxy": value})
    assert "cret" not in str(refused.value)


def test_proxy_credentials_do_not_show() -> None:
    assert "dTpw" not in repr(Proxy("p", 1, "Basic dTpwQHNz"))


def _serve(answer: bytes, check: Callable[[int, list[bytes]], Awaitable[None]]) -> None:
    async def main() -> None:
        asked: list[bytes] = []

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        async with server:
            await check(server.sockets[0].getsockname()[1], asked)

    asyncio.run(main())


def test_dial_through_hands_over_the_tunnel() -> None:
    async def check(port: int, asked: list[bytes]) -> None:
        stream = await dial_through(Proxy("127.0.0.1", port, "Basic xyz"), "target.example", 443)
        assert await stream.read() == b"first bytes"
        assert asked[0].startswith(b"CONNECT target.example:443 HTTP/1.1\r\n")
        assert b"Proxy-Authorization: Basic xyz" in asked[0]
        stream.close()

    _serve(b"HTTP/1.1 200 OK\r\n\r\nfirst bytes", check)


def test_dial_through_refusal_names_the_proxy() -> None:
    async def check(port: int, _: list[bytes]) -> None:
        with pytest.raises(MeshdError, match=f"127.0.0.1:{port} refused.*HTTP 407"):
            await dial_through(Proxy("127.0.0.1", port), "target.example", 443)

    _serve(b"HTTP/1.1 407 Auth\r\nContent-Length: 0\r\n\r\n", check)
