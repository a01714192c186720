"""Small IP packets made and read by meshd itself: ICMP echo, UDP, and the headers around TSMP.

The data plane parses packets in `meshd._fast`; this is for the few that the node itself sends or answers.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Final

import msgspec

from meshd.base.addr import IPAddress
from meshd.base.errors import WireError
from meshd.wire.cursor import Cursor

PROTO_ICMPV4: Final = 1
PROTO_TCP: Final = 6
PROTO_UDP: Final = 17
PROTO_ICMPV6: Final = 58
PROTO_TSMP: Final = 99

IPV4_HEADER_SIZE: Final = 20
IPV6_HEADER_SIZE: Final = 40
HOP_LIMIT: Final = 64

_IPV4: Final = struct.Struct("!BxH2xHxB2x4s4s")  # first byte, total, fragment, protocol, source, destination
_IPV6: Final = struct.Struct("!4xHBx16s16s")  # payload length, next header, source, destination
_UDP: Final = struct.Struct("!4H")

_ICMPV4_ECHO_REQUEST: Final = 8
_ICMPV4_ECHO_REPLY: Final = 0
_ICMPV6_ECHO_REQUEST: Final = 128
_ICMPV6_ECHO_REPLY: Final = 129


class IPPacket(msgspec.Struct, frozen=True):
    """A packet taken apart. `payload` ends where the header says the packet ends."""

    source: IPAddress
    destination: IPAddress
    protocol: int
    payload: bytes


class Echo(msgspec.Struct, frozen=True):
    """ICMP or ICMPv6 echo; `reply` tells an answer from a question."""

    reply: bool
    identifier: int
    sequence: int
    data: bytes


class UDPDatagram(msgspec.Struct, frozen=True):
    """A UDP datagram inside a packet."""

    source_port: int
    destination_port: int
    data: bytes


def checksum(data: bytes, initial: int = 0) -> int:
    """Internet checksum (RFC 1071), complemented. `initial` is a partial, uncomplemented sum."""
    # 65536 is 1 modulo 65535, so the sum of all 16-bit words is the number that they make, modulo 65535; only zero is
    # written in two ways.
    number = int.from_bytes(data, "big") << (8 if len(data) & 1 else 0)
    total = number % 0xFFFF + initial
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    if not total and number:
        total = 0xFFFF
    return ~total & 0xFFFF


def pseudo_header_sum(source: IPAddress, destination: IPAddress, protocol: int, length: int) -> int:
    """Sum over the pseudo header, to start `checksum` with (RFC 768, RFC 8200 8.1)."""
    addresses = source.packed + destination.packed
    return int.from_bytes(addresses, "big") % 0xFFFF + protocol + (length >> 16) + (length & 0xFFFF)


def encode_ip(source: IPAddress, destination: IPAddress, protocol: int, payload: bytes) -> bytes:
    """An IPv4 or IPv6 packet, by the family of `source`; both addresses must be of one family."""
    if source.version != destination.version:
        raise ValueError(f"{source} and {destination} are of different families")
    if source.version == 6:
        return _ipv6_header(source, destination, protocol, len(payload)) + payload
    return _ipv4_header(source, destination, protocol, len(payload)) + payload


def _ipv4_header(source: IPAddress, destination: IPAddress, protocol: int, length: int) -> bytes:
    total = IPV4_HEADER_SIZE + length
    if total > 0xFFFF:
        raise ValueError(f"{total} bytes do not fit an IPv4 packet")
    addresses = source.packed + destination.packed
    before = b"\x45\x00" + total.to_bytes(2, "big") + b"\x00\x00\x00\x00" + bytes((HOP_LIMIT, protocol))
    return before + checksum(before + addresses).to_bytes(2, "big") + addresses


def _ipv6_header(source: IPAddress, destination: IPAddress, protocol: int, length: int) -> bytes:
    if length > 0xFFFF:
        raise ValueError(f"{length} bytes do not fit an IPv6 packet")
    start = b"\x60\x00\x00\x00" + length.to_bytes(2, "big") + bytes((protocol, HOP_LIMIT))
    return start + source.packed + destination.packed


def decode_ip(packet: bytes, /) -> IPPacket:
    """Take a packet apart. Fragments and IPv6 extension headers are a `WireError`."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= IPV4_HEADER_SIZE:
        return _decode_ipv4(packet)
    if version == 6 and len(packet) >= IPV6_HEADER_SIZE:
        return _decode_ipv6(packet)
    if packet and version not in (4, 6):
        raise WireError(f"IP version {version}", offset=0, expected="4 or 6")
    raise WireError(f"packet is too short: {len(packet)} bytes", offset=len(packet), expected="a whole header")


def _decode_ipv4(packet: bytes) -> IPPacket:
    first, total, fragment, protocol, source, destination = _IPV4.unpack_from(packet)
    header_size = (first & 0x0F) * 4
    if fragment & 0x3FFF:
        raise WireError("packet is a fragment", offset=6)
    if header_size < IPV4_HEADER_SIZE or total < header_size:
        raise WireError(f"header of {header_size} in a packet of {total} bytes", offset=0)
    if total > len(packet):
        raise WireError(f"packet is too short: {len(packet)} of {total} bytes", offset=len(packet))
    return IPPacket(IPv4Address(source), IPv4Address(destination), protocol, packet[header_size:total])


