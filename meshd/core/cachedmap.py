"""The last netmap as it survives a restart: what it holds, and its bytes.

A netmap comes back as the one map message that describes it, so that it passes the same checks as what a server
sends. Every peer has the address where it was last reached first among its endpoints.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from meshd.base.addr import AddrPort
from meshd.base.discreet import Discreet
from meshd.base.errors import WireError
from meshd.base.keys import DiscoPrivate, NodePublic
from meshd.core.netmap import Netmap
from meshd.core.node import Node
from meshd.core.nodeadapter import Unacceptable, node_from_wire, node_to_wire
from meshd.wire.control import MapResponse, TKAInfo, UserProfile, decode, encode

NO_CACHE_ATTRIBUTE = "disable-cache-network-maps"
"""The attribute by which a network forbids to keep its map."""


class _Envelope(msgspec.Struct, frozen=True):
    """What stands around the map. ``disco`` is the private disco key that peers knew us by."""

    control: str
    user: int
    disco: bytes
    met: tuple[int, ...]
    map: msgspec.Raw

    def __repr__(self) -> str:
        return f"_Envelope({self.control!r})"


class CachedMap(Discreet, frozen=True):
    """A netmap to begin with. ``met``: ids of the peers there were sessions with."""

    hidden = ("disco", "response")

    control_url: str
    user_id: int
    disco: DiscoPrivate
    met: tuple[int, ...]
    response: MapResponse


class Picture:
    """A netmap at one moment. Taking it is quick; `encode` may run in another thread, later."""

    def __init__(
        self,
        netmap: Netmap,
        *,
        control_url: str,
        user_id: int,
        disco: DiscoPrivate,
        met: tuple[int, ...],
        reached: Mapping[NodePublic, AddrPort],
    ) -> None:
        self._netmap_nodes = (netmap.self_node, list(netmap.peers.values()))
        self._envelope = (control_url, user_id, disco, met)
        self._reached = reached
        profiles: tuple[UserProfile, ...] = tuple(netmap.user_profiles.values())
        self._rest = MapResponse(
            derp_map=netmap.derp_map,
            dns_config=netmap.dns,
            domain=netmap.domain,
            collect_services=netmap.collect_services,
            packet_filter=netmap.filter_rules,
            user_profiles=profiles,
            ssh_policy=netmap.ssh_policy,
            tka_info=TKAInfo(head=netmap.lock_head, disabled=netmap.lock_disabled),
            domain_data_plane_audit_log_id=netmap.data_plane_audit_log_id,
            default_auto_update=netmap.default_auto_update,
        )

    def encode(self) -> bytes:
        """JSON. Raises WireError for text in the netmap that is not Unicode."""
        own, peers = self._netmap_nodes
        response = msgspec.structs.replace(
            self._rest,
            node=node_to_wire(own, own.endpoints),
            peers=tuple(node_to_wire(node, self._endpoints(node)) for node in peers),
        )
        control_url, user_id, disco, met = self._envelope
        return encode(_Envelope(control_url, user_id, disco.raw, met, msgspec.Raw(encode(response))))

    def _endpoints(self, node: Node) -> tuple[AddrPort, ...]:
        last = self._reached.get(node.key)
        if last is None or node.endpoints[:1] == (last,):
            return node.endpoints
        return (last, *(endpoint for endpoint in node.endpoints if endpoint != last))


def decode_cached(data: bytes, key: NodePublic, wall: float) -> CachedMap:
    """What `Picture.encode` wrote. Raises WireError when it is damaged, of another node than ``key``, or when our
    own key has expired by ``wall``."""
    try:
        envelope = msgspec.json.decode(data, type=_Envelope)
        disco = DiscoPrivate(envelope.disco)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise WireError("not a cached map") from None
    response = decode(MapResponse, bytes(envelope.map))
    if response.node is None:
        raise WireError("the cached map has no self node")
    try:
        own = node_from_wire(response.node)
    except Unacceptable as reason:
        raise WireError(f"the cached map's self node is unusable: {reason}") from None
    if own.key != key:
        raise WireError("the cached map is of another node key")
    if own.expired or (own.key_expiry is not None and own.key_expiry <= wall):
        raise WireError("our key has expired")
    if own.has_cap(NO_CACHE_ATTRIBUTE):
        raise WireError("the network does not allow it")
    return CachedMap(envelope.control, envelope.user, disco, envelope.met, response)
