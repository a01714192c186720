"""What the coordination server told us about the network, ready to be looked up.

A `Netmap` is owned and kept current by one `meshd.core.mapsession.MapSession`. Everyone else reads it: the
nodes in it never change (a new object takes their place), the dictionaries do, between two turns of the
event loop. Keep a node, never an iterator.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from meshd.base.addr import IPAddress
from meshd.base.keys import NodePublic
from meshd.core.node import Node
from meshd.wire.control import DERPMap, DisplayMessage, DNSConfig, FilterRule, SSHPolicy, UserProfile

MAX_LISTED_REFUSALS = 32  # what status shows; the rest is a number


class Refusal(msgspec.Struct, frozen=True):
    """A peer, or a part of one, that the server sent and that was not let in."""

    node_id: int
    name: str
    reason: str

    def __str__(self) -> str:
        return f"peer {self.name or self.node_id}: {self.reason}"


class Netmap:
    """The network at this moment. Attributes are read-only for everyone but the map session."""

    __slots__ = (
        "by_ip",
        "by_key",
        "by_name",
        "collect_services",
        "data_plane_audit_log_id",
        "default_auto_update",
        "derp_map",
        "dns",
        "domain",
        "filter_rules",
        "invalid_filter",
        "listed_refusals",
        "lock_disabled",
        "lock_head",
        "messages",
        "peers",
        "refused",
        "self_node",
        "ssh_policy",
        "user_profiles",
    )

    def __init__(self, self_node: Node) -> None:
        self.self_node = self_node
        self.peers: dict[int, Node] = {}
        # id 0 stands for ourselves in by_key and by_ip
        self.by_key: dict[NodePublic, int] = {}
        self.by_ip: dict[bytes, int] = {}  # own addresses of nodes (packed), not their routes
        self.by_name: dict[str, tuple[int, ...]] = {}  # lower case, no trailing dot; ids ascending
        self.refused: Mapping[int, Refusal] = {}
        self.listed_refusals: list[Refusal] | None = None  # what `refusals` found, until ``refused`` changes
        self.user_profiles: dict[int, UserProfile] = {}
        self.derp_map: DERPMap | None = None
        self.dns: DNSConfig | None = None
        self.filter_rules: tuple[FilterRule, ...] = ()  # effective; empty = nothing may come in
        self.invalid_filter = False  # the server sent rules that a tailnet lock forbids: nothing may come in
        self.ssh_policy: SSHPolicy | None = None
        self.domain = ""
        self.messages: Mapping[str, DisplayMessage] = {}  # what the server says about our health, by id
        self.collect_services = False
        self.lock_head = ""  # tailnet lock: hash of the newest update message, "" = off
        self.lock_disabled = False
        self.data_plane_audit_log_id = ""
        self.default_auto_update: bool | None = None

    @property
    def node_key(self) -> NodePublic:
        return self.self_node.key

    @property
    def display_name(self) -> str:
        """What the network's owner calls it, ``""`` when it goes by its domain."""
        values = self.self_node.cap_map.get("tailnet-display-name")
        return values[0] if values and isinstance(values[0], str) else ""

    @property
    def expiry(self) -> float | None:
        """When our own key stops working, unix seconds; None = never."""
        return self.self_node.key_expiry

    @property
    def machine_authorized(self) -> bool:
        return self.self_node.machine_authorized

    @property
    def wants_no_updates(self) -> bool:
        """UP-04: the network's default, which holds until the user says otherwise. Switching updates on is not for us:
        this program comes with a package manager."""
        values = self.self_node.cap_map.get("default-auto-update")
        return self.default_auto_update is False or bool(values and values[0] is False)

    @property
    def magic_dns_suffix(self) -> str:
        """Our name without its first label and the trailing dot; ``""`` when it has one label only."""
        return self.self_node.name.partition(".")[2].rstrip(".")

    def sorted_peers(self) -> list[Node]:
        """All peers, ascending by id."""
        return [self.peers[node_id] for node_id in sorted(self.peers)]

    def peer_by_key(self, key: NodePublic) -> Node | None:
        """The admitted peer with this key; for one that expired, the key that it had."""
        return self.peers.get(self.by_key.get(key, 0))

    def peer_by_ip(self, address: IPAddress) -> Node | None:
        """The peer that owns the address; routes are not looked at."""
        return self.peers.get(self.by_ip.get(address.packed, 0))

    def node_by_ip(self, address: IPAddress) -> Node | None:
        """Like `peer_by_ip`, with ourselves included."""
        node_id = self.by_ip.get(address.packed)
        return self.self_node if node_id == 0 else self.peers.get(node_id or 0)

    def node_by_name(self, name: str) -> Node | None:
        """By full name or first label, any case, trailing dot or not; we ourselves first."""
        wanted = name.rstrip(".").lower()
        own = self.self_node.name.rstrip(".").lower()
        if wanted and wanted in (own, own.partition(".")[0]):
            return self.self_node
        suffix = self.magic_dns_suffix.lower()
        for candidate in (wanted, f"{wanted}.{suffix}" if suffix else wanted):
            ids = self.by_name.get(candidate)
            if ids:
                return self.peers[ids[0]]
        return None

    def user_of(self, node: Node) -> UserProfile | None:
        return self.user_profiles.get(node.user)

    def refusals(self) -> list[Refusal]:
        """What was refused, by id, bounded; the last entry counts the ones left out."""
        if self.listed_refusals is not None:
            return self.listed_refusals
        listed = [self.refused[node_id] for node_id in sorted(self.refused)[:MAX_LISTED_REFUSALS]]
        left_out = len(self.refused) - len(listed)
        if left_out:
            listed.append(Refusal(node_id=0, name="", reason=f"and {left_out} more were refused"))
        self.listed_refusals = listed
        return listed


def name_key(name: str) -> str:
    """The form under which ``Netmap.by_name`` files a name."""
    return name.rstrip(".").lower()
