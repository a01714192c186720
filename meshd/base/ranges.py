"""Address ranges with a meaning of their own in a Tailscale network."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from meshd.base.addr import IPAddress

CGNAT = IPv4Network("100.64.0.0/10")
CHROMEOS_VM = IPv4Network("100.115.92.0/23")  # lies inside CGNAT, is never ours
ULA = IPv6Network("fd7a:115c:a1e0::/48")
VIA = IPv6Network("fd7a:115c:a1e0:b1a::/64")  # IPv4 subnets behind a site number
SERVICE_V4 = IPv4Address("100.100.100.100")
SERVICE_V6 = IPv6Address("fd7a:115c:a1e0::53")
DERP_MAGIC_IP = IPv4Address("127.3.3.40")  # stands for "by relay"; the port is the region


def is_tailscale_ip(address: IPAddress) -> bool:
    """Whether control servers hand out this address to nodes."""
    if isinstance(address, IPv4Address):
        return address in CGNAT and address not in CHROMEOS_VM
    return address in ULA
