"""SOCKS version 5 (RFC 1928): the messages of a server that offers CONNECT without authentication."""

from __future__ import annotations

from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address

import msgspec

from meshd.base.errors import WireError

VERSION = 5
NO_AUTHENTICATION = 0
NO_ACCEPTABLE_METHOD = 0xFF
CONNECT = 1
_IPV4, _NAME, _IPV6 = 1, 3, 4


class Reply(IntEnum):
    """RFC 1928 section 6."""

    SUCCEEDED = 0
    GENERAL_FAILURE = 1
    NOT_ALLOWED = 2
    NETWORK_UNREACHABLE = 3
    HOST_UNREACHABLE = 4
    CONNECTION_REFUSED = 5
    TTL_EXPIRED = 6
    COMMAND_NOT_SUPPORTED = 7
    ADDRESS_TYPE_NOT_SUPPORTED = 8


class ConnectRequest(msgspec.Struct, frozen=True):
    """Where the client wants to go: an address in text form or a name, and a port."""

    command: int
    host: str
    port: int


def decode_greeting(data: bytes) -> tuple[list[int], int] | None:
    """Offered methods and the bytes consumed; None when more input is needed."""
    if not data:
        return None
    if data[0] != VERSION:
        raise WireError(f"SOCKS version {data[0]}", expected="5")
    if len(data) < 2 or len(data) < 2 + data[1]:
        return None
    return list(data[2 : 2 + data[1]]), 2 + data[1]


def encode_method(method: int) -> bytes:
    return bytes([VERSION, method])


def decode_request(data: bytes) -> tuple[ConnectRequest, int] | None:
    """The request and the bytes consumed; None when more input is needed."""
    if len(data) < 5:
        return None
    if data[0] != VERSION:
        raise WireError(f"SOCKS version {data[0]}", expected="5")
    kind = data[3]
    sizes = {_IPV4: 4, _IPV6: 16, _NAME: data[4]}
    if kind not in sizes:
        raise WireError(f"SOCKS address type {kind}", offset=3)
    start = 5 if kind == _NAME else 4
    end = start + sizes[kind]
    if len(data) < end + 2:
        return None
    raw = data[start:end]
    port = int.from_bytes(data[end : end + 2], "big")
    if kind == _IPV4:
        host = str(IPv4Address(raw))
    elif kind == _IPV6:
        host = str(IPv6Address(raw))
    else:
        try:
            host = raw.decode("ascii")
        except UnicodeDecodeError:
            raise WireError("a SOCKS name that is not ASCII", offset=start) from None
        if not host or not host.isprintable():
            raise WireError("an empty or unprintable SOCKS name", offset=start)
    return ConnectRequest(data[1], host, port), end + 2


def encode_reply(reply: Reply, address: IPv4Address | IPv6Address | None = None, port: int = 0) -> bytes:
    """A reply with the address that the server connects from, 0.0.0.0 when there is none."""
    bound = address if address is not None else IPv4Address(0)
    kind = _IPV4 if isinstance(bound, IPv4Address) else _IPV6
    return bytes([VERSION, reply, 0, kind]) + bound.packed + port.to_bytes(2, "big")
