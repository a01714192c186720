"""What the coordination server knows: users, nodes and auth keys, as held in memory and stored."""

from __future__ import annotations

import msgspec

from meshd.wire.control import ZERO_DISCO_KEY, Hostinfo

TAGGED_USER_ID = 2147455555
"""Owner shown for nodes that belong to tags instead of a person; the number that clients know for it."""
TAGGED_USER_NAME = "tagged-devices"
EXIT_ROUTES = ("0.0.0.0/0", "::/0")


class UserRecord(msgspec.Struct):
    """A person who owns nodes."""

    id: int
    name: str
    created: float
    """Unix seconds."""


class AuthKeyRecord(msgspec.Struct):
    """A key that lets machines in. The secret half is only stored as a digest."""

    id: int
    prefix: str
    user_id: int
    reusable: bool
    ephemeral: bool
    tags: tuple[str, ...]
    created: float
    expiry: float | None
    used: float | None
    """When it first let a machine in."""
    revoked: bool
    note: str

    def state(self, wall: float) -> str:
        """`valid`, `used`, `revoked` or `expired`."""
        if self.revoked:
            return "revoked"
        if self.expiry is not None and self.expiry <= wall:
            return "expired"
        if self.used is not None and not self.reusable:
            return "used"
        return "valid"


class NodeRecord(msgspec.Struct):
    """One machine of the network. `id`, `v4` and `v6` never change and are never given out again soon."""

    id: int
    machine_key: str
    node_key: str
    user_id: int
    name: str
    """First label of its DNS name, unique."""
    v4: str
    v6: str
    created: float
    hostname: str = ""
    """What the machine calls itself."""
    disco_key: str = ZERO_DISCO_KEY
    tags: tuple[str, ...] = ()
    method: str = "authkey"
    """How it got in: `authkey` or `approval`."""
    auth_key_id: int | None = None
    ephemeral: bool = False
    expiry: float | None = None
    """When its key ends, unix seconds; None = never."""
    last_seen: float | None = None
    hostinfo: Hostinfo = msgspec.field(default_factory=Hostinfo)
    endpoints: tuple[str, ...] = ()
    endpoint_types: tuple[int, ...] = ()
    version: int = 0
    """Capability version of its client."""
    approved_routes: tuple[str, ...] = ()
    online: bool = False
    """Has a map stream now; not stored."""

    @property
    def stable_id(self) -> str:
        return f"n{self.id}"

    @property
    def home_region(self) -> int:
        """The relay region it listens at, 0 when it has told none."""
        info = self.hostinfo.net_info
        return info.preferred_derp if info is not None else 0

    @property
    def addresses(self) -> tuple[str, str]:
        return f"{self.v4}/32", f"{self.v6}/128"

    @property
    def usable_routes(self) -> tuple[str, ...]:
        """Routes that it both offers and may carry."""
        approved = frozenset(self.approved_routes)
        return tuple(route for route in self.hostinfo.routable_ips if route in approved) if approved else ()

    def expired(self, wall: float) -> bool:
        return self.expiry is not None and self.expiry <= wall

    @property
    def owner_id(self) -> int:
        """The user id that clients are shown."""
        return TAGGED_USER_ID if self.tags else self.user_id
