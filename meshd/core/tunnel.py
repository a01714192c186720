"""One peer's WireGuard state: handshakes, sessions by index, timers (WireGuard paper 6).

Packets themselves pass through the data plane, which owns keys, counters and replay windows. The tunnel
learns of traffic by ``activity`` and by the ``Traffic`` that comes with ``handle_timer``, and decides
when to shake hands, when to say that we are still there, and when keys die. After every input call
``drain`` and execute the effects in order, then re-arm for ``next_timer``.
"""

from __future__ import annotations

from collections.abc import Callable

from meshd.base.crypto import clamp
from meshd.core.cookie import CookieJar
from meshd.core.handshake import (
    Counterpart,
    OpenedInitiation,
    PendingInitiation,
    accept_initiation,
    accept_response,
    create_initiation,
    create_response,
)
from meshd.core.staging import StagedPackets
from meshd.core.tunnelcontext import REJECT_AFTER_S, Session, TimerKind, TunnelContext
from meshd.core.tunneleffects import (
    AllowActive,
    ClearSessions,
    Effect,
    FlushStaged,
    HandshakeGaveUp,
    InstallSession,
    SendDatagram,
    SendKeepalive,
    SessionEstablished,
    Traffic,
)
from meshd.wire.wireguard import CookieReply, Response, encode_initiation, encode_response

# WireGuard paper 6.1
REKEY_TIMEOUT_S = 5.0
REKEY_ATTEMPTS = 18  # REKEY_ATTEMPT_TIME 90 s / REKEY_TIMEOUT
KEEPALIVE_TIMEOUT_S = 10.0
# This implementation, as wireguard-go
NEW_HANDSHAKE_S = KEEPALIVE_TIMEOUT_S + REKEY_TIMEOUT_S
ZERO_KEYS_S = 3 * REJECT_AFTER_S
MIN_INITIATION_GAP_S = 0.020  # faster initiations of one peer are a flood
# Ours: how the traffic of an active peer is looked at
POLL_S = 5.0
IDLE_AFTER_S = 12.0


