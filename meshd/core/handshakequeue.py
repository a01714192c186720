"""The door that handshake messages come through: mac1 always, cookies and rate limits under load.

WireGuard paper 5.3. Only messages with a valid mac1 take a place in the queue, so that noise alone never
brings us under load; what does is work we would have to do. Cookie replies cost next to nothing and do not
wait here. A source whose messages keep failing is treated as if there were load, alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec

from meshd.base.addr import AddrPort
from meshd.base.keys import NodePublic
from meshd.core.cookie import CookieChecker, LoadGauge
from meshd.core.ratelimit import SourceLimiter, source_network
from meshd.wire.wireguard import (
    MESSAGE_INITIATION,
    MESSAGE_RESPONSE,
    encode_cookie_reply,
    message_type,
)

MAX_WAITING = 1024
MAX_SUSPECTS = 1024
SUSPECT_S = 3.0  # how long a source that wasted our time has to show a cookie

# Where a handshake message came from: a UDP address, or the node that a relay says sent it.
Source = AddrPort | NodePublic


class Admitted(msgspec.Struct, frozen=True):
    """A message that may cost us public-key cryptography. ``kind`` is its type, 1 or 2."""

    kind: int
    data: bytes
    source: Source


class Challenge(msgspec.Struct, frozen=True):
    """Send this cookie reply back to where the message came from; no path changes because of it."""

    data: bytes
    source: Source


class HandshakeQueue:
    """Bounded, first in first out. ``drops`` counts by reason."""

    __slots__ = ("_checker", "_failures", "_gauge", "_limiter", "_suspects", "_waiting", "drops")

    def __init__(self, public: bytes, random: Callable[[int], bytes], drops: dict[str, int] | None = None) -> None:
        self._checker = CookieChecker(public, random)
        self._gauge = LoadGauge()
        self._limiter = SourceLimiter()
        self._failures = SourceLimiter()
        self._suspects: dict[bytes, float] = {}
        self._waiting: deque[Admitted] = deque()
        self.drops: dict[str, int] = {} if drops is None else drops

    def offer(self, data: bytes, source: Source) -> bool:
        """A datagram from the network; False (and counted) when it takes no place."""
        kind = message_type(data)
        if kind not in (MESSAGE_INITIATION, MESSAGE_RESPONSE):
            return self._drop("not_a_handshake")
        if len(self._waiting) >= MAX_WAITING:
            return self._drop("queue_full")
        if not self._checker.check_mac1(data):
            return self._drop("mac1")
        self._waiting.append(Admitted(kind, data, source))
        return True

    def take(self, now: float) -> Admitted | Challenge | None:
        """The next message to work on, or the next answer to send instead; None when nothing waits."""
        loaded = self._gauge.under_load(len(self._waiting), now)
        while self._waiting:
            message = self._waiting.popleft()
            if not loaded and not self._suspected(_network(message.source), now):
                return message
            source = source_bytes(message.source)
            if not self._checker.check_mac2(message.data, source, now):
                sender_index = int.from_bytes(message.data[4:8], "little")
                reply = self._checker.create_reply(message.data, sender_index, source, now)
                self._drop("cookie_asked")
                return Challenge(encode_cookie_reply(reply), message.source)
            if self._limiter.allow(_network(message.source), now):
                return message
            self._drop("rate")
        return None

    def failed(self, source: Source, now: float) -> None:
        """A message that was taken did not authenticate.

        A source of many such has to show a cookie for a while, and then keep to the rate, though there is no load:
        each of its messages costs a key exchange, and nobody else need notice.
        """
        network = _network(source)
        if not self._failures.allow(network, now):
            if len(self._suspects) >= MAX_SUSPECTS:
                del self._suspects[next(iter(self._suspects))]
            self._suspects[network] = now + SUSPECT_S

    def __len__(self) -> int:
        return len(self._waiting)

    def _suspected(self, network: bytes, now: float) -> bool:
        until = self._suspects.get(network)
        if until is None:
            return False
        if now >= until:
            del self._suspects[network]
        return now < until

    def _drop(self, reason: str) -> bool:
        self.drops[reason] = self.drops.get(reason, 0) + 1
        return False


def source_bytes(source: Source) -> bytes:
    """What a cookie is bound to: address and port, or the relayed sender's key."""
    if isinstance(source, AddrPort):
        return source.ip.packed + source.port.to_bytes(2, "big")
    return source.raw


def _network(source: Source) -> bytes:
    return source_network(source.ip.packed) if isinstance(source, AddrPort) else source.raw
