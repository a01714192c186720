"""Twin of meshd._fast.ipprefix over the standard library's ipaddress."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network, summarize_address_range

Network = IPv4Network | IPv6Network
Pair = tuple[bytes, int]


def network(address: bytes, bits: int) -> Network:
    return ip_network((address, bits), strict=False)


def pair(net: Network) -> Pair:
    return net.network_address.packed, net.prefixlen


def summarize(first: bytes, last: bytes) -> list[Pair]:
    return [pair(net) for net in summarize_address_range(ip_address(first), ip_address(last))]


def contains(outer: Network, inner: Network) -> bool:
    return outer.version == inner.version and inner.subnet_of(outer)


def overlaps(a: Network, b: Network) -> bool:
    return a.version == b.version and a.overlaps(b)


def subtract(a: Network, b: Network) -> list[Pair]:
    if not overlaps(a, b):
        return [pair(a)]
    if contains(b, a):
        return []
    return sorted(pair(net) for net in a.address_exclude(b))
