"""Parsing of IP packets as the packet filter sees them, and the Internet checksum."""

from typing import final

from _typeshed import ReadableBuffer

STATUS_NAMES: tuple[str, ...]
"""Names of the parser's statuses, by number."""

@final
class PacketInfo:
    """The headers of one IP packet."""

    version: int
    """4 or 6."""
    proto: int
    """IP protocol; 0 when the transport header cannot be trusted, 255 for a later fragment."""
    tcp_flags: int
    icmp_type: int
    icmp_code: int
    icmp_id: int
    """Identifier of an echo request or reply, else 0."""
    l4_offset: int
    total_bytes: int
    """Length by the IP header; the buffer may be longer (padding)."""
    src_port: int
    dst_port: int
    src: bytes
    dst: bytes

def parse(data: ReadableBuffer, /) -> PacketInfo:
    """The headers of one IP packet.

    Of the IPv6 extension headers only a fragment header right after the IP header is followed (RFC 8200 4.5): for any
    other the next header is the protocol. A transport header that does not fit, a
    first fragment with less than 10 transport bytes or a later fragment at offset below 80 bytes gives protocol 0.
    Raises ValueError naming the reason for a packet that is empty, shorter than its header or total length, or
    neither IPv4 nor IPv6.
    """

def checksum(data: ReadableBuffer, initial: int = 0, /) -> int:
    """The Internet checksum (RFC 1071) of `data`, as the big-endian number that goes into the header.

    `initial` is a 16-bit partial sum (not complemented) that is added first. Zero over data that includes a correct
    checksum field.
    """

def transport_checksum(packet: ReadableBuffer, /) -> int:
    """The checksum over pseudo header and transport bytes of a whole IP packet, its own field included as it stands.

    0 for a correct TCP, UDP or ICMPv6 packet. Raises ValueError for a malformed IP packet.
    """

def update_checksum(check: int, old: ReadableBuffer, new: ReadableBuffer, /) -> int:
    """The checksum field after bytes `old` of the covered data became `new` (RFC 1624 eqn. 3).

    `check` is the big-endian number in the header. Both byte strings must have an even length and start at an even
    offset of the covered data.
    """
