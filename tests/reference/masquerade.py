"""Address masquerading in plain Python: addresses are replaced and every checksum is computed anew."""

from __future__ import annotations

from collections.abc import Sequence

from tests.reference.packet import checksum

Pairs = Sequence[tuple[bytes, bytes]]
_CHECKSUM_AT = {6: 16, 17: 6, 58: 2}


def outbound(pairs: Pairs, packet: bytes) -> bytes:
    """To the peer: our own source becomes the one it knows."""
    return _replace(packet, {own: shown for own, shown in pairs}, source=True)


def inbound(pairs: Pairs, packet: bytes) -> bytes:
    """From the peer: the destination that it knows becomes our own."""
    return _replace(packet, {shown: own for own, shown in pairs}, source=False)


def transport_sum(packet: bytes) -> int | None:
    """The checksum of a whole packet's transport part, its own field taken as zero; None without one."""
    version, size = packet[0] >> 4, 4 if packet[0] >> 4 == 4 else 16
    header = (packet[0] & 15) * 4 if version == 4 else 40
    protocol = packet[9] if version == 4 else packet[6]
    at = _CHECKSUM_AT.get(protocol)
    body = bytearray(packet[header:])
    if at is None or (protocol == 58 and version == 4) or at + 2 > len(body):
        return None
    body[at : at + 2] = bytes(2)
    start = 12 if version == 4 else 8
    addresses = packet[start : start + 2 * size]
    pseudo = addresses + len(body).to_bytes(4, "big") + bytes(3) + bytes((protocol,))
    found: int = checksum(pseudo + bytes(body))
    return found or (0xFFFF if protocol == 17 else 0)


def _replace(packet: bytes, table: dict[bytes, bytes], *, source: bool) -> bytes:
    version, size = packet[0] >> 4, 4 if packet[0] >> 4 == 4 else 16
    start = (12 if version == 4 else 8) + (0 if source else size)
    wanted = table.get(packet[start : start + size])
    if wanted is None:
        return packet
    made = bytearray(packet)
    made[start : start + size] = wanted
    header = (packet[0] & 15) * 4 if version == 4 else 40
    if version == 4:
        made[10:12] = bytes(2)
        made[10:12] = checksum(bytes(made[:header])).to_bytes(2, "big")
    at = header + _CHECKSUM_AT.get(packet[9] if version == 4 else packet[6], 0)
    found = transport_sum(bytes(made))
    if found is not None and (packet[at : at + 2] != bytes(2) or (packet[9] if version == 4 else packet[6]) != 17):
        made[at : at + 2] = found.to_bytes(2, "big")
    return bytes(made)
