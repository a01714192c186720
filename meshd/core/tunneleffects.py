"""What a ``Tunnel`` asks its engine to do, and what the engine tells it about traffic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

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


@dataclass(frozen=True, slots=True)
class SendDatagram:
    """Send a handshake message to the peer over whatever path it has."""

    data: bytes


@dataclass(frozen=True, slots=True)
class InstallSession:
    """Hand a key pair to the data plane: "current" for the initiator, "next" for the responder."""

    keys: SessionKeys
    slot: Literal["current", "next"]
    created: float


@dataclass(frozen=True, slots=True)
class ClearSessions:
    """Wipe every key pair of the peer."""


@dataclass(frozen=True, slots=True)
class SendKeepalive:
    """Send an empty transport packet on the current session."""


@dataclass(frozen=True, slots=True)
class FlushStaged:
    """Send packets that waited for a session."""

    packets: list[bytes]


@dataclass(frozen=True, slots=True)
class AllowActive:
    """The peer fell idle and is polled no more; report its next traffic."""


@dataclass(frozen=True, slots=True)
class SessionEstablished:
    """Both sides hold a session and have shown it."""

    initiator: bool
    local_index: int


@dataclass(frozen=True, slots=True)
class HandshakeGaveUp:
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
