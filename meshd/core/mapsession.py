"""The map stream's deltas applied to one netmap.

`MapSession` lives as long as the login. At the start of every stream call `begin_stream`: the server then
describes everything from scratch, and the first message is compared with what we had, so that a reconnect
that brings nothing new changes nothing. Between streams the old netmap stays in use.

Peers, per message: ``Peers`` replaces all; else removed, changed, seen, online, patched, in that order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec.structs import force_setattr

from meshd.base.errors import WireError
from meshd.base.gotime import parse_time
from meshd.core.admission import Admission
from meshd.core.controlmessages import ControlMessages
from meshd.core.mapchange import MapChange
from meshd.core.netmap import Netmap
from meshd.core.node import Node, only_path_differs
from meshd.core.nodeadapter import Unacceptable, node_from_wire, notes_after_patch, patch_fields
from meshd.core.unsignedpeers import admits_unsigned, may_be_admitted_otherwise
from meshd.wire.control import (
    FilterRule,
    MapResponse,
    NamedFilters,
    PeerChange,
    UserProfile,
    merge_derp_map,
)
from meshd.wire.control import Node as WireNode

CLOCK_TOLERANCE = 60.0  # s; smaller differences to the server's clock are network delay
NO_TRUSTED_CLOCK_BEFORE = 1673373066.0  # 2023-01-10: a clock behind this was never set
MAX_SLEEP = 300.0  # s; the server may ask for a pause, not for silence
MAX_USER_PROFILES = 100_000
MAX_FILTER_NAMES = 1024  # a tailnet has one or two


SLICE = 256  # nodes that `prepare` looks at in one go: a few milliseconds

_ParsedPeer = tuple[WireNode, Node | str, list[str]]


class _Parsed(msgspec.Struct):
    """The nodes of one message, checked before anything is changed."""

    own: Node | None
    peers: list[_ParsedPeer]
    replace: bool
    patches: list[tuple[PeerChange, dict[str, Any], list[str]]]


class MapSession:
    """Applies map responses. ``netmap`` is None until the first one."""

    def __init__(self) -> None:
        self.netmap: Netmap | None = None
        self.clock_offset = 0.0
        """Seconds to add to our clock to get the server's; 0 while they agree."""
        self.knows_server_clock = False
        self._judged_at: float | None = None  # the server's time when expiries were last looked at
        self._admission: Admission | None = None
        self._filters = NamedFilters()
        self._filter_names: set[str] = set()  # all that were ever named on this stream
        self._rules: tuple[FilterRule, ...] = ()
        self._messages = ControlMessages()
        self._unsigned: set[int] = set()
        self._unsigned_moved = False  # since the filter was last held against them
        self._first = True
        self._prepared: tuple[MapResponse, list[_ParsedPeer]] | None = None
        self._last_ping_url = ""
        self._last_browser_url = ""

    def begin_stream(self) -> None:
        """A new stream was opened: its first message with content describes everything."""
        self._first, self._prepared = True, None

    def apply(self, response: MapResponse, wall: float) -> MapChange:
        """Take one message in; ``wall`` is unix seconds.

        Raises WireError, with nothing changed, when the message breaks the protocol; the stream is then to
        be dropped.
        """
        change = MapChange()
        self._one_off(response, wall, change)
        if response.keep_alive:
            change.keep_alive = True
            return change
        if self._first and response.node is None:
            raise WireError("the first map message has no Node")
        parsed = self._parse(response)
        netmap, admission = self._open(parsed, change)
        if parsed.own is not None and parsed.own != netmap.self_node:
            change.self_changed = True
        if parsed.own is not None:
            admission.set_self(parsed.own)
        self._debug(response, change)
        self._peers(parsed, admission, wall, response)
        self._collect(self._settle(admission, wall), change)
        self._settings(response, netmap, change)
        self._filter(response, netmap, change)
        self._first = False
        return change

    def prepare(self, response: MapResponse) -> Iterator[None]:
        """Do the greater part of the work that `apply` has with a large message, in slices of a few milliseconds.

        Optional, changes nothing, and what it finds is used only when ``apply`` gets the same response next.
        """
        sources = response.peers or response.peers_changed
        if len(sources) <= SLICE:
            return
        peers: list[_ParsedPeer] = []
        for start in range(0, len(sources), SLICE):
            try:
                peers += map(self._as_known, map(_parse_peer, sources[start : start + SLICE]))
            except WireError:
                return  # apply says so
            yield
        self._prepared = response, peers

    def _as_known(self, parsed: _ParsedPeer) -> _ParsedPeer:
        """With the object that we have for the same node: a reconnect must not hold everything twice."""
        wire, outcome, notes = parsed
        old = self._admission.candidate(wire.id) if self._admission is not None else None
        return (wire, old, notes) if old is not None and old == outcome else parsed

    def control_wall(self, wall: float) -> float | None:
        """Our time by the server's clock; None when it cannot be right."""
        now = wall + self.clock_offset
        return now if now >= NO_TRUSTED_CLOCK_BEFORE else None

    def clock_stepped(self, seconds: float) -> None:
        """Our clock was set by so much (negative: back). The server's time, once known, is not touched by that."""
        if self.knows_server_clock:
            self.clock_offset -= seconds

    def own_key_expired(self, wall: float) -> bool:
        """Whether our own key has passed its expiry by the server's clock (LK-09)."""
        expiry = self.netmap.expiry if self.netmap is not None else None
        now = self.control_wall(wall)
        return expiry is not None and now is not None and expiry <= now

    def next_expiry(self, wall: float) -> float | None:
        """Seconds until the next key expires, a peer's or ours; call `expire` then."""
        now = self.control_wall(wall)
        if self._admission is None or self.netmap is None or now is None:
            return None
        peers, own = self._admission.next_expiry(), self.netmap.expiry
        times = [max(peers, now)] if peers is not None else []
        if own is not None and own > now:
            times.append(own)
        return min(times) - now if times else None

    def expire(self, wall: float) -> MapChange:
        """Disable the peers whose keys expired by now: LK-12."""
        change = MapChange()
        now = self.control_wall(wall)
        if self._admission is not None and now is not None:
            self._admission.expire(now)
            self._collect(self._settle(self._admission, wall), change)
        return change

    def _settle(self, admission: Admission, wall: float) -> dict[int, Node | None]:
        """Bring the netmap up to date. A clock that went back takes back what it had expired too early."""
        now, before = self.control_wall(wall), self._judged_at
        if before is not None and (now is None or now < before - CLOCK_TOLERANCE):
            admission.review()
        self._judged_at = now
        return admission.settle(now)

    # -- parts of one message ------------------------------------------------------------------------------

    def _one_off(self, response: MapResponse, wall: float, change: MapChange) -> None:
        ping = response.ping_request
        if ping is not None and ping.url and ping.url != self._last_ping_url:
            self._last_ping_url = ping.url
            change.ping = ping
        url = response.pop_browser_url
        if url and url != self._last_browser_url:
            self._last_browser_url = url
            change.pop_browser_url = url
        change.client_version = response.client_version
        if response.control_time is not None:
            try:
                theirs = parse_time(response.control_time)
            except ValueError as error:
                raise WireError(f"ControlTime: {error}") from None
            if theirs is not None and theirs >= NO_TRUSTED_CLOCK_BEFORE:
                offset, self.knows_server_clock = theirs - wall, True
                self.clock_offset = offset if abs(offset) > CLOCK_TOLERANCE else 0.0
        change.dial_plan = response.control_dial_plan

    def _debug(self, response: MapResponse, change: MapChange) -> None:
        debug = response.debug
        if debug is not None:
            change.sleep_seconds = min(max(debug.sleep_seconds, 0.0), MAX_SLEEP)
            change.disable_log_upload = debug.disable_log_tail
            change.exit_code = debug.exit

    def _parse(self, response: MapResponse) -> _Parsed:
        if response.packet_filters or self._first:
            names = response.packet_filters.keys() | (set() if self._first else self._filter_names)
            if len(names) > MAX_FILTER_NAMES:
                raise WireError(f"the server named more than {MAX_FILTER_NAMES} packet filters")
            self._filter_names = set(names)
        replace = self._first or bool(response.peers)
        sources = list(response.peers)
        patches: list[PeerChange] = []
        if not response.peers:
            sources += response.peers_changed
            patches = list(response.peers_changed_patch)
        own = None
        if response.node is not None:
            try:
                own = node_from_wire(response.node)
            except Unacceptable as reason:
                raise WireError(f"the server's description of this node is unusable: {reason}") from None
            if own.key.is_zero:
                raise WireError("the server's description of this node has no node key")
        prepared, self._prepared = self._prepared, None
        if prepared is not None and prepared[0] is response:
            peers = prepared[1]
        else:
            peers = [_parse_peer(wire) for wire in sources]
        parsed_patches = []
        for patch in patches:
            notes: list[str] = []
            parsed_patches.append((patch, patch_fields(patch, notes), notes))
        return _Parsed(own, peers, replace, parsed_patches)

    def _open(self, parsed: _Parsed, change: MapChange) -> tuple[Netmap, Admission]:
        change.full = self._first
        if self.netmap is None or self._admission is None:
            assert parsed.own is not None
            self.netmap = Netmap(parsed.own)
            self._admission = Admission(self.netmap)
            change.self_changed = True
        return self.netmap, self._admission

    def _peers(self, parsed: _Parsed, admission: Admission, wall: float, response: MapResponse) -> None:
        if parsed.replace:
            admission.replace_all(wire.id for wire, _, _ in parsed.peers)
        whole = bool(response.peers)
        if not whole:
            for node_id in response.peers_removed:
                admission.remove(node_id)
        for wire, outcome, notes in parsed.peers:
            if isinstance(outcome, str):
                admission.reject(wire.id, wire.name, outcome)
            else:
                self._put_if_new(admission, outcome, notes)
        if whole:
            return
        for node_id, seen in response.peer_seen_change.items():
            self._update(admission, node_id, {"last_seen": wall if seen else None})
        for node_id, online in response.online_change.items():
            self._update(admission, node_id, {"online": online})
        for patch, fields, notes in parsed.patches:
            self._patch(admission, patch.node_id, fields, notes)

    def _put_if_new(self, admission: Admission, node: Node, notes: list[str]) -> None:
        """Keep the object we have when the server repeats itself."""
        old = admission.candidate(node.id)
        if old is None:
            admission.put(node, notes)
        elif old is not node and old != node:
            _share(old, node)
            admission.put(node, notes)
        elif admission.notes(node.id) != tuple(notes):
            admission.put(old, notes)

    def _update(self, admission: Admission, node_id: int, fields: dict[str, Any]) -> None:
        node = admission.candidate(node_id)
        if node is not None:
            admission.put(msgspec.structs.replace(node, **fields), admission.notes(node_id))

    def _patch(self, admission: Admission, node_id: int, fields: dict[str, Any], notes: list[str]) -> None:
        node = admission.candidate(node_id)
        if node is None or _is_stale(node, fields):
            return
        told = notes_after_patch(admission.notes(node_id), fields, notes)
        admission.put(msgspec.structs.replace(node, **fields), told)

    def _collect(self, before: Mapping[int, Node | None], change: MapChange) -> None:
        assert self.netmap is not None
        peers = self.netmap.peers
        for node_id in sorted(before):
            old, new = before[node_id], peers.get(node_id)
            if node_id in self._unsigned or (new is not None and new.unsigned_peer_api_only):
                self._watch_unsigned(node_id, old, new)
            if old is None and new is not None:
                change.added.append(new)
            elif old is not None and new is None:
                change.removed.append(old)
            elif old is not None and new is not None:
                (change.patched if only_path_differs(old, new) else change.changed).append((old, new))

    def _watch_unsigned(self, node_id: int, old: Node | None, new: Node | None) -> None:
        known = node_id in self._unsigned
        if new is None or not new.unsigned_peer_api_only:
            self._unsigned.discard(node_id)
            self._unsigned_moved = True
        elif not known or old is None or may_be_admitted_otherwise(old, new):
            self._unsigned.add(node_id)
            self._unsigned_moved = True

    def _filter(self, response: MapResponse, netmap: Netmap, change: MapChange) -> None:
        said = response.packet_filter is not None or bool(response.packet_filters)
        if not (said or self._first or self._unsigned_moved):
            return
        if self._first:
            self._filters = NamedFilters()
        if self._filters.apply(response.packet_filter, response.packet_filters) or self._first:
            self._rules = self._filters.effective()
        rules = self._rules
        netmap.invalid_filter = admits_unsigned(rules, [netmap.peers[n] for n in self._unsigned])
        self._unsigned_moved = False
        if netmap.invalid_filter:
            rules = ()
        if rules is not netmap.filter_rules and rules != netmap.filter_rules:
            netmap.filter_rules = rules
            change.filter_changed = True

    def _settings(self, response: MapResponse, netmap: Netmap, change: MapChange) -> None:
        first = self._first
        if response.derp_map is not None:
            merged = merge_derp_map(None if first else netmap.derp_map, response.derp_map)
            change.derp_changed = merged != netmap.derp_map
            netmap.derp_map = merged
        elif first and netmap.derp_map is not None:
            netmap.derp_map, change.derp_changed = None, True
        if response.dns_config is not None or first:
            change.dns_changed = _set(netmap, "dns", response.dns_config)
        if response.ssh_policy is not None or first:
            change.ssh_changed = _set(netmap, "ssh_policy", response.ssh_policy)
        if response.health is not None or response.display_messages or first:
            if first:
                self._messages = ControlMessages()
            self._messages.apply(response.health, response.display_messages)
            change.health_changed = _set(netmap, "messages", self._messages.current())
        if response.user_profiles or first:
            self._profiles(response.user_profiles, netmap, change)
        lock = response.tka_info
        if lock is not None or first:
            head, disabled = (lock.head, lock.disabled) if lock is not None else ("", False)
            change.lock_changed = _set(netmap, "lock_head", "" if disabled else head)
            change.lock_changed |= _set(netmap, "lock_disabled", disabled)
        if response.domain or first:
            change.settings_changed |= _set(netmap, "domain", response.domain)
        audit = response.domain_data_plane_audit_log_id
        if audit or first:
            change.settings_changed |= _set(netmap, "data_plane_audit_log_id", audit)
        if response.collect_services is not None or first:
            change.settings_changed |= _set(netmap, "collect_services", bool(response.collect_services))
        if response.default_auto_update is not None:
            change.settings_changed |= _set(netmap, "default_auto_update", response.default_auto_update)

    def _profiles(self, profiles: tuple[UserProfile, ...], netmap: Netmap, change: MapChange) -> None:
        if self._first:
            fresh: dict[int, UserProfile] = {}
            for profile in profiles[:MAX_USER_PROFILES]:
                fresh[profile.id] = profile
            change.profiles_changed = _set(netmap, "user_profiles", fresh)
            return
        known = netmap.user_profiles
        for profile in profiles:
            if known.get(profile.id) != profile and (profile.id in known or len(known) < MAX_USER_PROFILES):
                known[profile.id] = profile
                change.profiles_changed = True
                change.profiles.append(profile)


