"""`POST /machine/map`: the messages of the stream."""

from __future__ import annotations

import msgspec

from meshd.wire.control.derpmap import DERPMap
from meshd.wire.control.dns import DNSConfig
from meshd.wire.control.filter import FilterRule
from meshd.wire.control.names import wire_name
from meshd.wire.control.node import Node, PeerChange
from meshd.wire.control.notice import ClientVersion, ControlDialPlan, Debug, DisplayMessage, TKAInfo
from meshd.wire.control.ping import PingRequest
from meshd.wire.control.ssh import SSHPolicy
from meshd.wire.control.user import UserProfile
from meshd.wire.control.values import Int64, TimeText


class MapResponse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name):
    """One message of the map stream; a delta to what came before on the same stream.

    No field tells null from absent: both are None here and mean "unchanged". Present but empty is kept
    apart from None where it has a meaning of its own: `packet_filter` `()` blocks everything, `health` `()`
    is all well, a None value in `packet_filters` or `display_messages` deletes that entry.
    """

    map_session_handle: str = ""
    seq: Int64 = 0
    keep_alive: bool = False
    ping_request: PingRequest | None = None
    pop_browser_url: str = ""
    node: Node | None = None
    derp_map: DERPMap | None = msgspec.field(name="DERPMap", default=None)
    peers: tuple[Node, ...] = ()
    peers_changed: tuple[Node, ...] = ()
    peers_removed: tuple[Int64, ...] = ()
    peers_changed_patch: tuple[PeerChange, ...] = ()
    peer_seen_change: dict[int, bool] = msgspec.field(default_factory=dict)
    online_change: dict[int, bool] = msgspec.field(default_factory=dict)
    dns_config: DNSConfig | None = msgspec.field(name="DNSConfig", default=None)
    domain: str = ""
    collect_services: bool | None = None
    packet_filter: tuple[FilterRule, ...] | None = None
    packet_filters: dict[str, tuple[FilterRule, ...] | None] = msgspec.field(default_factory=dict)
    user_profiles: tuple[UserProfile, ...] = ()
    health: tuple[str, ...] | None = None
    display_messages: dict[str, DisplayMessage | None] = msgspec.field(default_factory=dict)
    ssh_policy: SSHPolicy | None = msgspec.field(name="SSHPolicy", default=None)
    control_time: TimeText | None = None
    tka_info: TKAInfo | None = msgspec.field(name="TKAInfo", default=None)
    domain_data_plane_audit_log_id: str = ""
    debug: Debug | None = None
    control_dial_plan: ControlDialPlan | None = None
    client_version: ClientVersion | None = None
    default_auto_update: bool | None = None
    max_key_duration: Int64 | None = None
    """Nanoseconds; from servers for clients below version 114."""
