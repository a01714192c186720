"""Answers to packets that the operating system does not see: ICMP echo to our own addresses.

Used where there is no TUN device (userspace mode), and for the service address 100.100.100.100.
"""

from __future__ import annotations

from collections.abc import Container

from meshd.base.addr import IPAddress
from meshd.base.errors import WireError
from meshd.wire.ippacket import Echo, decode_echo, decode_ip, encode_echo


def answer(packet: bytes, own: Container[IPAddress]) -> bytes | None:
    """The echo reply to a request that is addressed to one of ``own``; None for everything else."""
    try:
        ip = decode_ip(packet)
        echo = decode_echo(ip) if ip.destination in own else None
    except WireError:
        return None
    if echo is None or echo.reply:
        return None
    return encode_echo(ip.destination, ip.source, Echo(True, echo.identifier, echo.sequence, echo.data))