def _parse_peer(wire: WireNode) -> _ParsedPeer:
    notes: list[str] = []
    try:
        return wire, node_from_wire(wire, notes), notes
    except Unacceptable as reason:
        return wire, str(reason), notes


def _set(netmap: Netmap, name: str, value: object) -> bool:
    if getattr(netmap, name) == value:
        return False
    setattr(netmap, name, value)
    return True


def _share(old: Node, new: Node) -> None:
    """Give a node that nobody has seen yet the address tuples of ``old`` where they are equal, so that identity says
    "unchanged"."""
    single = new.allowed_ips is new.addresses
    if old.addresses == new.addresses:
        force_setattr(new, "addresses", old.addresses)
    if single and old.allowed_ips is old.addresses:
        force_setattr(new, "allowed_ips", new.addresses)
    elif old.allowed_ips == new.allowed_ips:
        force_setattr(new, "allowed_ips", old.allowed_ips)


def _is_stale(node: Node, fields: Mapping[str, Any]) -> bool:
    """A late report that an old process of the peer went away; its successor is already known. One that does not say
    when cannot be told to be late."""
    if "disco_key" not in fields or "last_seen" not in fields or fields.get("online") is not False:
        return False
    seen = fields["last_seen"]
    return node.last_seen is not None and (seen is None or seen <= node.last_seen)
