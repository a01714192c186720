"""Giving out addresses: one number makes both the IPv4 and the IPv6 address of a node."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address

from meshd.base.errors import MeshdError
from meshd.base.ranges import CGNAT, CHROMEOS_VM, SERVICE_V6, ULA

_RESERVED = (IPv4Network("100.100.0.0/24"), IPv4Network("100.100.100.0/24"), CHROMEOS_VM)
"""Parts of 100.64.0.0/10 with a meaning of their own: service addresses and the Chrome OS virtual machine."""


def _allowed(number: int) -> bool:
    v4 = CGNAT.network_address + number
    if any(v4 in network for network in _RESERVED) or v4 == CGNAT.broadcast_address:
        return False
    return ULA.network_address + number != SERVICE_V6


class AddressPool:
    """Numbers go up one by one and wrap round, so that an address comes back as late as possible."""

    def __init__(self, last: int = 0) -> None:
        self.last = last
        """The number given out last; store it with the node."""
        self._used: set[int] = set()

    def claim(self, v4: str) -> None:
        """A node that is loaded has this address."""
        self._used.add(int(IPv4Address(v4)) - int(CGNAT.network_address))

    def release(self, v4: str) -> None:
        self._used.discard(int(IPv4Address(v4)) - int(CGNAT.network_address))

    def allocate(self) -> tuple[str, str]:
        """The next free pair (IPv4, IPv6). MeshdError when all four million are taken."""
        for _ in range(CGNAT.num_addresses):
            self.last = self.last + 1 if self.last + 1 < CGNAT.num_addresses else 1
            if self.last not in self._used and _allowed(self.last):
                self._used.add(self.last)
                v4: IPv4Address = CGNAT.network_address + self.last
                v6: IPv6Address = ULA.network_address + self.last
                return str(v4), str(v6)
        raise MeshdError("no address is left in 100.64.0.0/10", code="full")
