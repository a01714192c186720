"""One node's map stream: the first full message, then deltas, then keep-alives.

The messages that a node gets are decided here and nowhere else. A stream remembers no copies of nodes. It knows
which peers it has told of (as a set, or as "everyone"), what has changed since the last message, and the rules it
sent last.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Protocol

from meshd.base.gotime import format_time
from meshd.coord import network as change
from meshd.coord.access import Access
from meshd.coord.mapbuild import SUGGESTED, MapBuilder, RouterView
from meshd.coord.network import Network
from meshd.coord.records import EXIT_ROUTES, NodeRecord
from meshd.wire.mapframe import KEEP_ALIVE_JSON, encode_map_frame

KEEP_ALIVE_MIN_S = 50.0
KEEP_ALIVE_JITTER_S = 9.0

_TELLS_PEERS = (
    change.ENDPOINTS | change.HOME_REGION | change.ONLINE | change.DISCO | change.EXPIRY | change.WHOLE | change.REMOVED
)

EXITS = frozenset(EXIT_ROUTES)
Changes = dict[int, int]
"""Node id to what changed of it."""


class Outlet(Protocol):
    """Where a stream's bytes go (an HTTP/2 stream)."""

    unsent: int
    closed: bool

    def write(self, data: bytes) -> None: ...
    def end(self) -> None: ...
    def reset(self) -> None: ...


class Surroundings(Protocol):
    """What all streams share."""

    network: Network
    builder: MapBuilder
    access: Access

    def wall(self) -> float: ...

    def monotonic(self) -> float: ...


