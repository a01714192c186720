"""Plain-Python twin of meshd._fast.derpframes."""

from __future__ import annotations

from typing import NamedTuple

from meshd._fast.derpframes import BUNDLE_BYTES, BUNDLE_TYPE, MAX_FRAME, MAX_PACKET

RECV_PACKET = 5
TRANSPORT = b"\x04\0\0\0"


class Frames(NamedTuple):
    whole: int
    needed: int
    transport: list[bytes]
    others: list[tuple[bytes, bytes]]
    sources: set[bytes]
    control: list[tuple[int, bytes]]


def split_frames(data: bytes) -> Frames:
    """As the C one, with the messages cut out."""
    found = Frames(0, 5, [], [], set(), [])
    at = 0
    while len(data) - at >= 5:
        kind, length = data[at], int.from_bytes(data[at + 1 : at + 5], "big")
        if length > MAX_FRAME or len(data) - at < 5 + length:
            return found._replace(whole=at, needed=5 + length)
        body = data[at + 5 : at + 5 + length]
        at += 5 + length
        if kind != RECV_PACKET or not 32 <= length <= 32 + MAX_PACKET:
            found.control.append((kind, body))
            continue
        source, packet = body[:32], body[32:]
        found.sources.add(source)
        if messages := unbundle(packet):
            found.transport.extend(messages)
        elif packet.startswith(TRANSPORT):
            found.transport.append(packet)
        else:
            found.others.append((source, packet))
    return found._replace(whole=at)


def unbundle(packet: bytes) -> list[bytes]:
    """What is in a bundle; nothing when it is none."""
    segment = int.from_bytes(packet[2:4], "big")
    if len(packet) <= 4 or packet[:2] != bytes((BUNDLE_TYPE, 0)) or not segment:
        return []
    return [packet[at : at + segment] for at in range(4, len(packet), segment)]


def bundle(data: bytes, segment: int) -> list[bytes]:
    """The relayed packets that a run of datagrams becomes."""
    count, most = -(-len(data) // segment), BUNDLE_BYTES // segment
    if most < 2 or count < 2:
        return [data[at : at + segment] for at in range(0, len(data), segment)]
    frames = -(-count // most)
    each = -(-count // frames) * segment
    parts = [data[at : at + each] for at in range(0, len(data), each)]
    head = bytes((BUNDLE_TYPE, 0)) + segment.to_bytes(2, "big")
    return [head + part if len(part) > segment else part for part in parts]
