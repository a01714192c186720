"""The relay: who is connected, and where a packet for a key goes.

DERP protocol, server side. A packet is addressed by node key only; the relay cannot read it. Nothing is awaited
per packet: a read is split into frames, every frame goes to its destination's outbox, and each destination that
got something is written once at the end.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

from meshd.base.crypto import box_shared
from meshd.base.keys import NodePrivate, NodePublic
from meshd.relay.counters import RelayCounters
from meshd.relay.session import RelaySession
from meshd.wire.derp import (
    NONCE_SIZE,
    PROTOCOL_VERSION,
    encode_server_info,
    open_client_info,
    split_client_info,
)
from meshd.wire.derpinfo import ServerInfo

Admission = Callable[[NodePublic, str], Awaitable[bool]]
"""Asked with (node key, source address) whether a client may use the relay."""


async def admit_everyone(key: NodePublic, source_ip: str) -> bool:
    """The admission of a relay without any check."""
    return True


class RelayServer:
    """One relay node. Create it inside a running loop."""

    def __init__(
        self,
        private: NodePrivate,
        *,
        admit: Admission = admit_everyone,
        client_rate_bytes: int = 0,
    ) -> None:
        self._private = private
        self.public = private.public()
        self.admit = admit
        self.client_rate_bytes = client_rate_bytes
        """Bytes per second read from one client; 0 means no limit."""
        self.counters = RelayCounters()
        self.active: dict[bytes, RelaySession] = {}
        """The connection that packets for a key go to: the last one that spoke."""
        self._all: dict[bytes, list[RelaySession]] = {}

    @property
    def clients(self) -> int:
        """Connections that finished the exchange of keys."""
        return sum(len(sessions) for sessions in self._all.values())

    def attach(self, transport: asyncio.Transport, source_ip: str) -> RelaySession:
        """Take over a connection right after its HTTP upgrade; the server key is sent at once."""
        session = RelaySession(self, transport, source_ip)
        session.start()
        return session

    def register(self, session: RelaySession) -> None:
        """Make `session` the destination of packets for its key."""
        self._all.setdefault(session.key, []).append(session)
        self.active[session.key] = session
        self.counters.accepted += 1

    def activate(self, session: RelaySession) -> None:
        """`session` spoke last, so it gets the packets when its key is connected more than once."""
        self.active[session.key] = session

    def unregister(self, session: RelaySession) -> None:
        """Forget a connection; those that its key had sent to are told once the key is gone altogether."""
        sessions = self._all.get(session.key)
        if sessions is None or session not in sessions:
            return
        sessions.remove(session)
        if sessions:
            sessions[-1].inherit(session.sent_to)
            if self.active.get(session.key) is session:
                self.active[session.key] = sessions[-1]
            return
        del self._all[session.key]
        del self.active[session.key]
        for key in session.sent_to:
            receiver = self.active.get(key)
            if receiver is not None:
                receiver.peer_gone(session.key, disconnected=True)

    def drop_key(self, key: NodePublic) -> None:
        """End every connection of a key that may not use the relay any more."""
        for session in list(self._all.get(key.raw, ())):
            session.abort()

    def close(self) -> None:
        """End every connection."""
        for sessions in list(self._all.values()):
            for session in list(sessions):
                session.abort()

    def open_client_info(self, payload: bytes) -> bytes:
        """The key of the client that sealed this ClientInfo body; ValueError when it is not authentic."""
        client, nonce, boxed = split_client_info(payload)
        if not any(client):
            raise ValueError("the client key is zero")
        open_client_info(box_shared(self._private.raw, client), nonce, boxed)
        return client

    def seal_server_info(self, client: bytes) -> bytes:
        """The frame that tells a client about the relay."""
        shared = box_shared(self._private.raw, client)
        return encode_server_info(shared, os.urandom(NONCE_SIZE), ServerInfo(version=PROTOCOL_VERSION))