def _decode_ipv6(packet: bytes) -> IPPacket:
    length, protocol, source, destination = _IPV6.unpack_from(packet)
    end = IPV6_HEADER_SIZE + length
    if end > len(packet):
        raise WireError(f"packet is too short: {len(packet)} of {end} bytes", offset=len(packet))
    return IPPacket(IPv6Address(source), IPv6Address(destination), protocol, packet[IPV6_HEADER_SIZE:end])


# --- ICMP echo --------------------------------------------------------------------------------------------


def encode_echo(source: IPAddress, destination: IPAddress, echo: Echo) -> bytes:
    """A whole packet with an echo request or reply, ICMP or ICMPv6 by the family of the addresses."""
    v6 = source.version == 6
    if v6:
        kind = _ICMPV6_ECHO_REPLY if echo.reply else _ICMPV6_ECHO_REQUEST
    else:
        kind = _ICMPV4_ECHO_REPLY if echo.reply else _ICMPV4_ECHO_REQUEST
    protocol = PROTO_ICMPV6 if v6 else PROTO_ICMPV4
    tail = echo.identifier.to_bytes(2, "big") + echo.sequence.to_bytes(2, "big") + echo.data
    initial = pseudo_header_sum(source, destination, protocol, 4 + len(tail)) if v6 else 0
    header = bytes((kind, 0))
    body = header + checksum(header + b"\x00\x00" + tail, initial).to_bytes(2, "big") + tail
    return encode_ip(source, destination, protocol, body)


def decode_echo(packet: IPPacket, /) -> Echo | None:
    """The echo in a packet, None when it holds something else; `WireError` on a wrong checksum."""
    v6 = packet.source.version == 6
    if packet.protocol != (PROTO_ICMPV6 if v6 else PROTO_ICMPV4):
        return None
    cursor = Cursor(packet.payload)
    kind, code = cursor.u8(), cursor.u8()
    request, reply = (_ICMPV6_ECHO_REQUEST, _ICMPV6_ECHO_REPLY) if v6 else (_ICMPV4_ECHO_REQUEST, _ICMPV4_ECHO_REPLY)
    if code or kind not in (request, reply):
        return None
    length = len(packet.payload)
    initial = pseudo_header_sum(packet.source, packet.destination, packet.protocol, length) if v6 else 0
    if checksum(packet.payload, initial):
        raise WireError("ICMP checksum is wrong", offset=2)
    cursor.u16be()
    return Echo(kind == reply, cursor.u16be(), cursor.u16be(), cursor.rest())


# --- UDP --------------------------------------------------------------------------------------------------


def encode_udp(source: IPAddress, destination: IPAddress, datagram: UDPDatagram) -> bytes:
    """A whole packet with a UDP datagram."""
    length = 8 + len(datagram.data)
    if length > 0xFFFF:
        raise ValueError(f"{length} bytes do not fit a UDP datagram")
    ports = datagram.source_port.to_bytes(2, "big") + datagram.destination_port.to_bytes(2, "big")
    start = ports + length.to_bytes(2, "big")
    initial = pseudo_header_sum(source, destination, PROTO_UDP, length)
    # Zero would mean "no checksum" (RFC 768).
    total = checksum(start + b"\x00\x00" + datagram.data, initial) or 0xFFFF
    return encode_ip(source, destination, PROTO_UDP, start + total.to_bytes(2, "big") + datagram.data)


def decode_udp(packet: IPPacket, /) -> UDPDatagram | None:
    """The datagram in a packet, None when it holds something else; `WireError` on bad length or checksum."""
    if packet.protocol != PROTO_UDP:
        return None
    if len(packet.payload) < _UDP.size:
        raise WireError(f"UDP header of {len(packet.payload)} bytes", offset=0)
    source_port, destination_port, length, claimed = _UDP.unpack_from(packet.payload)
    if length < 8 or length > len(packet.payload):
        raise WireError(f"UDP length {length} in {len(packet.payload)} bytes", offset=4)
    body = packet.payload[:length]
    if claimed == 0 and packet.source.version == 6:
        raise WireError("UDP over IPv6 without checksum", offset=6)
    if claimed and checksum(body, pseudo_header_sum(packet.source, packet.destination, PROTO_UDP, length)):
        raise WireError("UDP checksum is wrong", offset=6)
    return UDPDatagram(source_port, destination_port, body[8:])


# --- TCP --------------------------------------------------------------------------------------------------

_TCP_HEADER_SIZE: Final = 20
_TCP_CHECKSUM: Final = slice(16, 18)


def tcp_ports(packet: IPPacket, /) -> tuple[int, int]:
    """Source and destination port; `WireError` when it is no whole TCP header."""
    if packet.protocol != PROTO_TCP or len(packet.payload) < _TCP_HEADER_SIZE:
        raise WireError("no whole TCP header", offset=0)
    return int.from_bytes(packet.payload[:2], "big"), int.from_bytes(packet.payload[2:4], "big")


def tcp_moved(
    packet: IPPacket, source: IPAddress, destination: IPAddress, source_port: int, destination_port: int
) -> bytes:
    """The segment in a whole packet between other addresses and ports."""
    ports = source_port.to_bytes(2, "big") + destination_port.to_bytes(2, "big")
    segment = bytearray(ports + packet.payload[4:])
    segment[_TCP_CHECKSUM] = b"\x00\x00"
    initial = pseudo_header_sum(source, destination, PROTO_TCP, len(segment))
    segment[_TCP_CHECKSUM] = checksum(bytes(segment), initial).to_bytes(2, "big")
    return encode_ip(source, destination, PROTO_TCP, bytes(segment))
