"""Requests that the server makes of a node through the map stream, and the answers."""

from __future__ import annotations

import msgspec

from meshd.wire.control.names import wire_name
from meshd.wire.control.values import Int64, IPText, Port, always


class PingRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name, gc=False):
    """`types` is empty, `c2n`, or a comma list of disco, TSMP, ICMP, peerapi. `url` takes the answer."""

    url: str = always("")
    url_is_noise: bool = False
    log: bool = False
    types: str = ""
    ip: IPText = ""
    payload: bytes | None = None
    """For `c2n`: one serialized HTTP/1 request."""


class PingResponse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name, gc=False):
    """Outcome of a ping. `err` non-empty: it failed."""

    type: str = always("")
    ip: str = ""
    node_ip: str = ""
    node_name: str = ""
    err: str = ""
    latency_seconds: float = 0.0
    endpoint: str = ""
    peer_relay: str = ""
    derp_region_id: Int64 = msgspec.field(name="DERPRegionID", default=0)
    derp_region_code: str = msgspec.field(name="DERPRegionCode", default="")
    peer_api_port: Port = msgspec.field(name="PeerAPIPort", default=0)
    is_local_ip: bool = msgspec.field(name="IsLocalIP", default=False)
