"""`POST /machine/map`: the request, streaming or as a lite update."""

from __future__ import annotations

import msgspec

from meshd.wire.control.hostinfo import Hostinfo
from meshd.wire.control.names import wire_name
from meshd.wire.control.values import (
    ZERO_DISCO_KEY,
    ZERO_NODE_KEY,
    AddrPortText,
    DiscoKeyText,
    Int64,
    NodeKeyText,
    always,
)

ENDPOINT_UNKNOWN = 0
ENDPOINT_LOCAL = 1
ENDPOINT_STUN = 2
ENDPOINT_PORT_MAPPED = 3
ENDPOINT_STUN_LOCAL_PORT = 4
ENDPOINT_EXPLICIT = 5


class MapRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name, gc=False):
    """`stream` asks for the long poll; `omit_peers` without `stream` only stores what is sent here.

    Both kinds carry the full state of the node. `endpoints` None leaves the server's, `()` clears them.
    """

    version: Int64 = always(0)
    compress: str = ""
    """`zstd` or empty."""
    keep_alive: bool = False
    node_key: NodeKeyText = always(ZERO_NODE_KEY)
    disco_key: DiscoKeyText = always(ZERO_DISCO_KEY)
    stream: bool = False
    hostinfo: Hostinfo | None = always(None)
    map_session_handle: str = ""
    map_session_seq: Int64 = 0
    endpoints: tuple[AddrPortText, ...] | None = None
    endpoint_types: tuple[Int64, ...] | None = None
    """`ENDPOINT_*`, one for each endpoint."""
    tka_head: str = ""
    read_only: bool = False
    omit_peers: bool = False
    debug_flags: tuple[str, ...] = ()
