"""The ioctls that make a file descriptor of /dev/net/tun an interface (Linux TUN/TAP)."""

OFFLOAD_CSUM: int
"""Checksums may be left to us."""
OFFLOAD_TSO: int
"""TCP over IPv4 and IPv6 may come unsegmented."""
OFFLOAD_USO: int
"""UDP may come unsegmented (Linux 6.2)."""

def attach(fd: int, name: str, *, vnet_header: bool = True, multi_queue: bool = False) -> str:
    """Create or join the interface; returns its name, chosen by the kernel when name is "" or has %d.

    Raises OSError (EPERM without CAP_NET_ADMIN, EBUSY when another process has it, EINVAL when the
    kernel does not know a flag) and ValueError for a name no interface can have.
    """

def set_offload(fd: int, features: int) -> bool:
    """Ask for a sum of OFFLOAD_*; False when this kernel does not know one of them."""
