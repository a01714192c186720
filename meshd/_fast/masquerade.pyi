"""Addresses of ours that one peer knows us by, in place of the ones that we have."""

from collections.abc import Iterable
from typing import final

@final
class Masquerade:
    """One peer's pairs. What the methods do, packet threads do on the way to and from the peer."""

    def __init__(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """pairs: our address and the one the peer knows, 4 or 16 bytes, at most one pair a family.

        Raises ValueError for others.
        """

    def outbound(self, packet: bytes, *, partial: bool = False) -> bytes:
        """An IP packet to the peer: our address as its source becomes the one that the peer knows.

        Checksums are kept right (RFC 1624); partial: the transport checksum field holds the sum of the pseudo header
        only, as with VIRTIO_NET_HDR_F_NEEDS_CSUM. Raises ValueError for what is no IP packet.
        """

    def inbound(self, packet: bytes) -> bytes:
        """An IP packet from the peer: the address it knows becomes ours as destination. Raises as outbound."""
