"""The relay built into the server, as clients are told of it."""

from __future__ import annotations

from meshd.coord.options import PublicAddress
from meshd.wire.control import DERPMap, DERPNode, DERPRegion

REGION_ID = 900
"""900 to 999 are for private relays."""


def derp_map(address: PublicAddress, *, stun_port: int, pin: str | None, enabled: bool) -> DERPMap:
    """A map with the built-in relay as its only region, or with no region.

    The relay shares the port of the server. With an http:// address its certificate is self-signed and clients pin
    `pin`; with https:// it is whatever stands at that address, checked the ordinary way.
    """
    if not enabled:
        return DERPMap(regions={})
    pinned = pin if address.scheme == "http" else None
    node = DERPNode(
        name=f"{REGION_ID}a",
        region_id=REGION_ID,
        host_name=address.host,
        cert_name=f"sha256-raw:{pinned}" if pinned else "",
        ipv4=address.host if address.is_v4 else "none" if address.is_v6 else "",
        ipv6=address.host if address.is_v6 else "none" if address.is_v4 else "",
        stun_port=stun_port,
        derp_port=address.port,
        insecure_for_tests=pinned is not None,
        can_port80=address.scheme == "http" and address.port == 80,
    )
    region = DERPRegion(region_id=REGION_ID, region_code="mesh", region_name="Mesh relay", nodes=(node,))
    return DERPMap(regions={REGION_ID: region})
