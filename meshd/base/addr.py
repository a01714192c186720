"""IP addresses, prefixes and address:port pairs of the slow path.

The fast path uses packed bytes; these are the types that decisions are made with.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, NamedTuple

from meshd._fast.addresstext import endpoint_of, endpoints_of, host_of, node_prefixes
from meshd._fast.ipprefix import format_address, parse_address

IPAddress = IPv4Address | IPv6Address
IPPrefix = IPv4Network | IPv6Network

_ZEROS = bytes(10)
_V4_MAPPED = _ZEROS + b"\xff\xff"
_LINK_LOCAL = b"\xfe\x80"


def parse_ip(text: str) -> IPAddress:
    """An address without zone; ValueError otherwise. IPv4-mapped IPv6 becomes IPv4."""
    try:
        return unpack_ip(parse_address(text))  # several times faster than ``ipaddress``
    except ValueError:
        address = ip_address(text)  # says what is wrong
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise ValueError(f"{text!r} has a zone")
    return unpack_ip(address.packed)


def is_address(text: str) -> bool:
    """Whether a text is an address, maybe with a zone."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def parse_zoned_ip(text: str) -> IPAddress:
    """An address that may have a zone, ``fe80::1%eth0``, which is kept where nothing reaches the address without."""
    host, separator, zone = text.partition("%")
    address = parse_ip(host)
    if not separator:
        return address
    if not zone.isprintable():
        raise ValueError(f"{text!r} has a zone that names no interface")
    zoned = IPv6Address(f"{address}%{zone}")  # ValueError for IPv4
    return zoned if address.is_link_local else address


def format_ip(address: IPAddress) -> str:
    """``str`` of an address, several times faster."""
    packed = address.packed
    if packed.startswith((_ZEROS, _LINK_LOCAL)):  # the system writes some with dots, and some have a zone
        return str(address)
    return format_address(packed)


def parse_prefix(text: str) -> IPPrefix:
    """A prefix with its ``/bits``; ValueError when they are missing or host bits are set."""
    host = host_of(text)
    if host is not None:
        return host_prefix(host)
    if "/" not in text:
        raise ValueError(f"{text!r} has no /bits")
    return ip_network(text, strict=True)


class _Host4(IPv4Network):
    """A /32 that holds nothing but its address: a network map has tens of thousands of them, and a plain
    ``IPv4Network`` takes four times the memory and ten times as long to make. Equal to a plain one."""

    _prefixlen = prefixlen = max_prefixlen = 32  # properties of a plain one
    version = 4
    netmask = IPv4Address(0xFFFFFFFF)

    def __new__(cls, *arguments: Any) -> Any:  # IPv4Network's own methods make other prefixes this way
        return IPv4Network(*arguments) if arguments else object.__new__(cls)

    def __eq__(self, other: object) -> bool:
        if type(other) is _Host4:
            same: bool = self.network_address._ip == other.network_address._ip  # type: ignore[attr-defined]
            return same
        return super().__eq__(other)

    def __hash__(self) -> int:
        return hash(self.network_address._ip ^ 0xFFFFFFFF)  # type: ignore[attr-defined]

    def __str__(self) -> str:
        return f"{format_address(self.network_address.packed)}/32"

    def __repr__(self) -> str:
        return f"IPv4Network('{self}')"

    def hosts(self) -> list[IPv4Address]:  # type: ignore[override]  # as IPv4Network does for a /32
        return [self.network_address]


class _Host6(IPv6Network):
    """A /128 of the same kind."""

    _prefixlen = prefixlen = max_prefixlen = 128
    version = 6
    netmask = IPv6Address(2**128 - 1)

    def __new__(cls, *arguments: Any) -> Any:
        return IPv6Network(*arguments) if arguments else object.__new__(cls)

    def __eq__(self, other: object) -> bool:
        if type(other) is _Host6:
            same: bool = self.network_address._ip == other.network_address._ip  # type: ignore[attr-defined]
            return same
        return super().__eq__(other)

    def __hash__(self) -> int:
        return hash(self.network_address._ip ^ (2**128 - 1))  # type: ignore[attr-defined]

    def __str__(self) -> str:
        return f"{format_ip(self.network_address)}/128"

    def __repr__(self) -> str:
        return f"IPv6Network('{self}')"

    def hosts(self) -> list[IPv6Address]:  # type: ignore[override]
        return [self.network_address]


def host_prefix(address: IPAddress) -> IPPrefix:
    """The /32 or /128 of an address."""
    if isinstance(address, IPv4Address):
        prefix4 = object.__new__(_Host4)
        prefix4.network_address = address
        return prefix4
    prefix6 = object.__new__(_Host6)
    prefix6.network_address = address
    return prefix6


def covers(outer: IPPrefix, inner: IPPrefix) -> bool:
    """Whether all of ``inner`` is in ``outer``; prefixes of two families have nothing in common."""
    if isinstance(outer, IPv4Network):
        return isinstance(inner, IPv4Network) and outer.supernet_of(inner)
    return isinstance(inner, IPv6Network) and outer.supernet_of(inner)


def usual_node_prefixes(texts: tuple[str, ...]) -> tuple[IPPrefix, ...] | None:
    """The prefixes of a node's addresses, when all are single ones of the ranges that nodes have, and none is a
    service's or stands there twice; None otherwise, which needs a closer look."""
    return node_prefixes(texts, _Host4, _Host6)


def unpack_ip(packed: bytes) -> IPAddress:
    """The address of 4 or 16 bytes; ::ffff:a.b.c.d becomes IPv4."""
    if len(packed) == 4:
        return IPv4Address(packed)
    if len(packed) == 16:
        return IPv4Address(packed[12:]) if packed.startswith(_V4_MAPPED) else IPv6Address(packed)
    raise ValueError(f"an address has 4 or 16 bytes, not {len(packed)}")


def mapped16(address: IPAddress) -> bytes:
    """The 16-byte form used by disco, DERP and PCP: IPv4 as ::ffff:a.b.c.d."""
    return _V4_MAPPED + address.packed if isinstance(address, IPv4Address) else address.packed


class AddrPort(NamedTuple):
    """An address and a UDP or TCP port, written ``1.2.3.4:5`` or ``[::1]:5``."""

    ip: IPAddress
    port: int

    @classmethod
    def parse(cls, text: str) -> AddrPort:
        """ValueError when it is not ``ip:port`` with a port of 0..65535."""
        usual = endpoint_of(text)
        if usual is not None:
            return tuple.__new__(cls, usual)
        host, separator, port = text.rpartition(":")
        if not separator or not port.isascii() or not port.isdigit() or len(port) > 5 or int(port) > 65535:
            raise ValueError(f"{text!r} is not ip:port")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
            if ":" not in host:
                raise ValueError(f"{text!r} has brackets around something that is not IPv6")
        elif ":" in host:
            raise ValueError(f"{text!r} lacks brackets around the IPv6 address")
        return cls(parse_ip(host), int(port))

    @classmethod
    def usual(cls, texts: tuple[str, ...]) -> tuple[AddrPort, ...] | None:
        """All of them, when each can be sent to (a port; neither unspecified nor multicast); else None."""
        return endpoints_of(texts, cls)

    @classmethod
    def unpack(cls, packed: bytes, port: int) -> AddrPort:
        """From 4 or 16 address bytes as the fast path reports them."""
        return cls(unpack_ip(packed), port)

    def mapped16(self) -> bytes:
        return mapped16(self.ip)

    def __str__(self) -> str:
        text = format_ip(self.ip)
        return f"[{text}]:{self.port}" if ":" in text else f"{text}:{self.port}"
