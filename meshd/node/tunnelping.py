"""Questions and answers inside the tunnel that the operating system never sees: TSMP, and our own pings."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from meshd.base.addr import IPAddress
from meshd.base.errors import WireError
from meshd.wire.ippacket import PROTO_TCP, Echo, IPPacket, decode_echo, decode_ip, encode_echo
from meshd.wire.tsmp import (
    DATA_SIZE,
    RejectReason,
    TsmpPing,
    TsmpPong,
    TsmpReject,
    decode_tsmp,
    encode_tsmp_packet,
)

TIMEOUT_S = 10.0
MAX_WAITING = 256  # pings under way at one time, over all peers
_SYN, _ACK = 0x02, 0x10


class TunnelPong(msgspec.Struct, frozen=True):
    """An answer; ``peerapi_port`` is 0 when the peer has none, did not say, or the ping was ICMP."""

    latency_s: float
    peerapi_port: int = 0


class _Waiter(msgspec.Struct):
    future: asyncio.Future[TunnelPong]
    sent: float
    peer: int


class TunnelPings:
    """Sends pings to peers and matches what comes back.

    ``send(peer, packet)`` puts one plain packet into the tunnel of a peer (by its plane index), waiting for
    a session when there is none.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        monotonic: Callable[[], float],
        random: Callable[[int], bytes],
        send: Callable[[int, bytes], None],
    ) -> None:
        self._loop = loop
        self._monotonic = monotonic
        self._random = random
        self._send = send
        self._waiting: dict[bytes, _Waiter] = {}
        self._sequence = 0
        self.echo_identifier = int.from_bytes(random(2), "big")
        self.peerapi_port = 0  # told in TSMP pongs
        self.own_addresses: tuple[IPAddress, ...] = ()  # pings come from the one of the right family

    async def tsmp(self, peer: int, destination: IPAddress, timeout_s: float = TIMEOUT_S) -> TunnelPong | None:
        """Ask the peer's daemon. None when nothing came back in time, or we have no address to ask from."""
        source = self._source(destination)
        if source is None:
            return None
        data = self._random(DATA_SIZE)
        packet = encode_tsmp_packet(source, destination, TsmpPing(data))
        return await self._ask(b"t" + data, peer, packet, timeout_s)

    async def icmp(self, peer: int, destination: IPAddress, timeout_s: float = TIMEOUT_S) -> TunnelPong | None:
        """Ask the peer's operating system. None when nothing came back in time, or we have no address to ask from."""
        source = self._source(destination)
        if source is None:
            return None
        self._sequence = (self._sequence + 1) & 0xFFFF
        data = self._random(DATA_SIZE)
        echo = Echo(False, self.echo_identifier, self._sequence, data)
        return await self._ask(_echo_token(echo), peer, encode_echo(source, destination, echo), timeout_s)

    def _source(self, destination: IPAddress) -> IPAddress | None:
        return next((own for own in self.own_addresses if own.version == destination.version), None)

    async def _ask(self, token: bytes, peer: int, packet: bytes, timeout_s: float) -> TunnelPong | None:
        if len(self._waiting) >= MAX_WAITING:
            return None
        future: asyncio.Future[TunnelPong] = self._loop.create_future()
        self._waiting[token] = _Waiter(future, self._monotonic(), peer)
        try:
            self._send(peer, packet)
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            return None
        finally:
            self._waiting.pop(token, None)

    def tsmp_received(self, peer: int, packet: bytes) -> bytes | None:
        """A TSMP packet from a peer; the packet to send back, if any. Rejects are for the log only."""
        try:
            ip = decode_ip(packet)
            message = decode_tsmp(ip.payload)
        except WireError:
            return None
        if isinstance(message, TsmpPing):
            pong = TsmpPong(message.data, self.peerapi_port)
            return encode_tsmp_packet(ip.destination, ip.source, pong)
        if isinstance(message, TsmpPong):
            self._answered(b"t" + message.data, peer, message.peerapi_port)
        return None

    def echo_received(self, peer: int, packet: bytes) -> bool:
        """An echo reply from a peer; False when it does not answer a ping of ours."""
        try:
            echo = decode_echo(decode_ip(packet))
        except WireError:
            return False
        return (
            echo is not None
            and echo.reply
            and echo.identifier == self.echo_identifier
            and self._answered(_echo_token(echo), peer, 0)
        )

    def _answered(self, token: bytes, peer: int, peerapi_port: int) -> bool:
        waiter = self._waiting.get(token)
        if waiter is None or waiter.peer != peer or waiter.future.done():
            return False
        waiter.future.set_result(TunnelPong(self._monotonic() - waiter.sent, peerapi_port))
        return True


def _echo_token(echo: Echo) -> bytes:
    return b"e" + echo.sequence.to_bytes(2, "big") + echo.data


def reject(packet: bytes, reason: RejectReason) -> bytes | None:
    """The TSMP reject for a denied packet; None unless it opens a TCP connection over IPv4."""
    try:
        ip = decode_ip(packet)
    except WireError:
        return None
    if ip.source.version != 4 or ip.protocol != PROTO_TCP or not _opens_connection(ip):
        return None
    source_port, destination_port = (int.from_bytes(ip.payload[at : at + 2], "big") for at in (0, 2))
    message = TsmpReject(PROTO_TCP, reason, source_port, destination_port)
    return encode_tsmp_packet(ip.destination, ip.source, message)


def _opens_connection(ip: IPPacket) -> bool:
    return len(ip.payload) >= 14 and ip.payload[13] & (_SYN | _ACK) == _SYN
