"""Nodes as the server describes them, whole and as patches."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from meshd._fast.addresstext import TextForms
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
    check_forms,
)

_FORMS: Final[dict[str, Any]] = {
    "key": NodeKeyText,
    "key_expiry": TimeText,
    "machine": MachineKeyText,
    "disco_key": DiscoKeyText,
    "addresses": tuple[PrefixText, ...],
    "allowed_ips": tuple[PrefixText, ...] | None,
    "endpoints": tuple[AddrPortText, ...],
    "created": TimeText,
    "primary_routes": tuple[PrefixText, ...],
    "last_seen": TimeText | None,
}
_USUAL: Final = TextForms(
    (
        ("key", "nodekey", ZERO_NODE_KEY),
        ("key_expiry", "time", ZERO_TIME),
        ("machine", "mkey", ZERO_MACHINE_KEY),
        ("disco_key", "discokey", ZERO_DISCO_KEY),
        ("addresses", "prefix", ()),
        ("allowed_ips", "prefix", ()),
        ("endpoints", "endpoint", ()),
        ("created", "time", ZERO_TIME),
        ("primary_routes", "prefix", ()),
        ("last_seen", "time", None),
    )
)


class Node(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name, gc=False):
    """Self or a peer. An absent key is the zero key, an absent time the zero time.

    The form of keys, prefixes, endpoints and times is checked as that of every other text, but all at once: maps
    hold tens of thousands of nodes.
    """

    id: Int64 = always(0)
    stable_id: str = always("")
    name: str = always("")
    """Full name with a trailing dot."""
    user: Int64 = always(0)
    sharer: Int64 = 0
    key: str = always(ZERO_NODE_KEY)
    key_expiry: str = ZERO_TIME
    """Zero time: never."""
    key_signature: bytes = b""
    machine: str = ZERO_MACHINE_KEY
    disco_key: str = ZERO_DISCO_KEY
    addresses: tuple[str, ...] = always(())
    allowed_ips: tuple[str, ...] | None = None
    """None means the same as `addresses` (version 112); `()` means nothing at all."""
    endpoints: tuple[str, ...] = ()
    derp: str = ""
    """`127.3.3.40:<region>`, for versions below 111. Readers prefer `home_derp`."""
    home_derp: Int64 = msgspec.field(name="HomeDERP", default=0)
    hostinfo: Hostinfo | None = None
    created: str = ZERO_TIME
    cap: Int64 = 0
    tags: tuple[str, ...] = ()
    primary_routes: tuple[str, ...] = ()
    last_seen: str | None = None
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

    def __post_init__(self) -> None:
        if _USUAL.unusual(self) is not None:
            check_forms(self, _FORMS)


class CheckedNode(Node, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name, gc=False):
    """A `Node` that is written, made of values whose form is known to be right."""

    def __post_init__(self) -> None: ...


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
