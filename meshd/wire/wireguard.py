"""WireGuard message layouts (WireGuard paper 5.4). Little endian; nothing here does cryptography.

initiation  type(4)=1 sender(4) ephemeral(32) static(48) timestamp(28) mac1(16) mac2(16)    148 bytes
response    type(4)=2 sender(4) receiver(4) ephemeral(32) empty(16) mac1(16) mac2(16)        92 bytes
cookie      type(4)=3 receiver(4) nonce(24) sealed cookie(32)                                64 bytes
transport   type(4)=4 receiver(4) counter(8) sealed packet(16 or more)                      32 or more
"""

from __future__ import annotations

from struct import Struct
from typing import Final

import msgspec

from meshd.base.errors import WireError

MESSAGE_INITIATION: Final = 1
MESSAGE_RESPONSE: Final = 2
MESSAGE_COOKIE_REPLY: Final = 3
MESSAGE_TRANSPORT: Final = 4

INITIATION_SIZE: Final = 148
RESPONSE_SIZE: Final = 92
COOKIE_REPLY_SIZE: Final = 64
TRANSPORT_HEADER_SIZE: Final = 16
TRANSPORT_MIN_SIZE: Final = 32
"""Header and tag around nothing: a keepalive."""

MAC_SIZE: Final = 16

_INITIATION: Final = Struct("<II32s48s28s16s16s")
_RESPONSE: Final = Struct("<III32s16s16s16s")
_COOKIE_REPLY: Final = Struct("<II24s32s")
_TRANSPORT: Final = Struct("<IIQ")
_EXACT_SIZE: Final = {
    MESSAGE_INITIATION: INITIATION_SIZE,
    MESSAGE_RESPONSE: RESPONSE_SIZE,
    MESSAGE_COOKIE_REPLY: COOKIE_REPLY_SIZE,
}


class Initiation(msgspec.Struct, frozen=True):
    """First handshake message. `static` and `timestamp` are sealed; zero `mac2` when there is no cookie."""

    sender: int
    ephemeral: bytes
    static: bytes
    timestamp: bytes
    mac1: bytes = bytes(MAC_SIZE)
    mac2: bytes = bytes(MAC_SIZE)


class Response(msgspec.Struct, frozen=True):
    """Second handshake message. `empty` is the tag over no plaintext."""

    sender: int
    receiver: int
    ephemeral: bytes
    empty: bytes
    mac1: bytes = bytes(MAC_SIZE)
    mac2: bytes = bytes(MAC_SIZE)


class CookieReply(msgspec.Struct, frozen=True):
    """Answer of a loaded responder; `cookie` is sealed (32 bytes)."""

    receiver: int
    nonce: bytes
    cookie: bytes


class TransportHeader(msgspec.Struct, frozen=True):
    """What stands before the sealed packet."""

    receiver: int
    counter: int


def message_type(datagram: bytes | memoryview) -> int:
    """`MESSAGE_*` when type word and length fit together, else 0: to be dropped."""
    size = len(datagram)
    if size < 4 or datagram[1] or datagram[2] or datagram[3]:
        return 0
    kind = datagram[0]
    if kind == MESSAGE_TRANSPORT:
        return kind if size >= TRANSPORT_MIN_SIZE else 0
    return kind if _EXACT_SIZE.get(kind) == size else 0


def _check(datagram: bytes | memoryview, kind: int, what: str) -> None:
    if message_type(datagram) != kind:
        raise WireError(f"not a WireGuard {what}: {len(datagram)} bytes", offset=0, expected=f"type {kind}")


def encode_initiation(message: Initiation) -> bytes:
    return _INITIATION.pack(
        MESSAGE_INITIATION,
        message.sender,
        message.ephemeral,
        message.static,
        message.timestamp,
        message.mac1,
        message.mac2,
    )


def decode_initiation(datagram: bytes | memoryview, /) -> Initiation:
    """Raises `WireError` unless it is exactly 148 bytes of type 1."""
    _check(datagram, MESSAGE_INITIATION, "initiation")
    return Initiation(*_INITIATION.unpack(datagram)[1:])


def encode_response(message: Response) -> bytes:
    return _RESPONSE.pack(
        MESSAGE_RESPONSE,
        message.sender,
        message.receiver,
        message.ephemeral,
        message.empty,
        message.mac1,
        message.mac2,
    )


def decode_response(datagram: bytes | memoryview, /) -> Response:
    """Raises `WireError` unless it is exactly 92 bytes of type 2."""
    _check(datagram, MESSAGE_RESPONSE, "response")
    return Response(*_RESPONSE.unpack(datagram)[1:])


def encode_cookie_reply(message: CookieReply) -> bytes:
    return _COOKIE_REPLY.pack(MESSAGE_COOKIE_REPLY, message.receiver, message.nonce, message.cookie)


def decode_cookie_reply(datagram: bytes | memoryview, /) -> CookieReply:
    """Raises `WireError` unless it is exactly 64 bytes of type 3."""
    _check(datagram, MESSAGE_COOKIE_REPLY, "cookie reply")
    return CookieReply(*_COOKIE_REPLY.unpack(datagram)[1:])


def encode_transport_header(header: TransportHeader) -> bytes:
    """The 16 bytes before the sealed packet."""
    return _TRANSPORT.pack(MESSAGE_TRANSPORT, header.receiver, header.counter)


def decode_transport_header(datagram: bytes | memoryview, /) -> TransportHeader:
    """Header of a transport message; the sealed packet starts at `TRANSPORT_HEADER_SIZE`."""
    _check(datagram, MESSAGE_TRANSPORT, "transport message")
    return TransportHeader(*_TRANSPORT.unpack_from(datagram)[1:])
