"""A SOCKS5 server through which programs of this host reach the mesh.

CONNECT only, no authentication: it listens where the operator says, which should be a loopback address.
Names of mesh nodes are answered from the netmap, other names by the system.
"""

from __future__ import annotations

import asyncio
import errno
from ipaddress import ip_address

from meshd.base.errors import WireError
from meshd.feature.proxy.listener import LAST_BYTE_S, Dial, Serve
from meshd.io.joinstreams import close_within, join_streams
from meshd.wire import socks

HANDSHAKE_S = 10.0
CONNECT_S = 30.0
_MAX_HANDSHAKE = 600  # the longest greeting and request together

_REPLIES = {
    errno.ECONNREFUSED: socks.Reply.CONNECTION_REFUSED,
    errno.ENETUNREACH: socks.Reply.NETWORK_UNREACHABLE,
    errno.EHOSTUNREACH: socks.Reply.HOST_UNREACHABLE,
    errno.ETIMEDOUT: socks.Reply.TTL_EXPIRED,
}


def socks5(dial: Dial) -> Serve:
    """Serves connections of SOCKS5 clients."""

    async def serve(first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(HANDSHAKE_S):
            request, rest = await _handshake(first, reader, writer)
        await _connect(dial, request, rest, reader, writer)

    return serve


async def _connect(
    dial: Dial,
    request: socks.ConnectRequest,
    rest: bytes,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    if request.command != socks.CONNECT:
        writer.write(socks.encode_reply(socks.Reply.COMMAND_NOT_SUPPORTED))
        await writer.drain()
        return
    try:
        async with asyncio.timeout(CONNECT_S):
            far_reader, far_writer = await dial(request.host, request.port)
    except (TimeoutError, UnicodeError):  # nothing answers, or there can be no such name
        writer.write(socks.encode_reply(socks.Reply.HOST_UNREACHABLE))
        return
    except OSError as error:
        writer.write(socks.encode_reply(_REPLIES.get(error.errno or 0, socks.Reply.HOST_UNREACHABLE)))
        return
    try:
        bound = far_writer.get_extra_info("sockname")
        writer.write(socks.encode_reply(socks.Reply.SUCCEEDED, ip_address(bound[0].partition("%")[0]), bound[1]))
        if rest:
            far_writer.write(rest)
        await join_streams(reader, writer, far_reader, far_writer)
    finally:
        await close_within(far_writer, LAST_BYTE_S)


async def _handshake(
    data: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> tuple[socks.ConnectRequest, bytes]:
    """Greeting, method, request; returns the request and bytes that came after it."""
    greeting = None
    while True:
        if greeting is None and (greeting := socks.decode_greeting(data)) is not None:
            methods, used = greeting
            data = data[used:]
            if socks.NO_AUTHENTICATION not in methods:
                writer.write(socks.encode_method(socks.NO_ACCEPTABLE_METHOD))
                raise WireError("the client offers no method that this server has")
            writer.write(socks.encode_method(socks.NO_AUTHENTICATION))
        if greeting is not None and (request := socks.decode_request(data)) is not None:
            return request[0], data[request[1] :]
        more = await reader.read(_MAX_HANDSHAKE)
        if not more or len(data) > _MAX_HANDSHAKE:
            raise WireError("the SOCKS handshake ended early")
        data += more
