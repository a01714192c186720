"""Pieces of map messages as JSON, each encoded once and joined for every node that gets it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Network

import msgspec

from meshd.base.gotime import format_time
from meshd.base.ranges import CGNAT, ULA
from meshd.coord import network as change
from meshd.coord.network import Network
from meshd.coord.records import NodeRecord
from meshd.wire.control import (
    ZERO_TIME,
    DERPMap,
    DNSConfig,
    FilterRule,
    Hostinfo,
    Node,
    PeerChange,
    SSHPolicy,
    UserProfile,
    encode,
)

SELF_CAPABILITIES: dict[str, tuple[object, ...] | None] = {
    "https://tailscale.com/cap/file-sharing": (),
    "default-auto-update": (False,),
}
SUGGESTED = "suggest-exit-node"
"""What peers must know of an exit node that a policy lets them suggest."""
_encode = msgspec.json.encode
_NO_LOGINS = encode(SSHPolicy(rules=()))


class RouterView(msgspec.Struct, frozen=True):
    """What of a router's routes some peers are shown, and whether they may suggest it as an exit node."""

    routes: tuple[str, ...]
    suggested: bool


def reverse_zones() -> tuple[str, ...]:
    """The DNS zones of the addresses that are given out, for names of addresses (RFC 1035 3.5)."""
    zones = [
        f"{second}.100.in-addr.arpa"
        for second in range(64, 128)
        if IPv4Network(f"100.{second}.0.0/16").subnet_of(CGNAT)
    ]
    nibbles = ULA.network_address.exploded.replace(":", "")[: ULA.prefixlen // 4]
    return (*zones, ".".join(reversed(nibbles)) + ".ip6.arpa")


def dns_config(base_domain: str) -> DNSConfig:
    """MagicDNS for every node of the network; no other resolver is touched."""
    return DNSConfig(routes=dict.fromkeys((base_domain, *reverse_zones()), ()), domains=(base_domain,), proxied=True)


def shown_hostinfo(info: Hostinfo, *, online_services: bool = True) -> Hostinfo:
    """The part of a node's host information that its peers get."""
    return Hostinfo(
        os=info.os,
        hostname=info.hostname,
        shields_up=info.shields_up,
        routable_ips=info.routable_ips,
        services=info.services if online_services else (),
        ssh_host_keys=info.ssh_host_keys,
        app_connector=info.app_connector,
        peer_relay=info.peer_relay,
        location=info.location,
    )


class MapBuilder:
    """Encodes nodes; keeps the encoding of each until it changes."""

    def __init__(self, network: Network, base_domain: str, derp_map: DERPMap) -> None:
        self._network = network
        self._base_domain = base_domain
        self._peers: dict[int, bytes] = {}
        self._views: dict[int, dict[RouterView, bytes]] = {}
        self._logins: dict[int, tuple[SSHPolicy, bytes]] = {}  # by id
        self.dns = encode(dns_config(base_domain))
        self.derp_map = encode(derp_map)
        self.domain = _encode(base_domain)

    def forget(self, node_id: int) -> None:
        """The node changed or is gone."""
        self._peers.pop(node_id, None)
        self._views.pop(node_id, None)

    def access_changed(self) -> None:
        """What was made by the access of before is of no use any more."""
        self._views.clear()
        self._logins.clear()

    def node(self, node: NodeRecord, wall: float) -> Node:
        """A node as its peers see it."""
        routes = self._network.routes
        region = node.home_region
        return Node(
            id=node.id,
            stable_id=node.stable_id,
            name=f"{node.name}.{self._base_domain}.",
            user=node.owner_id,
            key=node.node_key,
            key_expiry=format_time(node.expiry),
            machine=node.machine_key,
            disco_key=node.disco_key,
            addresses=node.addresses,
            allowed_ips=(*node.addresses, *routes.carried(node.id)),
            endpoints=node.endpoints,
            derp=f"127.3.3.40:{region}" if region else "",
            home_derp=region,
            hostinfo=shown_hostinfo(node.hostinfo),
            created=format_time(node.created),
            cap=node.version,
            tags=node.tags,
            primary_routes=routes.primary(node.id),
            last_seen=None if node.online or node.last_seen is None else format_time(node.last_seen),
            online=node.online,
            machine_authorized=True,
            expired=node.expired(wall),
        )

    def self_node(self, node: NodeRecord, wall: float, attributes: Mapping[str, tuple[object, ...] | None]) -> bytes:
        """A node as it sees itself, with what a policy says of it."""
        own = msgspec.structs.replace(
            self.node(node, wall),
            hostinfo=node.hostinfo,
            cap_map={**SELF_CAPABILITIES, **attributes},
            online=True,
            last_seen=None,
        )
        return encode(own)

    def peer(self, node: NodeRecord, wall: float) -> bytes:
        """The encoding of a node for its peers."""
        found = self._peers.get(node.id)
        if found is None:
            found = self._peers[node.id] = encode(self.node(node, wall))
        return found

    def view(self, node: NodeRecord, wall: float, view: RouterView) -> bytes:
        """The encoding of a router for peers who are shown it so."""
        forms = self._views.setdefault(node.id, {})
        found = forms.get(view)
        if found is None:
            found = forms[view] = encode(self._viewed(self.node(node, wall), view))
        return found

    def _viewed(self, node: Node, view: RouterView) -> Node:
        hidden = set(self._network.routes.carried(node.id)).difference(view.routes)
        info = node.hostinfo
        if info is not None:
            offered = tuple(route for route in info.routable_ips or () if route not in hidden)
            info = msgspec.structs.replace(info, routable_ips=offered)
        return msgspec.structs.replace(
            node,
            hostinfo=info,
            allowed_ips=(*node.addresses, *view.routes),
            primary_routes=tuple(route for route in node.primary_routes or () if route not in hidden),
            cap_map={SUGGESTED: None} if view.suggested else node.cap_map,
        )

    def patch(self, node: NodeRecord, flags: int) -> bytes:
        """The encoding of what changed, for changes that can be patched."""
        return encode(
            PeerChange(
                node_id=node.id,
                derp_region=node.home_region if flags & change.HOME_REGION else 0,
                endpoints=node.endpoints if flags & change.ENDPOINTS else None,
                disco_key=node.disco_key if flags & change.DISCO else None,
                online=node.online if flags & change.ONLINE else None,
                last_seen=format_time(node.last_seen)
                if flags & change.ONLINE and not node.online and node.last_seen is not None
                else None,
                key_expiry=(ZERO_TIME if node.expiry is None else format_time(node.expiry))
                if flags & change.EXPIRY
                else None,
            )
        )

    def profiles(self, user_ids: Iterable[int]) -> bytes:
        """The encoding of these owners, in order of id."""
        shown: list[UserProfile] = [self._network.profile(user_id) for user_id in sorted(set(user_ids))]
        return _encode(shown)

    def ssh(self, policy: SSHPolicy | None) -> bytes:
        """`SSHPolicy`; no rule at all lets nobody in. What is the same object for many nodes is encoded once."""
        if policy is None:
            return _NO_LOGINS
        if id(policy) not in self._logins:
            self._logins[id(policy)] = policy, encode(policy)
        return self._logins[id(policy)][1]

    def rules(self, rules: Sequence[FilterRule]) -> bytes:
        """`PacketFilters` with one entry; no rule at all blocks everything."""
        return b'{"base":' + (_encode(rules) if rules else b"[]") + b"}"
