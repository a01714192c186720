"""UDP in batches: one system call sends or receives up to 64 datagrams of one size."""

from typing import final

def set_buffers(fd: int, size: int) -> tuple[int, int]:
    """Ask for socket buffers of size bytes, beyond the system's limits where that is allowed.

    Returns the receive and send sizes in force.
    """

def enable_offload(fd: int) -> bool:
    """Let received datagrams of one flow arrive as one read (UDP_GRO), where the kernel can.

    Returns whether the socket can cut one large write into datagrams (UDP_SEGMENT). Reads then need
    buffers of 64 KiB.
    """

def gro_size(control: list[tuple[int, int, bytes]]) -> int:
    """The datagram size among control messages (level, type, data) in any order; 0 = none."""

def send(
    fd: int, address: bytes, port: int, data: bytes, segment: int, *, gso: bool = True, tail: bool = False
) -> tuple[int, bool]:
    """Send data as datagrams of segment bytes, the last one shorter.

    At most 64 datagrams and 65507 bytes. Falls back to plain datagrams when the device cannot segment
    (EIO, for good) or one is larger than the path takes (EINVAL, EMSGSIZE, this time). tail: append a
    one-byte datagram, which receivers ignore, to batches of equal size (needed on Linux 7.0 to 7.1.4).
    Returns the errno of the loss or 0, and whether segmentation is still in use.
    """

@final
class Reader:
    """Receive buffers for one socket at a time: 16 slots of 64 KiB, mapped when first filled."""

    def __init__(self) -> None: ...
    def receive(self, fd: int) -> list[tuple[bytes, int, bytes]]:
        """Datagrams waiting, as (address of 4 or 16 bytes, port, data); empty when there are none.

        Coalesced reads are cut into datagrams; one that was truncated, or whose control message was,
        is left out. Raises OSError.
        """
