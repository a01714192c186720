"""TSMP: notes that nodes send each other inside the tunnel as IP protocol 99; the OS never sees them.

    reject  21 protocol(1) reason(1) source port(2) destination port(2) [flags(1)]
    ping    70 data(8)
    pong    6f data(8) [PeerAPI port(2)]

A reject carries the ports of the flow that it rejects; the addresses around it are that flow's, swapped.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from meshd.base.addr import IPAddress
from meshd.wire.cursor import Cursor
from meshd.wire.ippacket import PROTO_TSMP, encode_ip

DATA_SIZE: Final = 8

_REJECT: Final = ord("!")
_PING: Final = ord("p")
_PONG: Final = ord("o")
_MAYBE_BROKEN: Final = 1


class RejectReason(StrEnum):
    """Why a connection was refused; other letters are possible."""

    ACL = "A"
    SHIELDS_UP = "S"
    FORWARDING_OFF = "F"
    HOST_FIREWALL = "W"
    UNKNOWN_TRANSIT = "T"


class TsmpPing(msgspec.Struct, frozen=True):
    """`data` is 8 bytes that come back in the pong."""

    data: bytes


class TsmpPong(msgspec.Struct, frozen=True):
    """`peerapi_port` 0: the sender has no PeerAPI, or did not say."""

    data: bytes
    peerapi_port: int = 0


class TsmpReject(msgspec.Struct, frozen=True):
    """`protocol`, `source_port` and `destination_port` describe the rejected flow as it was sent.

    `reason` is the letter of a `RejectReason`. `maybe_broken` marks a guess about a misconfiguration,
    after which the flow may still work.
    """

    protocol: int
    reason: str
    source_port: int
    destination_port: int
    maybe_broken: bool = False


TsmpMessage = TsmpPing | TsmpPong | TsmpReject


def encode_tsmp(message: TsmpMessage) -> bytes:
    """The body, to go into an IP packet of protocol 99."""
    match message:
        case TsmpPing(data=data):
            return bytes((_PING,)) + data
        case TsmpPong(data=data, peerapi_port=port):
            return bytes((_PONG,)) + data + port.to_bytes(2, "big")
        case TsmpReject():
            body = bytes((_REJECT, message.protocol)) + message.reason.encode("latin-1")
            body += message.source_port.to_bytes(2, "big") + message.destination_port.to_bytes(2, "big")
            return body + bytes((_MAYBE_BROKEN,)) if message.maybe_broken else body


def decode_tsmp(body: bytes, /) -> TsmpMessage | None:
    """The message in a body; None for a type that is not spoken here, `WireError` when it is cut short."""
    cursor = Cursor(body)
    kind = cursor.u8()
    if kind == _PING:
        return TsmpPing(cursor.take(DATA_SIZE))
    if kind == _PONG:
        data = cursor.take(DATA_SIZE)
        return TsmpPong(data, cursor.u16be() if cursor.remaining >= 2 else 0)
    if kind == _REJECT:
        return _decode_reject(cursor)
    return None


def _decode_reject(cursor: Cursor) -> TsmpReject:
    protocol = cursor.u8()
    reason = cursor.take(1).decode("latin-1")
    source_port, destination_port = cursor.u16be(), cursor.u16be()
    flags = cursor.u8() if cursor.remaining else 0
    return TsmpReject(protocol, reason, source_port, destination_port, bool(flags & _MAYBE_BROKEN))


def encode_tsmp_packet(source: IPAddress, destination: IPAddress, message: TsmpMessage) -> bytes:
    """A whole IP packet that carries the message."""
    return encode_ip(source, destination, PROTO_TSMP, encode_tsmp(message))
