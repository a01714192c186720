"""Nodes as the server describes them, whole and as patches."""

from __future__ import annotations

import msgspec

from meshd.wire.control.dns import Resolver
from meshd.wire.control.hostinfo import Hostinfo
from meshd.wire.control.names import wire_name
from meshd.wire.control.values import (
    ZERO_DISCO_KEY,
    ZERO_MACHINE_KEY,
    ZERO_NODE_KEY,
    ZERO_TIME,
    AddrPortText,
    CapMap,
    DiscoKeyText,
    Int64,
    IPText,
    MachineKeyText,
    NodeKeyText,
    PrefixText,
    TimeText,
    always,
)


class Node(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name, gc=False):
    """Self or a peer. An absent key is the zero key, an absent time the zero time."""

    id: Int64 = always(0)
    stable_id: str = always("")
    name: str = always("")
    """Full name with a trailing dot."""
    user: Int64 = always(0)
    sharer: Int64 = 0
    key: NodeKeyText = always(ZERO_NODE_KEY)
    key_expiry: TimeText = ZERO_TIME
    """Zero time: never."""
    key_signature: bytes = b""
    machine: MachineKeyText = ZERO_MACHINE_KEY
    disco_key: DiscoKeyText = ZERO_DISCO_KEY
    addresses: tuple[PrefixText, ...] = always(())
    allowed_ips: tuple[PrefixText, ...] | None = None
    """None means the same as `addresses` (version 112); `()` means nothing at all."""
    endpoints: tuple[AddrPortText, ...] = ()
    derp: str = ""
    """`127.3.3.40:<region>`, for versions below 111. Readers prefer `home_derp`."""
    home_derp: Int64 = msgspec.field(name="HomeDERP", default=0)
    hostinfo: Hostinfo | None = None
    created: TimeText = ZERO_TIME
    cap: Int64 = 0
    tags: tuple[str, ...] = ()
    primary_routes: tuple[PrefixText, ...] = ()
    last_seen: TimeText | None = None
    online: bool | None = None
    machine_authorized: bool = False
    capabilities: tuple[str, ...] = ()
    cap_map: CapMap = msgspec.field(default_factory=dict)
    unsigned_peer_api_only: bool = False
    data_plane_audit_log_id: str = ""
    expired: bool = False
    self_node_v4_masq_addr_for_this_peer: IPText | None = None
    self_node_v6_masq_addr_for_this_peer: IPText | None = None
    is_wireguard_only: bool = False
    is_jailed: bool = False
    exit_node_dns_resolvers: tuple[Resolver, ...] = ()


class PeerChange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name, gc=False):
    """A patch of one peer. None (and 0 for regions and versions) is "unchanged".

    For `cap_map`, `endpoints` and `key_signature` a present but empty value is a real "now empty".
    The zero time in `key_expiry` is "no expiry any more".
    """

    node_id: Int64 = always(0)
    derp_region: Int64 = msgspec.field(name="DERPRegion", default=0)
    cap: Int64 = 0
    cap_map: CapMap | None = None
    endpoints: tuple[AddrPortText, ...] | None = None
    key: NodeKeyText | None = None
    key_signature: bytes | None = None
    disco_key: DiscoKeyText | None = None
    online: bool | None = None
    last_seen: TimeText | None = None
    key_expiry: TimeText | None = None