class MapStream:
    """The stream of one node."""

    def __init__(self, shared: Surroundings, node: NodeRecord, outlet: Outlet, *, zstd: bool) -> None:
        self.node = node
        self.outlet = outlet
        self.last_sent = shared.monotonic()
        """Loop time of the last message."""
        self._shared = shared
        self._zstd = zstd
        self._known: set[int] | None = None
        """Peers told of; None stands for "all there were"."""
        self._pending: Changes = {}
        self._access_changed = False
        self._rules_sent = b""
        self._ssh_sent = b""
        self._attributes: Mapping[str, tuple[Any, ...] | None] = {}
        """Those that it was told of itself."""
        self._views: dict[int, RouterView] = {}
        """Of routers that are shown otherwise than to all."""
        self._expired = False

    # --- messages ----------------------------------------------------------------------------------------

    def send_full(self) -> None:
        """The first message: everything."""
        self._write(self._full())

    def full(self) -> bytes:
        """What a stream that starts now would be told first (JSON)."""
        return self._full()

    def _full(self) -> bytes:
        shared, node = self._shared, self.node
        builder, wall = shared.builder, shared.wall()
        self._pending = {}
        self._expired = node.expired(wall)
        peers = self._visible_now()
        self._known = None if peers is None else set(peers)
        ids = sorted(self._others() if peers is None else peers)
        nodes = [shared.network.nodes[node_id] for node_id in ids]
        self._views = {}
        self._rules_sent = builder.rules(shared.access.rules(node))
        self._ssh_sent = builder.ssh(shared.access.ssh(node))
        parts = [
            b'"Node":' + self._self_node(wall),
            b'"DERPMap":' + builder.derp_map,
            b'"DNSConfig":' + builder.dns,
            b'"Domain":' + builder.domain,
            b'"CollectServices":false',
            b'"PacketFilters":' + self._rules_sent,
            b'"SSHPolicy":' + self._ssh_sent,
            b'"UserProfiles":' + builder.profiles({node.owner_id, *(peer.owner_id for peer in nodes)}),
            b'"ControlTime":"' + format_time(wall).encode() + b'"',
        ]
        if nodes:
            routers = shared.network.routes.routers
            shown = [self._peer(p, wall) if p.id in routers else builder.peer(p, wall) for p in nodes]
            parts.append(b'"Peers":[' + b",".join(shown) + b"]")
        return b"{" + b",".join(parts) + b"}"

    def offer(self, changes: Changes, cache: dict[object, bytes]) -> None:
        """Changes of the network since the last offer; sent now, or kept while the client is slow.

        `cache` is shared by all streams that are offered the same `changes`.
        """
        if self._pending or self._access_changed or self.outlet.unsent:
            for node_id, flags in changes.items():
                self._pending[node_id] = self._pending.get(node_id, 0) | flags
            self.catch_up()
            return
        if self._known is None and self.node.id not in changes and self._shared.access.everyone and not self._expired:
            key = ("all", self._zstd)
            framed = cache.get(key)
            if framed is None:
                message = self._delta(changes)
                framed = cache[key] = encode_map_frame(message, self._zstd) if message else b""
            if framed:
                self.outlet.write(framed)
                self._sent()
            return
        self._send(changes)

    def access_changed(self) -> None:
        """The policy, or what it depends on, is another one now."""
        self._access_changed = True

    def catch_up(self) -> None:
        """Send what was kept back, if the client took everything so far."""
        if (self._pending or self._access_changed) and not self.outlet.unsent and not self.outlet.closed:
            changes, self._pending = self._pending, {}
            self._send(changes)

    def keep_alive(self) -> None:
        """A sign of life, unless older bytes still wait to leave."""
        if not self.outlet.unsent:
            self.outlet.write(encode_map_frame(KEEP_ALIVE_JSON, self._zstd))
            self._sent()

    def tell(self, message: bytes) -> None:
        """A message (JSON) that is no change of the network."""
        self._write(message)

    def _send(self, changes: Changes) -> None:
        message = self._delta(changes)
        if message:
            self._write(message)

    def _delta(self, changes: Changes) -> bytes:
        shared, node = self._shared, self.node
        builder, wall = shared.builder, shared.wall()
        nodes = shared.network.nodes
        parts: list[bytes] = []
        other = self._access_changed and shared.access.attributes(node) != self._attributes
        if other or changes.get(node.id, 0) & change.SELF:
            parts.append(b'"Node":' + self._self_node(wall))

        added: set[int] = set()
        removed: set[int] = set()
        if self._access_changed or self._known is None or self._expired != node.expired(wall):
            added, removed = self._visibility(changes)
        resent = self._changed_views() if self._access_changed else set()
        whole: list[NodeRecord] = []
        patches: list[bytes] = []
        for node_id in sorted(changes.keys() | added | resent):
            flags = changes.get(node_id, 0)
            peer = nodes.get(node_id)
            if node_id == node.id or peer is None or not self._tells(node_id):
                continue
            if (
                node_id in added
                or node_id in resent
                or flags & change.WHOLE
                or (flags & change.HOME_REGION and not peer.home_region)
            ):
                whole.append(peer)
            elif flags & _TELLS_PEERS:
                patches.append(builder.patch(peer, flags))
        removed.update(node_id for node_id in changes if node_id not in nodes and self._known is None)

        if whole:
            parts.append(b'"PeersChanged":[' + b",".join([self._peer(peer, wall) for peer in whole]) + b"]")
            parts.append(b'"UserProfiles":' + builder.profiles(peer.owner_id for peer in whole))
        for node_id in removed:
            self._views.pop(node_id, None)
        if removed:
            parts.append(b'"PeersRemoved":[' + b",".join(b"%d" % node_id for node_id in sorted(removed)) + b"]")
        if patches:
            parts.append(b'"PeersChangedPatch":[' + b",".join(patches) + b"]")
        if self._access_changed:
            self._access_changed = False
            rules = builder.rules(shared.access.rules(node))
            if rules != self._rules_sent:
                self._rules_sent = rules
                parts.append(b'"PacketFilters":' + rules)
            ssh = builder.ssh(shared.access.ssh(node))
            if ssh != self._ssh_sent:
                self._ssh_sent = ssh
                parts.append(b'"SSHPolicy":' + ssh)
        return b"{" + b",".join(parts) + b"}" if parts else b""

    def _self_node(self, wall: float) -> bytes:
        self._attributes = self._shared.access.attributes(self.node)
        return self._shared.builder.self_node(self.node, wall, self._attributes)

    # --- what of routers ---------------------------------------------------------------------------------

    def _peer(self, peer: NodeRecord, wall: float) -> bytes:
        """A peer as this node is shown it."""
        shared = self._shared
        if peer.id in shared.network.routes.routers:
            view = self._view(peer)
            if view != _whole(shared.network.routes.carried(peer.id)):
                self._views[peer.id] = view
                return shared.builder.view(peer, wall, view)
        self._views.pop(peer.id, None)
        return shared.builder.peer(peer, wall)

    def _view(self, router: NodeRecord) -> RouterView:
        access = self._shared.access
        routes = access.routes(self.node, self._shared.network.routes.carried(router.id))
        leads_out = not EXITS.isdisjoint(routes)
        return RouterView(routes, leads_out and SUGGESTED in access.attributes(router))

    def _changed_views(self) -> set[int]:
        """Ids of routers that are others now than this node was shown."""
        network = self._shared.network
        found = set()
        for node_id in network.routes.routers:
            told = self._views.get(node_id) or _whole(network.routes.carried(node_id))
            if told != self._view(network.nodes[node_id]):
                found.add(node_id)
        return found

    # --- which peers -------------------------------------------------------------------------------------

    def _visible_now(self) -> set[int] | None:
        """Ids of the peers that the node may know; None for all."""
        if self.node.expired(self._shared.wall()):
            return set()
        if self._shared.access.everyone:
            return None
        nodes = self._shared.network.nodes
        return nodes.keys() & self._shared.access.visible(self.node.id)

    def _others(self) -> set[int]:
        return self._shared.network.nodes.keys() - {self.node.id}

    def _tells(self, node_id: int) -> bool:
        return self._known is None or node_id in self._known

    def _visibility(self, changes: Changes) -> tuple[set[int], set[int]]:
        """Bring the set of known peers up to date: ids that come into view, ids that go out of it."""
        self._expired = self.node.expired(self._shared.wall())
        visible = self._visible_now()
        known = self._known
        if visible is None and known is None:
            return set(), set()
        if known is None:
            # Telling of a removal that concerns nobody is harmless, so ids that may be known count as known.
            known = self._others() | {node_id for node_id, flags in changes.items() if flags & change.REMOVED}
        target = self._others() if visible is None else visible
        self._known = None if visible is None else target
        return target - known, known - target

    # --- sending -----------------------------------------------------------------------------------------

    def _write(self, message: bytes) -> None:
        self.outlet.write(encode_map_frame(message, self._zstd))
        self._sent()

    def _sent(self) -> None:
        self.last_sent = self._shared.monotonic()

    def end(self) -> None:
        """Another stream of the node took over, or the node is gone."""
        if self.outlet.unsent:
            # A client that takes nothing would keep us holding it.
            self.outlet.reset()
        else:
            self.outlet.end()


def _whole(carried: tuple[str, ...]) -> RouterView:
    return RouterView(carried, suggested=False)


def keepalive_delay() -> float:
    """Seconds of silence until the next sign of life."""
    return KEEP_ALIVE_MIN_S + random.uniform(0, KEEP_ALIVE_JITTER_S)
