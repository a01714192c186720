"""The relays of the network."""

from __future__ import annotations

import msgspec

from meshd.wire.control.names import wire_name
from meshd.wire.control.values import Int64, always


class DERPNode(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name, gc=False):
    """One relay server of a region."""

    name: str = always("")
    region_id: Int64 = always(0)
    host_name: str = always("")
    cert_name: str = ""
    """Name that the certificate must match instead, or `sha256-raw:<hex>` to pin the certificate."""
    ipv4: str = ""
    """Replaces DNS; `none`: do not use."""
    ipv6: str = ""
    stun_port: Int64 = 0
    """0 is 3478, -1 is no STUN. Not checked, as little as `derp_port`: one slip of an operator is no reason to take
    no map any more."""
    stun_only: bool = False
    derp_port: Int64 = 0
    """0 is 443."""
    insecure_for_tests: bool = False
    stun_test_ip: str = ""
    can_port80: bool = False


class DERPRegion(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name, gc=False):
    """A place with relays, in order of preference."""

    region_id: Int64 = always(0)
    region_code: str = always("")
    region_name: str = always("")
    latitude: float = 0.0
    longitude: float = 0.0
    avoid: bool = False
    no_measure_no_home: bool = False
    nodes: tuple[DERPNode, ...] = always(())


class DERPHomeParams(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name, gc=False):
    """Factors for the measured latency of regions; absent is 1.0. None keeps the previous factors."""

    region_score: dict[int, float] | None = None


class DERPMap(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name, gc=False):
    """Regions by id. None in `regions` or `home_params` means "as before", see `merge_derp_map`."""

    home_params: DERPHomeParams | None = None
    regions: dict[int, DERPRegion] | None = always(None)
    omit_default_regions: bool = msgspec.field(name="omitDefaultRegions", default=False)
