"""Frames of a relay connection (DERP): what a read brought, and bundles of datagrams in one frame.

A bundle is a relayed packet that holds several WireGuard messages of one size, of which the last may be shorter:
``0x42 0x00``, their size (u16 big-endian), the messages. No other program knows bundles: only peers that asked for
them get any.
"""

from collections.abc import Iterator
from typing import NamedTuple, final

MAX_FRAME: int
MAX_PACKET: int
BUNDLE_TYPE: int
BUNDLE_BYTES: int
"""The messages of a bundle that we send are together no longer."""

@final
class RelayedPackets:
    """WireGuard transport messages as they stand in what was read; iterating copies them out one by one.

    ``Plane.open_from`` takes them without.
    """

    def __len__(self) -> int:
        """Messages, those in bundles counted one by one."""

    def __iter__(self) -> Iterator[bytes]: ...

class Frames(NamedTuple):
    """What a piece of the stream holds."""

    whole: int
    """So many bytes are whole frames; what follows is the beginning of another one."""
    needed: int
    """How long that beginning has to become, as far as it tells; 5 or less when not even the length is there."""
    transport: RelayedPackets
    """What seems to be WireGuard data, in order. A bundle may hold anything: it was not looked into."""
    others: list[tuple[bytes, bytes]]
    """Other relayed packets, each with the node key of its sender."""
    sources: set[bytes]
    """Node keys of all senders."""
    control: list[tuple[int, bytes]]
    """Frames of other types."""

def split_frames(data: bytes) -> Frames:
    """Cut what was read into frames.

    ``needed`` beyond ``MAX_FRAME`` + 5 tells of a frame that must be refused; nothing after it was looked at. Packets
    beyond ``MAX_PACKET`` are among ``control``, and so are frames of type 5 that are too short for a sender.
    """
