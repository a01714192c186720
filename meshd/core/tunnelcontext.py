"""The small values a ``Tunnel`` is made with: what all tunnels share, timers by name, sessions by index."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import TYPE_CHECKING

import msgspec

from meshd.core.handshake import Identity
from meshd.core.indextable import IndexTable

if TYPE_CHECKING:
    from meshd.core.tunnel import Tunnel

REJECT_AFTER_S = 180.0  # WireGuard paper 6.1: life of a session
MAX_JITTER_S = 0.333


class TimerKind(Enum):
    RETRANSMIT = auto()  # no response yet: initiate again
    DEFERRED = auto()  # an initiation wanted earlier than the 5 s rule allows
    KEEPALIVE = auto()  # data was received and nothing sent for 10 s
    NEW_HANDSHAKE = auto()  # data was sent and nothing received for 15 s
    PERSISTENT = auto()  # configured keepalive interval
    ZERO_KEYS = auto()  # no new session for 540 s
    POLL = auto()  # look at the traffic of an active peer


class TunnelContext(msgspec.Struct):
    """What the tunnels of one device share."""

    identity: Identity
    indices: IndexTable[Tunnel]
    random: Callable[[int], bytes]
    stamp: Callable[[bytes], bytes]  # peer public -> the TAI64N stamp of the next initiation
    drops: dict[str, int] = msgspec.field(default_factory=dict)

    def drop(self, reason: str, count: int = 1) -> bool:
        """Count messages that were refused; returns False for the caller to hand on."""
        self.drops[reason] = self.drops.get(reason, 0) + count
        return False

    def jitter(self) -> float:
        """0 to 333 ms."""
        return int.from_bytes(self.random(2), "little") / 65536 * MAX_JITTER_S


class Session(msgspec.Struct, frozen=True):
    """A key pair as the slow path remembers it, without its keys."""

    local_index: int
    created: float
    initiator: bool