class Tunnel:
    """The machine of one peer, named by the 32 bytes of its static public key."""

    __slots__ = (
        "_answered_at",
        "_armed_for",
        "_attempts",
        "_context",
        "_cookies",
        "_counterpart",
        "_greatest_stamp",
        "_keepalive_s",
        "_kept_for",
        "_last_accepted",
        "_last_handshake_sent",
        "_outbox",
        "_pending",
        "_staged",
        "_timers",
        "current",
        "next",
        "previous",
        "public",
    )

    def __init__(self, context: TunnelContext, public: bytes) -> None:
        self.public = public
        self.previous: Session | None = None
        self.current: Session | None = None
        self.next: Session | None = None
        self._context = context
        self._cookies = CookieJar(public)
        self._counterpart: Counterpart | None = None
        self._keepalive_s = 0
        self._pending: PendingInitiation | None = None
        self._attempts = 0
        self._last_handshake_sent = float("-inf")  # initiation or response
        self._answered_at = 0.0  # last handshake message accepted, or given up on data before
        self._last_accepted = float("-inf")
        self._greatest_stamp = b""
        self._armed_for = 0.0  # the unanswered_since that NEW_HANDSHAKE stands for
        self._kept_for = 0.0  # the owed_since that a keepalive was sent for
        self._staged = StagedPackets()
        self._timers: dict[TimerKind, float] = {}
        self._outbox: list[Effect] = []

    # -- inputs from the data plane

    def staged(self, packet: bytes, now: float) -> None:
        """An outbound packet found no usable session."""
        dropped = self._staged.add(packet)
        if dropped:
            self._context.drop("staged_overflow", dropped)
        self.initiate(now)

    def activity(self, now: float) -> None:
        """The data plane saw traffic of a peer that was idle; it is polled from now on."""
        self._timers.setdefault(TimerKind.POLL, now)

    def rekey_asked(self, local_index: int, now: float) -> None:
        """A session is old enough to be replaced."""
        if self.current is None or self.current.local_index == local_index:
            self.initiate(now)

    def confirmed(self, local_index: int, now: float) -> None:
        """The first packet on a session that we answered for arrived; the data plane uses it now."""
        session = self.next
        if session is not None and session.local_index == local_index:
            self.next = None
        elif any(s is not None and s.local_index == local_index for s in (self.current, self.previous)):
            return  # already replaced by a session of ours
        elif self._context.indices.adopt(local_index, self):
            session = Session(local_index, now, initiator=False)  # confirmed just as we answered again
        else:
            return
        self._release(self.previous)
        self.previous, self.current = self.current, session
        self._session_usable(local_index, initiator=False)

    # -- inputs from the network

    def initiation_received(self, opened: OpenedInitiation, now: float) -> bool:
        """A first message that names this peer; False (and counted) when it is refused."""
        counterpart = self._peer()
        accepted = accept_initiation(counterpart, opened) if counterpart is not None else None
        if counterpart is None or accepted is None:
            return self._context.drop("initiation_forged")
        if accepted.timestamp <= self._greatest_stamp:
            return self._context.drop("initiation_replayed")
        if now - self._last_accepted < MIN_INITIATION_GAP_S:
            return self._context.drop("initiation_flood")
        self._greatest_stamp = accepted.timestamp
        self._last_accepted = now
        index = self._context.indices.allocate(self)
        try:
            message, keys = create_response(
                counterpart, accepted, local_index=index, ephemeral_private=self._ephemeral()
            )
        except ValueError:
            self._context.indices.release(index)
            return self._context.drop("initiation_low_order")
        self._release(self.next)
        self._release(self.previous)
        self.previous = None
        self.next = Session(index, now, initiator=False)
        self._outbox.append(InstallSession(keys, "next", now))
        self._send_handshake(encode_response(message), now)
        self._answered_at = now
        self._timers[TimerKind.ZERO_KEYS] = now + ZERO_KEYS_S
        return True

    def response_received(self, message: Response, now: float) -> bool:
        """A second message to one of our indices; one that does not authenticate changes nothing."""
        pending, counterpart = self._pending, self._counterpart
        if pending is None or counterpart is None or pending.local_index != message.receiver:
            return self._context.drop("response_unexpected")
        keys = accept_response(self._context.identity, counterpart, pending, message)
        if keys is None:
            return self._context.drop("response_forged")
        self._pending = None
        self._release(self.previous)
        if self.next is not None:
            self._release(self.current)
            self.previous, self.next = self.next, None
        else:
            self.previous = self.current
        self.current = Session(keys.local_index, now, initiator=True)
        self._outbox.append(InstallSession(keys, "current", now))
        self._outbox.append(SendKeepalive())  # the peer may not use the session before it hears from us
        self._answered_at = now
        self._timers[TimerKind.ZERO_KEYS] = now + ZERO_KEYS_S
        self._session_usable(keys.local_index, initiator=True)
        return True

    def cookie_received(self, reply: CookieReply, now: float) -> bool:
        """Keep a cookie for the next attempt; nothing is sent and no path changes because of it."""
        if not self._cookies.accept_reply(reply, now):
            return self._context.drop("cookie_unexpected")
        return True

    # -- inputs from above

    def initiate(self, now: float) -> None:
        """Start a handshake, or as soon as the 5 s rule allows."""
        self._attempts = 0
        earliest = self._last_handshake_sent + REKEY_TIMEOUT_S
        if now >= earliest:
            self._send_initiation(now)
        elif TimerKind.RETRANSMIT not in self._timers:
            self._timers[TimerKind.DEFERRED] = earliest

    def set_keepalive(self, interval_s: int, now: float) -> None:
        """Change the persistent keepalive interval; turning it on sends one at once."""
        turned_on = interval_s > 0 and self._keepalive_s != interval_s
        self._keepalive_s = interval_s
        if turned_on:
            self._timers[TimerKind.PERSISTENT] = now
        elif not interval_s:
            self._timers.pop(TimerKind.PERSISTENT, None)

    def restart(self, now: float) -> None:
        """The peer is known to have lost its state: forget ours, and shake hands at once if there was use.

        A session that it asked for moments ago is kept: that was its new life speaking.
        """
        newest = self.next or self.current
        if newest is not None and not newest.initiator and now - newest.created < REKEY_TIMEOUT_S:
            self.initiate(now)
            return
        in_use = self.in_use
        self.close()
        self._greatest_stamp = b""
        self._last_accepted = self._last_handshake_sent = float("-inf")
        self._outbox += (ClearSessions(), AllowActive())
        if in_use or len(self._staged):
            self.initiate(now)
        if self._keepalive_s:
            self._timers[TimerKind.PERSISTENT] = now

    def close(self) -> None:
        """Release every index and timer; the data plane's sessions are the caller's to remove.

        What is staged stays, for ``restart``; a tunnel that ends for good counts it with ``end``.
        """
        if self._pending is not None:
            self._context.indices.release(self._pending.local_index)
            self._pending = None
        for session in (self.previous, self.current, self.next):
            self._release(session)
        self.previous = self.current = self.next = None
        self._timers.clear()
        self._armed_for = 0.0

    def end(self) -> None:
        """``close``, and give up what is staged."""
        self._give_up_staged()
        self.close()

    # -- time

    def next_timer(self) -> float | None:
        """Monotonic seconds at which ``handle_timer`` wants to be called."""
        return min(self._timers.values(), default=None)

    def handle_timer(self, now: float, traffic: Traffic) -> None:
        """Run what is due; calling early does nothing."""
        for kind in [kind for kind, deadline in self._timers.items() if deadline <= now]:
            if self._timers.get(kind, now + 1) <= now:
                del self._timers[kind]
                _HANDLERS[kind](self, now, traffic)

    def drain(self) -> list[Effect]:
        """The effects since the last call, in order."""
        effects, self._outbox = self._outbox, []
        return effects

    @property
    def in_use(self) -> bool:
        """Whether there is a session or a handshake under way."""
        return self.current is not None or self.next is not None or self._pending is not None

    @property
    def timers(self) -> dict[TimerKind, float]:
        """The armed timers, for inspection."""
        return dict(self._timers)

    def _retransmit(self, now: float, traffic: Traffic) -> None:
        earliest = self._last_handshake_sent + REKEY_TIMEOUT_S
        if now < earliest:  # we answered the peer meanwhile
            self._timers[TimerKind.RETRANSMIT] = earliest
            return
        if self._attempts > REKEY_ATTEMPTS:
            self._timers.pop(TimerKind.KEEPALIVE, None)
            self._timers.setdefault(TimerKind.ZERO_KEYS, now + ZERO_KEYS_S)
            self._outbox.append(HandshakeGaveUp(self._give_up_staged()))
            return
        self._attempts += 1
        self._send_initiation(now)

    def _deferred(self, now: float, traffic: Traffic) -> None:
        self.initiate(now)

    def _keepalive(self, now: float, traffic: Traffic) -> None:
        if not traffic.owed_since or traffic.owed_since == self._kept_for:
            return
        if now < traffic.owed_since + KEEPALIVE_TIMEOUT_S:
            self._timers[TimerKind.KEEPALIVE] = traffic.owed_since + KEEPALIVE_TIMEOUT_S
        elif self._has_usable_session(now):
            self._kept_for = traffic.owed_since
            self._outbox.append(SendKeepalive())

    def _new_handshake(self, now: float, traffic: Traffic) -> None:
        if self._unanswered(traffic) == self._armed_for:
            self._answered_at = now  # data sent from now on arms the timer again
            self.initiate(now)

    def _persistent(self, now: float, traffic: Traffic) -> None:
        last = max(traffic.last_sent, traffic.last_received, self._last_handshake_sent)
        if now < last + self._keepalive_s:
            self._timers[TimerKind.PERSISTENT] = last + self._keepalive_s
            return
        self._timers[TimerKind.PERSISTENT] = now + self._keepalive_s
        if self._has_usable_session(now):
            self._outbox.append(SendKeepalive())
        else:
            self.initiate(now)

    def _zero_keys(self, now: float, traffic: Traffic) -> None:
        self._give_up_staged()
        self.close()
        self._outbox += (ClearSessions(), AllowActive())
        if self._keepalive_s:
            self._timers[TimerKind.PERSISTENT] = now + self._keepalive_s

    def _poll(self, now: float, traffic: Traffic) -> None:
        if traffic.owed_since and traffic.owed_since != self._kept_for:
            self._timers.setdefault(TimerKind.KEEPALIVE, traffic.owed_since + KEEPALIVE_TIMEOUT_S)
        else:
            self._timers.pop(TimerKind.KEEPALIVE, None)
        since = self._unanswered(traffic)
        if not since:
            self._timers.pop(TimerKind.NEW_HANDSHAKE, None)
        elif since != self._armed_for:
            self._armed_for = since
            self._timers[TimerKind.NEW_HANDSHAKE] = since + NEW_HANDSHAKE_S + self._context.jitter()
        waiting = TimerKind.KEEPALIVE in self._timers or TimerKind.NEW_HANDSHAKE in self._timers
        if waiting or now - max(traffic.last_sent, traffic.last_received) < IDLE_AFTER_S:
            self._timers[TimerKind.POLL] = now + POLL_S
        else:
            self._armed_for = 0.0
            self._outbox.append(AllowActive())

    # -- steps

    def _unanswered(self, traffic: Traffic) -> float:
        """Since when data of ours lacks an answer, where a handshake message counts as one; 0 = it has one."""
        if not traffic.unanswered_since or traffic.last_sent_data <= self._answered_at:
            return 0.0
        return max(traffic.unanswered_since, self._answered_at)

    def _give_up_staged(self) -> int:
        dropped = len(self._staged.take())
        if dropped:
            self._context.drop("staged_given_up", dropped)
        return dropped

    def _has_usable_session(self, now: float) -> bool:
        return self.current is not None and now - self.current.created < REJECT_AFTER_S

    def _peer(self) -> Counterpart | None:
        if self._counterpart is None:
            try:
                self._counterpart = Counterpart.between(self._context.identity, self.public)
            except ValueError:
                return None
        return self._counterpart

    def _ephemeral(self) -> bytes:
        return clamp(self._context.random(32))

    def _send_initiation(self, now: float) -> None:
        self._timers.pop(TimerKind.DEFERRED, None)
        counterpart = self._peer()
        if counterpart is None:
            self._context.drop("peer_low_order")
            return
        if self._pending is not None:
            self._context.indices.release(self._pending.local_index)
        message, self._pending = create_initiation(
            self._context.identity,
            counterpart,
            local_index=self._context.indices.allocate(self),
            timestamp=self._context.stamp(self.public),
            ephemeral_private=self._ephemeral(),
        )
        self._timers[TimerKind.RETRANSMIT] = now + REKEY_TIMEOUT_S + self._context.jitter()
        self._send_handshake(encode_initiation(message), now)

    def _send_handshake(self, message: bytes, now: float) -> None:
        self._last_handshake_sent = now
        self._outbox.append(SendDatagram(self._cookies.sign(message, now)))

    def _session_usable(self, local_index: int, *, initiator: bool) -> None:
        self._attempts = 0
        self._timers.pop(TimerKind.RETRANSMIT, None)
        self._timers.pop(TimerKind.DEFERRED, None)
        self._timers.pop(TimerKind.NEW_HANDSHAKE, None)
        self._outbox.append(SessionEstablished(initiator, local_index))
        packets = self._staged.take()
        if packets:
            self._outbox.append(FlushStaged(packets))

    def _release(self, session: Session | None) -> None:
        if session is not None:
            self._context.indices.release(session.local_index)


_HANDLERS: dict[TimerKind, Callable[[Tunnel, float, Traffic], None]] = {
    TimerKind.RETRANSMIT: Tunnel._retransmit,
    TimerKind.DEFERRED: Tunnel._deferred,
    TimerKind.KEEPALIVE: Tunnel._keepalive,
    TimerKind.NEW_HANDSHAKE: Tunnel._new_handshake,
    TimerKind.PERSISTENT: Tunnel._persistent,
    TimerKind.ZERO_KEYS: Tunnel._zero_keys,
    TimerKind.POLL: Tunnel._poll,
}
