"""Where handshake messages from the network are worked on, a few per turn of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from meshd.core.handshake import open_initiation
from meshd.core.handshakequeue import Admitted, Challenge, HandshakeQueue, Source
from meshd.core.tunnel import Tunnel
from meshd.core.tunnelcontext import TunnelContext
from meshd.wire.wireguard import (
    MESSAGE_COOKIE_REPLY,
    MESSAGE_INITIATION,
    decode_cookie_reply,
    decode_initiation,
    decode_response,
    message_type,
)

HANDSHAKES_PER_TURN = 16  # each costs up to half a millisecond of the event loop
CHALLENGES_PER_TURN = 512  # cheap; more than a turn brings in, so that a flood cannot keep the queue full


class HandshakeDesk:
    """Finds the tunnel that a message belongs to and lets it decide.

    ``find`` gives the tunnel of a static public key; ``accepted(tunnel, source, size)`` is told of every
    message that authenticated, with the tunnel's effects still undrained; ``challenge(source, datagram)``
    sends a cookie reply straight back.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        monotonic: Callable[[], float],
        drops: dict[str, int],
        find: Callable[[bytes], Tunnel | None],
        accepted: Callable[[Tunnel, Source, int], None],
        challenge: Callable[[Source, bytes], None],
    ) -> None:
        self._loop = loop
        self._monotonic = monotonic
        self._drops = drops
        self._find = find
        self._accepted = accepted
        self._challenge = challenge
        self._context: TunnelContext | None = None
        self._queue: HandshakeQueue | None = None
        self._scheduled = False

    def set_context(self, context: TunnelContext | None) -> None:
        """The identity to answer as; what waits for another one is dropped."""
        self._context = context
        if self._queue:
            self._drops["identity_changed"] = self._drops.get("identity_changed", 0) + len(self._queue)
        self._queue = None
        if context is not None:
            self._queue = HandshakeQueue(context.identity.public, context.random, self._drops)

    def receive(self, datagram: bytes, source: Source) -> None:
        """A message of type 1, 2 or 3; anything else is counted and dropped."""
        if self._queue is None or self._context is None:
            self._drop("no_private_key")
        elif message_type(datagram) == MESSAGE_COOKIE_REPLY:
            self._cookie_reply(self._context, datagram)
        elif self._queue.offer(datagram, source) and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._work)

    def _cookie_reply(self, context: TunnelContext, datagram: bytes) -> None:
        reply = decode_cookie_reply(datagram)
        tunnel = context.indices.owner(reply.receiver)
        if tunnel is None:
            self._drop("cookie_unexpected")
        else:
            tunnel.cookie_received(reply, self._monotonic())

    def _work(self) -> None:
        self._scheduled = False
        handshakes = challenges = 0
        while handshakes < HANDSHAKES_PER_TURN and challenges < CHALLENGES_PER_TURN:
            item = self._queue.take(self._monotonic()) if self._queue is not None else None
            if item is None:
                return
            if isinstance(item, Challenge):
                challenges += 1
                self._challenge(item.source, item.data)
                continue
            handshakes += 1
            if (tunnel := self._message(item)) is not None:
                self._accepted(tunnel, item.source, len(item.data))
            elif self._queue is not None:
                self._queue.failed(item.source, self._monotonic())
        if self._queue:
            self._scheduled = True
            self._loop.call_soon(self._work)

    def _message(self, item: Admitted) -> Tunnel | None:
        """The tunnel that accepted the message."""
        context = self._context
        if context is None:
            return None
        if item.kind == MESSAGE_INITIATION:
            return self._initiation(context, item.data)
        response = decode_response(item.data)
        tunnel = context.indices.owner(response.receiver)
        if tunnel is None:
            self._drop("response_unexpected")
            return None
        return tunnel if tunnel.response_received(response, self._monotonic()) else None

    def _initiation(self, context: TunnelContext, data: bytes) -> Tunnel | None:
        opened = open_initiation(context.identity, decode_initiation(data))
        if opened is None:
            self._drop("initiation_forged")
            return None
        tunnel = self._find(opened.sender_public)
        if tunnel is None:
            self._drop("initiation_unknown_peer")
            return None
        return tunnel if tunnel.initiation_received(opened, self._monotonic()) else None

    def _drop(self, reason: str) -> None:
        self._drops[reason] = self._drops.get(reason, 0) + 1
