"""Answers to packets that the operating system does not see: ICMP echo to our own addresses.

Used where there is no TUN device (userspace mode), and for the service address 100.100.100.100.
"""

from __future__ import annotations

from collections.abc import Container

from meshd.base.addr import IPAddress
from meshd.base.errors import WireError
from meshd.wire.ippacket import PROTO_ICMPV4, PROTO_ICMPV6, Echo, decode_echo, decode_ip, encode_echo


def _may_be_icmp(packet: bytes) -> bool:
    """A quick look: most packets are something else."""
    return len(packet) > 9 and (packet[9] == PROTO_ICMPV4 if packet[0] >> 4 == 4 else packet[6] == PROTO_ICMPV6)


def answer(packet: bytes, own: Container[IPAddress]) -> bytes | None:
    """The echo reply to a request that is addressed to one of ``own``; None for everything else."""
    if not _may_be_icmp(packet):
        return None
    try:
        ip = decode_ip(packet)
        echo = decode_echo(ip) if ip.destination in own else None
    except WireError:
        return None
    if echo is None or echo.reply:
        return None
    return encode_echo(ip.destination, ip.source, Echo(True, echo.identifier, echo.sequence, echo.data))
