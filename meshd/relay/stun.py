"""The STUN server: answers "from which address do you see me" over UDP.

Only binding requests in the exact form that Tailscale clients send are answered (software `tailnode`, correct
fingerprint), so the port is of no use for reflecting traffic: an answer is never larger than its question.
"""

from __future__ import annotations

import asyncio
import socket
from typing import cast

from meshd.base.addr import AddrPort, parse_ip
from meshd.base.errors import MeshdError, WireError
from meshd.io.listener import with_support
from meshd.wire.stun import decode_request, encode_response


class StunServer:
    """STUN on one UDP port, IPv4 and IPv6."""

    def __init__(self) -> None:
        self._transports: list[asyncio.DatagramTransport] = []
        self.port = 0
        self.answered = 0
        self.ignored = 0

    async def start(self, host: str, port: int) -> None:
        """Bind `port` (0 = any free one) on every address of `host`; an empty host means all.

        Raises MeshdError "host" when it cannot be bound.
        """
        try:
            await self._bind(host, port)
        except OSError as error:
            raise MeshdError(
                f"cannot serve STUN on UDP port {port}: {error.strerror or error}",
                code="host",
                hint="Choose another port with --stun-port, or -1 for none.",
            ) from None

    async def _bind(self, host: str, port: int) -> None:
        loop = asyncio.get_running_loop()
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE)
        addresses = sorted({(family, address) for family, _, _, _, address in found}, key=lambda a: a[0])
        for family, address in with_support(addresses):
            bound = socket.socket(family, socket.SOCK_DGRAM)
            try:
                bound.setblocking(False)
                if family == socket.AF_INET6:
                    bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                bound.bind((address[0], self.port or port, *address[2:]))
                self.port = self.port or bound.getsockname()[1]
                transport, _ = await loop.create_datagram_endpoint(lambda: _Responder(self), sock=bound)
            except OSError:
                bound.close()
                self.close()
                raise
            self._transports.append(transport)

    def close(self) -> None:
        for transport in self._transports:
            transport.close()
        self._transports.clear()


class _Responder(asyncio.DatagramProtocol):
    def __init__(self, server: StunServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        try:
            transaction = decode_request(data)
            source = AddrPort(parse_ip(addr[0].partition("%")[0]), addr[1])
        except (WireError, ValueError):
            self._server.ignored += 1
            return
        self._server.answered += 1
        if self._transport is not None:
            self._transport.sendto(encode_response(transaction, source), addr)

    def error_received(self, exc: Exception) -> None:
        self._server.ignored += 1
