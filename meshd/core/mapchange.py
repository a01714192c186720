"""What one message of the map stream changed."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from meshd.core.node import Node
from meshd.wire.control import ClientVersion, ControlDialPlan, PingRequest, UserProfile


class MapChange(msgspec.Struct):
    """What one message changed. With ``keep_alive`` nothing of the netmap did.

    ``changed`` and ``patched`` hold (old, new); ``patched`` are the ones where only the ways to reach the
    peer or its liveness changed (endpoints, home relay, disco key, online, last seen, versions, expiry).
    """

    keep_alive: bool = False
    full: bool = False
    self_changed: bool = False
    added: list[Node] = msgspec.field(default_factory=list)
    changed: list[tuple[Node, Node]] = msgspec.field(default_factory=list)
    removed: list[Node] = msgspec.field(default_factory=list)
    patched: list[tuple[Node, Node]] = msgspec.field(default_factory=list)
    filter_changed: bool = False
    derp_changed: bool = False
    dns_changed: bool = False
    ssh_changed: bool = False
    profiles_changed: bool = False
    profiles: list[UserProfile] = msgspec.field(default_factory=list)
    """Those that are new or different, unless the map is new as a whole."""
    health_changed: bool = False
    lock_changed: bool = False
    settings_changed: bool = False
    """Domain, service collection, automatic update wish or audit log id."""
    # not state, things to do once
    ping: PingRequest | None = None
    pop_browser_url: str = ""
    client_version: ClientVersion | None = None
    dial_plan: ControlDialPlan | None = None
    sleep_seconds: float = 0.0
    disable_log_upload: bool = False
    exit_code: int | None = None

    @property
    def peers_changed(self) -> bool:
        return bool(self.added or self.changed or self.removed or self.patched)

    @property
    def is_empty(self) -> bool:
        """The netmap is as it was."""
        return not (self.peers_changed or self.beyond_peers)

    @property
    def only_peers(self) -> bool:
        """Some peers are different, and nothing else."""
        return self.peers_changed and not self.beyond_peers

    @property
    def beyond_peers(self) -> bool:
        """Something is different, or the map is new as a whole, and not only some peers of it."""
        return (
            self.full
            or self.self_changed
            or self.filter_changed
            or self.derp_changed
            or self.dns_changed
            or self.ssh_changed
            or self.profiles_changed
            or self.health_changed
            or self.lock_changed
            or self.settings_changed
        )


def joined(changes: Iterable[MapChange]) -> MapChange:
    """Several changes that are `MapChange.only_peers`, in the order in which they came, as one."""
    before: dict[int, Node | None] = {}
    after: dict[int, Node | None] = {}
    whole: set[int] = set()  # ids of which more than the ways to reach them changed

    def note(old: Node | None, new: Node | None, node_id: int) -> None:
        before.setdefault(node_id, old)
        after[node_id] = new

    for change in changes:
        for node in change.removed:
            note(node, None, node.id)
            whole.add(node.id)
        for node in change.added:
            note(None, node, node.id)
            whole.add(node.id)
        for old, new in change.changed:
            note(old, new, new.id)
            whole.add(new.id)
        for old, new in change.patched:
            note(old, new, new.id)
    result = MapChange()
    for node_id in sorted(before):
        first, last = before[node_id], after[node_id]
        if first is None and last is not None:
            result.added.append(last)
        elif first is not None and last is None:
            result.removed.append(first)
        elif first is not None and last is not None:
            (result.changed if node_id in whole else result.patched).append((first, last))
    return result
