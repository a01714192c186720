"""Merging of IP packets before they are written to a TUN with a virtio-net header."""

from collections.abc import Iterable

from _typeshed import ReadableBuffer

def coalesce(packets: Iterable[ReadableBuffer], *, tcp: bool = True, udp: bool = True) -> list[tuple[bytes, bytes]]:
    """Merge one batch (at most 128 packets); pairs of virtio-net header (10 bytes) and packet.

    TCP segments of one flow with the same acknowledgement number, options, class, hop limit and DF
    bit are joined when they are adjacent in sequence, in either order; datagrams of one UDP flow
    only in order of arrival. A packet with a wrong checksum, with IPv4 options, IPv6 extension
    headers or other flags than ACK and PSH is left as it came. A merged packet carries the folded
    pseudo-header sum in its checksum field and NEEDS_CSUM in its header.
    """
