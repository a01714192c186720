"""Address ranges with a meaning of their own in a Tailscale network."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from meshd.base.addr import IPAddress, IPPrefix

CGNAT = IPv4Network("100.64.0.0/10")
CHROMEOS_VM = IPv4Network("100.115.92.0/23")  # lies inside CGNAT, is never ours
ULA = IPv6Network("fd7a:115c:a1e0::/48")
VIA = IPv6Network("fd7a:115c:a1e0:b1a::/64")  # IPv4 subnets behind a site number
SERVICE_V4 = IPv4Address("100.100.100.100")
SERVICE_V6 = IPv6Address("fd7a:115c:a1e0::53")
DERP_MAGIC_IP = IPv4Address("127.3.3.40")  # stands for "by relay"; the port is the region

# The leading bits of the ranges, for a quick answer.
_CGNAT_BITS = int(CGNAT.network_address) >> 22
_CHROMEOS_BITS = int(CHROMEOS_VM.network_address) >> 9
_ULA_BITS = int(ULA.network_address) >> 80


def is_via(prefix: IPPrefix) -> bool:
    """Whether the route stands for IPv4 networks of sites."""
    return isinstance(prefix, IPv6Network) and prefix.subnet_of(VIA)


def is_tailscale_ip(address: IPAddress) -> bool:
    """Whether control servers hand out this address to nodes."""
    number: int = address._ip  # type: ignore[union-attr]  # what int() gives, without two calls
    if isinstance(address, IPv4Address):
        return number >> 22 == _CGNAT_BITS and number >> 9 != _CHROMEOS_BITS
    return number >> 80 == _ULA_BITS
