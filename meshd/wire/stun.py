"""STUN as relays speak it: a binding request with two fixed attributes, one address in the answer.

    request   0001 | 0014 | 2112a442 | txid(12) | 8022 0008 "tailnode" | 8028 0004 fingerprint
    response  0101 | length | 2112a442 | txid | 0020 length 00 family port address   (XORed, RFC 5389 15.2)

Servers answer nothing but that request, so they cannot be used by ordinary STUN clients.
"""

from __future__ import annotations

from typing import Final
from zlib import crc32

from meshd.base.addr import AddrPort, IPAddress, unpack_ip
from meshd.base.errors import WireError
from meshd.wire.cursor import Cursor

COOKIE: Final = b"\x21\x12\xa4\x42"
HEADER_SIZE: Final = 20
TXID_SIZE: Final = 12
REQUEST_SIZE: Final = 40

_BINDING_REQUEST: Final = b"\x00\x01"
_BINDING_RESPONSE: Final = b"\x01\x01"
_SOFTWARE: Final = b"\x80\x22\x00\x08tailnode"
_FINGERPRINT: Final = b"\x80\x28\x00\x04"
_FINGERPRINT_XOR: Final = 0x5354554E
_MAPPED: Final = 0x0001
_XOR_MAPPED: Final = 0x0020
_XOR_MAPPED_OLD: Final = 0x8020
_FAMILY_V4: Final = 1
_FAMILY_V6: Final = 2


def is_stun(datagram: bytes | memoryview) -> bool:
    """Whether the bytes have the shape of a STUN message (RFC 5389 6)."""
    return len(datagram) >= HEADER_SIZE and datagram[0] < 0x40 and bytes(datagram[4:8]) == COOKIE


def encode_request(txid: bytes) -> bytes:
    """A 40-byte binding request; `txid` is 12 random bytes."""
    if len(txid) != TXID_SIZE:
        raise ValueError(f"a transaction id has {TXID_SIZE} bytes, not {len(txid)}")
    body = _BINDING_REQUEST + b"\x00\x14" + COOKIE + txid + _SOFTWARE
    return body + _FINGERPRINT + _fingerprint(body)


def decode_request(datagram: bytes, /) -> bytes:
    """Transaction id of a request that is to be answered; anything else is a `WireError`."""
    if len(datagram) != REQUEST_SIZE or not is_stun(datagram) or datagram[:4] != _BINDING_REQUEST + b"\x00\x14":
        raise WireError(f"not a binding request: {len(datagram)} bytes")
    body, tail = datagram[: REQUEST_SIZE - 8], datagram[REQUEST_SIZE - 8 :]
    if body[HEADER_SIZE:] != _SOFTWARE or tail != _FINGERPRINT + _fingerprint(body):
        raise WireError("binding request of another kind of client", offset=HEADER_SIZE)
    return datagram[8:HEADER_SIZE]


def encode_response(txid: bytes, source: AddrPort) -> bytes:
    """The answer: `source` is where the request came from."""
    mask = COOKIE + txid
    packed = source.ip.packed
    family = _FAMILY_V4 if source.ip.version == 4 else _FAMILY_V6
    port = source.port ^ int.from_bytes(COOKIE[:2], "big")
    value = bytes((0, family)) + port.to_bytes(2, "big") + _xor(packed, mask)
    attribute = _XOR_MAPPED.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value
    return _BINDING_RESPONSE + len(attribute).to_bytes(2, "big") + mask + attribute


def decode_response(datagram: bytes, /) -> tuple[bytes, AddrPort]:
    """`(transaction id, address that the server saw)`; `WireError` without a usable address.

    An XORed address is preferred over a plain one. Bytes after the declared length are ignored.
    """
    if not is_stun(datagram) or datagram[:2] != _BINDING_RESPONSE:
        raise WireError(f"not a binding response: {len(datagram)} bytes")
    header = Cursor(datagram)
    header.take(2)
    length = header.u16be()
    header.take(len(COOKIE))
    txid = header.take(TXID_SIZE)
    attributes = Cursor(header.take(length))
    plain: AddrPort | None = None
    while attributes.remaining >= 4:
        kind = attributes.u16be()
        size = attributes.u16be()
        value = attributes.take(size)
        # Values are padded to four bytes; the padding of the last one may be missing.
        attributes.take(min(-size % 4, attributes.remaining))
        if kind in (_XOR_MAPPED, _XOR_MAPPED_OLD):
            return txid, _decode_address(value, COOKIE + txid)
        if kind == _MAPPED and plain is None:
            plain = _decode_address(value, bytes(len(COOKIE) + TXID_SIZE))
    if plain is None:
        raise WireError("binding response without an address")
    return txid, plain


def _decode_address(value: bytes, mask: bytes) -> AddrPort:
    cursor = Cursor(value)
    cursor.u8()
    family = cursor.u8()
    port = cursor.u16be() ^ int.from_bytes(mask[:2], "big")
    if family not in (_FAMILY_V4, _FAMILY_V6):
        raise WireError(f"unknown address family {family}", expected="1 or 2")
    packed = cursor.take(4 if family == _FAMILY_V4 else 16)
    address: IPAddress = unpack_ip(_xor(packed, mask))
    return AddrPort(address, port)


def _xor(data: bytes, mask: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(data, mask, strict=False))


def _fingerprint(body: bytes) -> bytes:
    return (crc32(body) ^ _FINGERPRINT_XOR).to_bytes(4, "big")
