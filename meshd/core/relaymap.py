"""The relays a node may use, checked: regions of DERP and STUN servers."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address

import msgspec

DEFAULT_DERP_PORT = 443
DEFAULT_STUN_PORT = 3478


class RelayNode(msgspec.Struct, frozen=True):
    """One server of a region.

    ``ipv4`` and ``ipv6`` are addresses, the word ``none`` (do not use that family) or empty (ask DNS for
    ``host``). ``stun_port`` is -1 when the server answers no STUN. ``cert_name`` replaces ``host`` when
    the certificate is checked; ``sha256-raw:<hex>`` pins the leaf certificate instead. ``stun_test_ip`` is where
    STUN goes instead, and nothing but STUN.
    """

    name: str
    region: int
    host: str
    ipv4: str = ""
    ipv6: str = ""
    derp_port: int = DEFAULT_DERP_PORT
    stun_port: int = DEFAULT_STUN_PORT
    stun_only: bool = False
    cert_name: str = ""
    insecure_for_tests: bool = False
    stun_test_ip: str = ""

    def address(self, family: int) -> IPv4Address | IPv6Address | None:
        """The literal address of family 4 or 6, or None when DNS must be asked or the family is unused."""
        return _literal(self.ipv4 if family == 4 else self.ipv6, family)

    def stun_address(self, family: int) -> IPv4Address | IPv6Address | None:
        """The same for STUN."""
        return _literal(self.stun_test_ip, family) if self.stun_test_ip else self.address(family)

    def uses(self, family: int) -> bool:
        """Whether the family may be tried at all."""
        return (self.ipv4 if family == 4 else self.ipv6) != "none"


def _literal(text: str, family: int) -> IPv4Address | IPv6Address | None:
    try:
        return IPv4Address(text) if family == 4 else IPv6Address(text)
    except ValueError:
        return None


class RelayRegion(msgspec.Struct, frozen=True):
    """Servers of one place, which clients treat as one relay. One that may not be home is not measured either."""

    id: int
    code: str
    name: str
    nodes: tuple[RelayNode, ...]
    may_be_home: bool = True

    @property
    def derp_nodes(self) -> tuple[RelayNode, ...]:
        return tuple(node for node in self.nodes if not node.stun_only)


class RelayMap(msgspec.Struct, frozen=True):
    """All regions by number, and the factors control puts on their latency (below 1: prefer)."""

    regions: Mapping[int, RelayRegion] = msgspec.field(default_factory=dict)
    home_score: Mapping[int, float] = msgspec.field(default_factory=dict)

    def code(self, region: int) -> str:
        """The short name of a region, or its number when unknown."""
        found = self.regions.get(region)
        return found.code if found and found.code else str(region)

    def home_candidates(self) -> list[int]:
        """Regions with a relay that may become home, in ascending order."""
        return sorted(r.id for r in self.regions.values() if r.may_be_home and r.derp_nodes)
