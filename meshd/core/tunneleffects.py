"""What a ``Tunnel`` asks its engine to do, and what the engine tells it about traffic."""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from meshd.core.handshake import SessionKeys


class Traffic(NamedTuple):
    """What the data plane saw of one peer; monotonic seconds, 0 for never or nothing.

    ``owed_since`` is the first data packet received since our last packet of any kind,
    ``unanswered_since`` the first data packet sent since the peer's last packet of any kind.
    """

    last_sent: float
    last_received: float
    last_sent_data: float
    owed_since: float
    unanswered_since: float


NO_TRAFFIC = Traffic(0.0, 0.0, 0.0, 0.0, 0.0)


class SendDatagram(msgspec.Struct, frozen=True):
    """Send a handshake message to the peer over whatever path it has."""

    data: bytes


class InstallSession(msgspec.Struct, frozen=True):
    """Hand a key pair to the data plane: "current" for the initiator, "next" for the responder."""

    keys: SessionKeys
    slot: Literal["current", "next"]
    created: float


class ClearSessions(msgspec.Struct, frozen=True):
    """Wipe every key pair of the peer."""


class SendKeepalive(msgspec.Struct, frozen=True):
    """Send an empty transport packet on the current session."""


class FlushStaged(msgspec.Struct, frozen=True):
    """Send packets that waited for a session."""

    packets: list[bytes]


class AllowActive(msgspec.Struct, frozen=True):
    """The peer fell idle and is polled no more; report its next traffic."""


class SessionEstablished(msgspec.Struct, frozen=True):
    """Both sides hold a session and have shown it."""

    initiator: bool
    local_index: int


class HandshakeGaveUp(msgspec.Struct, frozen=True):
    """No answer for 90 seconds; ``dropped`` packets that waited are gone."""

    dropped: int


Effect = (
    SendDatagram
    | InstallSession
    | ClearSessions
    | SendKeepalive
    | FlushStaged
    | AllowActive
    | SessionEstablished
    | HandshakeGaveUp
)
