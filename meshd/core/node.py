"""A node of the network as meshd works with it: parsed, checked, immutable.

The wire form (`meshd.wire.control.Node`) holds text; `meshd.core.nodeadapter` turns one into the other.
"""

from __future__ import annotations

import msgspec

from meshd.base.addr import AddrPort, IPAddress, IPPrefix
from meshd.base.keys import DiscoPublic, MachinePublic, NodePublic
from meshd.wire.control import CapMap, Hostinfo, Resolver


class Node(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Self or a peer. Times are unix seconds, None where the server sent none.

    Compare with ``==``; a change makes a new object, so ``is`` tells an untouched node from a changed one.
    """

    id: int
    stable_id: str
    name: str
    """MagicDNS name with its trailing dot."""
    user: int
    key: NodePublic
    addresses: tuple[IPPrefix, ...]
    """The node's own /32 and /128."""
    allowed_ips: tuple[IPPrefix, ...]
    """What this node may be sent and may send: its addresses and its approved routes."""
    sharer: int = 0
    key_expiry: float | None = None
    key_signature: bytes = b""
    machine: MachinePublic | None = None
    disco_key: DiscoPublic | None = None
    """None: speaks no disco (yet)."""
    endpoints: tuple[AddrPort, ...] = ()
    home_derp: int = 0
    """Relay region, 0 when unknown."""
    hostinfo: Hostinfo | None = None
    created: float | None = None
    cap: int = 0
    tags: tuple[str, ...] = ()
    primary_routes: tuple[IPPrefix, ...] = ()
    last_seen: float | None = None
    online: bool | None = None
    """None: the server did not say."""
    machine_authorized: bool = False
    cap_map: CapMap = {}
    unsigned_peer_api_only: bool = False
    data_plane_audit_log_id: str = ""
    expired: bool = False
    masquerade_v4: IPAddress | None = None
    """The address by which this peer knows us, when it is not our own."""
    masquerade_v6: IPAddress | None = None
    is_wireguard_only: bool = False
    is_jailed: bool = False
    """May not open connections to us."""
    exit_node_dns_resolvers: tuple[Resolver, ...] = ()

    @property
    def offers_exit(self) -> bool:
        """Both default routes are allowed: it can be chosen as exit node."""
        if self.allowed_ips is self.addresses:
            return False
        seen = 0
        for prefix in self.allowed_ips:
            if prefix.prefixlen == 0:
                seen |= 1 if prefix.version == 4 else 2
        return seen == 3

    @property
    def ips(self) -> tuple[IPAddress, ...]:
        """Its own addresses, in the server's order."""
        return tuple(prefix.network_address for prefix in self.addresses)

    @property
    def first_label(self) -> str:
        """The part of the name before the first dot."""
        return self.name.partition(".")[0]

    def has_cap(self, name: str) -> bool:
        """Whether the server gave the node this capability, with or without value."""
        return name in self.cap_map


PATH_FIELDS = ("endpoints", "home_derp", "disco_key", "online", "last_seen", "key_expiry", "cap")
"""What says how to reach a node and how it is; a patch of control can set each of them."""


def only_path_differs(old: Node, new: Node) -> bool:
    """Whether two states of a node are the same but for `PATH_FIELDS`."""
    if old.key != new.key:
        return False  # most other changes, without a copy
    moved = msgspec.structs.replace(
        old,
        endpoints=new.endpoints,
        home_derp=new.home_derp,
        disco_key=new.disco_key,
        online=new.online,
        last_seen=new.last_seen,
        key_expiry=new.key_expiry,
        cap=new.cap,
    )
    return moved == new
