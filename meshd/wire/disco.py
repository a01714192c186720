"""Disco: the messages by which peers find a direct path to each other.

    packet     magic(6) | sender disco public key(32) | nonce(24) | box
    plaintext  type(1) version(1) body

The box is a NaCl box between the two disco keys. There is no replay protection. Bytes after the known
part of a body are ignored. The same packets travel by UDP and inside DERP.

`TakesBundles` is our own; other programs ignore types that they do not know.
"""

from __future__ import annotations

from typing import Final

import msgspec

from meshd.base import crypto
from meshd.base.addr import AddrPort, unpack_ip
from meshd.base.errors import WireError
from meshd.wire.cursor import Cursor

MAGIC: Final = b"TS\xf0\x9f\x92\xac"
KEY_SIZE: Final = 32
NONCE_SIZE: Final = 24
TAG_SIZE: Final = 16
HEADER_SIZE: Final = len(MAGIC) + KEY_SIZE + NONCE_SIZE
"""62 bytes before the box."""
TXID_SIZE: Final = 12

TYPE_PING: Final = 1
TYPE_PONG: Final = 2
TYPE_CALL_ME_MAYBE: Final = 3
TYPE_TAKES_BUNDLES: Final = 0x6D

_VERSION: Final = 0
_ENDPOINT_SIZE: Final = 18
_OURS: Final = b"meshd"  # tells our message from one that may get the same number elsewhere


class Ping(msgspec.Struct, frozen=True):
    """`node_key` is the sender's WireGuard key (32 bytes), or None from very old senders.

    `padding` zero bytes at the end make the packet as large as the path is to be tested for; it needs a
    node key before it, else the padding would be read as one.
    """

    txid: bytes
    node_key: bytes | None = None
    padding: int = 0


class Pong(msgspec.Struct, frozen=True):
    """`source` is the address the ping came from, as the answering side saw it."""

    txid: bytes
    source: AddrPort


class CallMeMaybe(msgspec.Struct, frozen=True):
    """The sender's addresses; a request to ping them all now. Valid over DERP only."""

    endpoints: tuple[AddrPort, ...] = ()


class TakesBundles(msgspec.Struct, frozen=True):
    """The sender takes several WireGuard messages in one relay frame (`_fast/derpframes.pyi`).

    `question` asks the receiver to say the same of itself. Valid over DERP only.
    """

    question: bool = False


class Unknown(msgspec.Struct, frozen=True):
    """A message of a type, or a version of a type, that is not spoken here."""

    type: int
    version: int
    body: bytes


Message = Ping | Pong | CallMeMaybe | TakesBundles | Unknown


def is_disco(datagram: bytes | memoryview) -> bool:
    """Whether the bytes start like a disco packet and are long enough to hold a box."""
    return len(datagram) >= HEADER_SIZE + TAG_SIZE and bytes(datagram[: len(MAGIC)]) == MAGIC


def split(packet: bytes) -> tuple[bytes, bytes, bytes]:
    """`(sender public key, nonce, box)`; raises `WireError` when it is no disco packet."""
    if not is_disco(packet):
        raise WireError(f"not a disco packet: {len(packet)} bytes")
    cursor = Cursor(packet)
    cursor.take(len(MAGIC))
    return cursor.take(KEY_SIZE), cursor.take(NONCE_SIZE), cursor.rest()


def seal(sender_public: bytes, shared: bytes, nonce: bytes, plaintext: bytes) -> bytes:
    """A whole packet. `shared` comes from `crypto.box_shared`, `nonce` is 24 random bytes."""
    return MAGIC + sender_public + nonce + crypto.box_seal(shared, nonce, plaintext)


def encode_message(message: Message) -> bytes:
    """The plaintext of a message."""
    match message:
        case Ping(txid=txid, node_key=node_key, padding=padding):
            if padding and node_key is None:
                raise ValueError("a padded ping needs a node key")
            return bytes((TYPE_PING, _VERSION)) + txid + (node_key or b"") + bytes(padding)
        case Pong(txid=txid, source=source):
            return bytes((TYPE_PONG, _VERSION)) + txid + encode_endpoint(source)
        case CallMeMaybe(endpoints=endpoints):
            return bytes((TYPE_CALL_ME_MAYBE, _VERSION)) + b"".join(map(encode_endpoint, endpoints))
        case TakesBundles(question=question):
            return bytes((TYPE_TAKES_BUNDLES, _VERSION)) + _OURS + bytes((question,))
        case Unknown(type=kind, version=version, body=body):
            return bytes((kind, version)) + body


def decode_message(plaintext: bytes, /) -> Message:
    """The message in an opened box; `WireError` when it is too short for its type."""
    cursor = Cursor(plaintext)
    kind = cursor.u8()
    version = cursor.u8()
    if kind == TYPE_PING:
        return _decode_ping(cursor)
    if kind == TYPE_PONG:
        return Pong(cursor.take(TXID_SIZE), _decode_endpoint(cursor))
    if kind == TYPE_CALL_ME_MAYBE:
        return _decode_call_me_maybe(cursor, version)
    rest = cursor.rest()
    if kind == TYPE_TAKES_BUNDLES and version == _VERSION and rest[:-1] == _OURS and rest[-1] <= 1:
        return TakesBundles(rest[-1] == 1)
    return Unknown(kind, version, rest)


def _decode_ping(cursor: Cursor) -> Ping:
    txid = cursor.take(TXID_SIZE)
    if cursor.remaining < KEY_SIZE:
        return Ping(txid)
    node_key = cursor.take(KEY_SIZE)
    return Ping(txid, node_key, padding=cursor.remaining)


def _decode_call_me_maybe(cursor: Cursor, version: int) -> CallMeMaybe:
    if version != _VERSION or cursor.remaining % _ENDPOINT_SIZE:
        return CallMeMaybe()
    count = cursor.remaining // _ENDPOINT_SIZE
    return CallMeMaybe(tuple(_decode_endpoint(cursor) for _ in range(count)))


def encode_endpoint(endpoint: AddrPort) -> bytes:
    """`ip(16) port(2)`, IPv4 as ::ffff:a.b.c.d."""
    return endpoint.mapped16() + endpoint.port.to_bytes(2, "big")


def _decode_endpoint(cursor: Cursor) -> AddrPort:
    return AddrPort(unpack_ip(cursor.take(16)), cursor.u16be())
