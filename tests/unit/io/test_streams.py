"""Byte streams over sockets: order, end, broken connections, and a bounded amount of unread data."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from meshd.io.streams import READ_LIMIT, SocketStream


def pair(check: Callable[[SocketStream, socket.socket], Awaitable[None]]) -> None:
    async def main() -> None:
        near, far = socket.socketpair()
        far.setblocking(False)
        _, stream = await asyncio.get_running_loop().create_connection(SocketStream, sock=near)
        async with asyncio.timeout(10):
            await check(stream, far)
        stream.close()
        far.close()

    uvloop.run(main())


def test_stream_reads_what_arrives_and_then_the_end() -> None:
    async def check(stream: SocketStream, far: socket.socket) -> None:
        stream.unread(b"first ")
        far.send(b"second")
        assert await stream.read() == b"first "
        assert await stream.read() == b"second"
        far.shutdown(socket.SHUT_WR)
        assert await stream.read() == b""
        assert await stream.read() == b""

    pair(check)


def test_stream_unread_data_is_bounded() -> None:
    async def check(stream: SocketStream, far: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        total = 8 * 1024 * 1024
        sender = asyncio.ensure_future(loop.sock_sendall(far, bytes(total)))
        for _ in range(200):
            await asyncio.sleep(0)
        assert stream._unread < 2 * READ_LIMIT + 1024 * 1024
        size = 0
        while size < total:
            size += len(await stream.read())
        await sender

    pair(check)


def test_stream_write_waits_for_a_slow_reader() -> None:
    async def check(stream: SocketStream, far: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        stream.write(bytes(4 * 1024 * 1024))
        waiting = asyncio.ensure_future(stream.drain())
        await asyncio.sleep(0)
        assert not waiting.done()
        size = 0
        while size < 4 * 1024 * 1024:
            size += len(await loop.sock_recv(far, 1 << 20))
        await waiting

    pair(check)


def test_stream_closed_by_us_drops_writes_and_ends_reads() -> None:
    async def check(stream: SocketStream, far: socket.socket) -> None:
        stream.close()
        stream.close()
        stream.write(b"lost")
        await stream.drain()
        assert await stream.read() == b""

    pair(check)


def test_stream_reset_is_a_connection_error() -> None:
    async def main() -> None:
        server = socket.create_server(("127.0.0.1", 0))
        near = socket.create_connection(server.getsockname())
        near.setblocking(False)
        far, _ = server.accept()
        _, stream = await asyncio.get_running_loop().create_connection(SocketStream, sock=near)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        far.close()
        with pytest.raises(ConnectionError):
            await stream.read()
        server.close()

    uvloop.run(main())
