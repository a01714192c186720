"""What one message of the map stream changed."""

from __future__ import annotations

from dataclasses import dataclass, field

from meshd.core.node import Node
from meshd.wire.control import ClientVersion, ControlDialPlan, PingRequest


@dataclass(slots=True)
class MapChange:
    """What one message changed. With ``keep_alive`` nothing of the netmap did.

    ``changed`` and ``patched`` hold (old, new); ``patched`` are the ones where only the ways to reach the
    peer or its liveness changed (endpoints, home relay, disco key, online, last seen, versions, expiry).
    """

    keep_alive: bool = False
    full: bool = False
    self_changed: bool = False
    added: list[Node] = field(default_factory=list)
    changed: list[tuple[Node, Node]] = field(default_factory=list)
    removed: list[Node] = field(default_factory=list)
    patched: list[tuple[Node, Node]] = field(default_factory=list)
    filter_changed: bool = False
    derp_changed: bool = False
    dns_changed: bool = False
    ssh_changed: bool = False
    profiles_changed: bool = False
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
