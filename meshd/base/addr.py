"""IP addresses, prefixes and address:port pairs of the slow path.

The fast path uses packed bytes; these are the types that decisions are made with.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple

IPAddress = IPv4Address | IPv6Address
IPPrefix = IPv4Network | IPv6Network

_V4_MAPPED = bytes(10) + b"\xff\xff"


def parse_ip(text: str) -> IPAddress:
    """An address without zone; ValueError otherwise. IPv4-mapped IPv6 becomes IPv4."""
    address = ip_address(text)
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            raise ValueError(f"{text!r} has a zone")
        return address.ipv4_mapped or address
    return address


def parse_prefix(text: str) -> IPPrefix:
    """A prefix with its ``/bits``; ValueError when they are missing or host bits are set."""
    if "/" not in text:
        raise ValueError(f"{text!r} has no /bits")
    return ip_network(text, strict=True)


def host_prefix(address: IPAddress) -> IPPrefix:
    """The /32 or /128 of an address."""
    if isinstance(address, IPv4Address):
        return IPv4Network((address, 32))
    return IPv6Network((address, 128))


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
    def unpack(cls, packed: bytes, port: int) -> AddrPort:
        """From 4 or 16 address bytes as the fast path reports them."""
        return cls(unpack_ip(packed), port)

    def mapped16(self) -> bytes:
        return mapped16(self.ip)

    def __str__(self) -> str:
        return f"{self.ip}:{self.port}" if isinstance(self.ip, IPv4Address) else f"[{self.ip}]:{self.port}"
