"""The one door through which peers come into the netmap.

The server's view (`_candidates`) and what is let in are kept apart, because a refused peer can become
acceptable when another one leaves. The rule makes the outcome a function of the server's view alone, however
the messages were cut: *candidates are taken in ascending order of id, and one that wants a node key or an
own address which is already taken is refused as a whole*. A host route onto another node's own address is
left out of the claimant's allowed addresses.

Work per change is proportional to the peers that it touches: waiting lists name who must be looked at again
when a key or address becomes free.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heapify, heappop, heappush

import msgspec

from meshd.base.addr import unpack_ip
from meshd.base.keys import NodePublic
from meshd.core.netmap import Netmap, Refusal, name_key
from meshd.core.node import Node

MAX_PEERS = 260_000  # candidates kept; the data plane has 262 144 places, a few of them of peers just gone
MAX_REFUSALS = 4096

_Resource = NodePublic | bytes  # a node key, or an own address in its packed form
_BAD_KEY = bytes.fromhex("6da774d5d774")  # marks the key of an expired peer, shows as [bad01]


class Admission:
    """Decides which candidates are in ``netmap.peers`` and keeps its indexes.

    Call `put`, `remove`, `replace_all`, `set_self` freely, then `settle` once: it brings the netmap up to
    date and returns the differences.
    """

    def __init__(self, netmap: Netmap) -> None:
        self._netmap = netmap
        self._candidates: dict[int, Node] = {}
        self._notes: dict[int, tuple[str, ...]] = {}  # refused parts of candidates that are otherwise fine
        self._malformed: dict[int, Refusal] = {}  # never became candidates
        self._refused: dict[int, Refusal] = {}
        self._held: dict[int, tuple[_Resource, ...]] = {}
        self._waiting: dict[_Resource, set[int]] = {}  # losers of a contest
        self._waits_for: dict[int, _Resource] = {}
        self._host_routes: dict[bytes, set[int]] = {}  # candidates with a route onto one address
        self._dirty: set[int] = set()
        self._republish: set[int] = set()
        self._expiries: list[tuple[float, int]] = []
        self._shared_names: dict[str, set[int]] = {}  # while `settle` runs; sorting for each change costs too much
        netmap.refused = self._refused
        self._claim_self(netmap.self_node)

    # -- what the server says ------------------------------------------------------------------------------

    def candidate(self, node_id: int) -> Node | None:
        """The server's view of a peer, admitted or not."""
        return self._candidates.get(node_id)

    def notes(self, node_id: int) -> tuple[str, ...]:
        """What was said of a candidate when it was put."""
        return self._notes.get(node_id, ())

    def __contains__(self, node_id: int) -> bool:
        return node_id in self._candidates

    def set_self(self, node: Node) -> None:
        """Our own key and addresses win over every peer's."""
        old = self._netmap.self_node
        self._netmap.self_node = node
        if old.key == node.key and old.addresses == node.addresses:
            return
        for resource in self._held.pop(0, ()):
            self._free(resource)
        self._claim_self(node)

    def put(self, node: Node, notes: Iterable[str] = ()) -> None:
        """Add or replace a candidate."""
        old = self._candidates.get(node.id)
        if old is None and len(self._candidates) >= MAX_PEERS:
            self.reject(node.id, node.name, f"there are more than {MAX_PEERS} peers")
            return
        self._malformed.pop(node.id, None)
        self._candidates[node.id] = node
        said = tuple(notes)
        if said:
            self._notes[node.id] = said
        else:
            self._notes.pop(node.id, None)
        if old is None or old.allowed_ips is not node.allowed_ips or old.addresses is not node.addresses:
            self._watch_routes(old, node)
        if old is not None and old.key == node.key and old.addresses == node.addresses:
            self._republish.add(node.id)
        else:
            self._dirty.add(node.id)

    def reject(self, node_id: int, name: str, reason: str) -> None:
        """A node that cannot be a candidate; one of the same id that was there is gone."""
        self.remove(node_id)
        if len(self._malformed) < MAX_REFUSALS:
            self._malformed[node_id] = Refusal(node_id=node_id, name=_shown(name), reason=reason)
            self._republish.add(node_id)

    def remove(self, node_id: int) -> None:
        """Forget a candidate; unknown ids are fine."""
        if self._malformed.pop(node_id, None) is not None:
            self._republish.add(node_id)
        old = self._candidates.pop(node_id, None)
        if old is not None:
            self._notes.pop(node_id, None)
            self._watch_routes(old, None)
            self._dirty.add(node_id)

    def replace_all(self, node_ids: Iterable[int] = ()) -> None:
        """Forget every candidate except ``node_ids``, which the caller is about to `put` again."""
        keep = set(node_ids)
        for node_id in [n for n in self._candidates if n not in keep]:
            self.remove(node_id)
        for node_id in [n for n in self._malformed if n not in keep]:
            self.remove(node_id)

    # -- outcome -------------------------------------------------------------------------------------------

    def settle(self, control_wall: float | None) -> dict[int, Node | None]:
        """Bring the netmap up to date. Returns the former node (None: there was none) of every changed id.

        ``control_wall`` is unix seconds by the server's clock, None when no clock can be trusted; keys
        that expired by it are disabled.
        """
        before: dict[int, Node | None] = {}
        heap = list(self._dirty)
        self._dirty = set()
        heapify(heap)
        done = -1
        while heap:
            node_id = heappop(heap)
            if node_id == done:
                continue
            done = node_id
            self._resolve(node_id)
            for other in self._dirty:  # only ids above node_id can have been woken
                heappush(heap, other)
            self._dirty.clear()
            self._republish.add(node_id)
        for node_id in self._republish:
            self._publish(node_id, control_wall, before)
        self._republish.clear()
        self._file_shared_names()
        return before

    def expire(self, control_wall: float) -> None:
        """Mark for `settle` every admitted peer whose key expired by now."""
        while self._expiries and self._expiries[0][0] <= control_wall:
            self._republish.add(heappop(self._expiries)[1])

    def review(self) -> None:
        """Mark for `settle` every peer that is disabled because of its expiry alone: it is earlier than we thought."""
        for node_id, peer in self._netmap.peers.items():
            candidate = self._candidates.get(node_id)  # the message that moved the clock may have removed it
            if peer.expired and (candidate is None or not candidate.expired):
                self._republish.add(node_id)

    def next_expiry(self) -> float | None:
        """When, by the server's clock, the next key expires; entries may be stale (then nothing changes)."""
        return self._expiries[0][0] if self._expiries else None

    # -- contests ------------------------------------------------------------------------------------------

    def _owner(self, resource: _Resource) -> int | None:
        if isinstance(resource, NodePublic):
            return self._netmap.by_key.get(resource)
        return self._netmap.by_ip.get(resource)

    def _take(self, resource: _Resource, node_id: int) -> None:
        if isinstance(resource, NodePublic):
            self._netmap.by_key[resource] = node_id
        else:
            self._netmap.by_ip[resource] = node_id
            if self._host_routes:
                self._republish.update(self._host_routes.get(resource, ()))

    def _free(self, resource: _Resource) -> None:
        if isinstance(resource, NodePublic):
            self._netmap.by_key.pop(resource, None)
        else:
            self._netmap.by_ip.pop(resource, None)
            if self._host_routes:
                self._republish.update(self._host_routes.get(resource, ()))
        if self._waiting:
            self._dirty.update(self._waiting.pop(resource, ()))

    def _release(self, node_id: int) -> None:
        for resource in self._held.pop(node_id, ()):
            self._free(resource)

    def _claim_self(self, node: Node) -> None:
        wanted = _wanted(node)
        for resource in wanted:
            owner = self._owner(resource)
            if owner:
                self._release(owner)
                self._dirty.add(owner)
            self._take(resource, 0)
        self._held[0] = wanted

    def _resolve(self, node_id: int) -> None:
        """Give one candidate what it wants, or refuse it. Lower ids are settled already."""
        waited = self._waits_for.pop(node_id, None) if self._waits_for else None
        if waited is not None and waited in self._waiting:
            self._waiting[waited].discard(node_id)
            if not self._waiting[waited]:
                del self._waiting[waited]
        node = self._candidates.get(node_id)
        if node is None or node.key.is_zero:
            self._release(node_id)
            return
        wanted = _wanted(node)
        rivals: list[int] = []
        for resource in wanted:
            owner = self._owner(resource)
            if owner is None or owner == node_id:
                continue
            if owner < node_id:
                self._release(node_id)
                self._waiting.setdefault(resource, set()).add(node_id)
                self._waits_for[node_id] = resource
                return
            rivals.append(owner)
        for owner in rivals:
            self._release(owner)
            self._dirty.add(owner)
        held = self._held.get(node_id, ())
        for resource in held:
            if resource not in wanted:
                self._free(resource)
        for resource in wanted:
            if resource not in held:
                self._take(resource, node_id)
        self._held[node_id] = wanted

    # -- publication ---------------------------------------------------------------------------------------

    def _publish(self, node_id: int, control_wall: float | None, before: dict[int, Node | None]) -> None:
        netmap = self._netmap
        old = netmap.peers.get(node_id)
        node = self._candidates.get(node_id)
        admitted = node is not None and node_id in self._held
        new = self._effective(node, control_wall) if node is not None and admitted else None
        self._note_refusal(node_id, node, new)
        if new is None:
            if old is not None:
                del netmap.peers[node_id]
                self._index_name(old, None)
                before[node_id] = old
            return
        if old is not None and old == new:
            return
        netmap.peers[node_id] = new
        if old is None or old.name != new.name:
            self._index_name(old, new)
        before[node_id] = old
        waited_for = old is not None and not old.expired and old.key_expiry == new.key_expiry
        if new.key_expiry is not None and not new.expired and not waited_for:
            self._schedule_expiry(new.key_expiry, node_id)

    def _schedule_expiry(self, expiry: float, node_id: int) -> None:
        if len(self._expiries) > 2 * len(self._netmap.peers) + 64:  # mostly stale entries
            self._expiries = [
                (peer.key_expiry, peer.id)
                for peer in self._netmap.peers.values()
                if peer.key_expiry is not None and not peer.expired
            ]
            heapify(self._expiries)
        heappush(self._expiries, (expiry, node_id))

    def _effective(self, node: Node, control_wall: float | None) -> Node:
        """The candidate minus foreign addresses, disabled if its key expired."""
        by_ip = self._netmap.by_ip
        if node.allowed_ips is not node.addresses and any(
            by_ip.get(p.network_address.packed, node.id) != node.id
            for p in node.allowed_ips
            if p.prefixlen == p.max_prefixlen
        ):
            kept = tuple(
                p
                for p in node.allowed_ips
                if p.prefixlen != p.max_prefixlen or by_ip.get(p.network_address.packed, node.id) == node.id
            )
            node = msgspec.structs.replace(node, allowed_ips=kept)
        overdue = control_wall is not None and node.key_expiry is not None and node.key_expiry <= control_wall
        if overdue or node.expired:
            bad_key = NodePublic(_BAD_KEY + node.key.raw[len(_BAD_KEY) :])
            node = msgspec.structs.replace(node, expired=True, endpoints=(), home_derp=0, key=bad_key)
        return node

    def _note_refusal(self, node_id: int, node: Node | None, published: Node | None) -> None:
        if (
            published is not None
            and node is not None
            and len(published.allowed_ips) == len(node.allowed_ips)
            and node_id not in self._notes
            and node_id not in self._refused
        ):
            return  # let in as it is, now and before
        refusal = self._malformed.get(node_id)
        if node is not None:
            reason = None
            if node.key.is_zero:
                reason = "it has no node key"
            elif published is None:
                reason = self._contest(node_id)
            elif len(published.allowed_ips) != len(node.allowed_ips):
                reason = "it is allowed an address that belongs to another node"
            elif node_id in self._notes:
                reason = "; ".join(self._notes[node_id])
            if reason is not None:
                refusal = Refusal(node_id=node_id, name=_shown(node.name), reason=reason)
        if refusal == self._refused.get(node_id):
            return
        self._netmap.listed_refusals = None
        if refusal is None:
            del self._refused[node_id]
        elif node_id in self._refused or len(self._refused) < MAX_REFUSALS:
            self._refused[node_id] = refusal

    def _contest(self, node_id: int) -> str:
        resource = self._waits_for[node_id]
        owner = self._owner(resource)
        whose = "ours" if owner == 0 else f"that of peer {owner}"
        what = "node key" if isinstance(resource, NodePublic) else f"address {unpack_ip(resource)}"
        return f"its {what} is {whose}"

    def _watch_routes(self, old: Node | None, new: Node | None) -> None:
        for node, present in ((old, False), (new, True)):
            if node is None or node.allowed_ips is node.addresses:
                continue
            own = set(node.addresses)
            for prefix in node.allowed_ips:
                if prefix.prefixlen != prefix.max_prefixlen or prefix in own:
                    continue
                packed = prefix.network_address.packed
                watchers = self._host_routes.setdefault(packed, set())
                (watchers.add if present else watchers.discard)(node.id)
                if not watchers:
                    del self._host_routes[packed]

    def _index_name(self, old: Node | None, new: Node | None) -> None:
        by_name = self._netmap.by_name
        if old is not None:
            key = name_key(old.name)
            if key not in self._shared_names and by_name.get(key) == (old.id,):
                del by_name[key]
            else:
                self._sharers(key).discard(old.id)
        if new is not None:
            key = name_key(new.name)
            if key not in self._shared_names and key not in by_name:
                by_name[key] = (new.id,)
            else:
                self._sharers(key).add(new.id)

    def _sharers(self, key: str) -> set[int]:
        sharers = self._shared_names.get(key)
        if sharers is None:
            sharers = self._shared_names[key] = set(self._netmap.by_name.get(key, ()))
        return sharers

    def _file_shared_names(self) -> None:
        for key, sharers in self._shared_names.items():
            if sharers:
                self._netmap.by_name[key] = tuple(sorted(sharers))
            else:
                self._netmap.by_name.pop(key, None)
        self._shared_names.clear()


def _wanted(node: Node) -> tuple[_Resource, ...]:
    """What a node must own to be let in, each once."""
    packed = [prefix.network_address.packed for prefix in node.addresses]
    return node.key, *(packed if len(packed) < 2 or len(set(packed)) == len(packed) else dict.fromkeys(packed))


def _shown(name: str) -> str:
    """A name that is fit for a terminal."""
    return "".join(c if c.isprintable() else "?" for c in name[:64])
