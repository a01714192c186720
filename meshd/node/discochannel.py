"""Disco packets of this process: sealing for peers, opening from peers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from meshd.base.crypto import box_open
from meshd.base.errors import WireError
from meshd.base.keys import DiscoPrivate, DiscoPublic
from meshd.core.discomap import DiscoMap
from meshd.wire import disco

PeerT = TypeVar("PeerT")


class Opened(NamedTuple, Generic[PeerT]):
    """An authentic message and the peers that use the sender's disco key."""

    peers: list[PeerT]
    message: disco.Message


class DiscoChannel(Generic[PeerT]):
    """The disco key is new in every process, which tells peers that our sessions are gone. Only a process that may
    be unable to announce a key takes over the ``private`` one that its peers know."""

    def __init__(self, random: Callable[[int], bytes], private: DiscoPrivate | None = None) -> None:
        self._random = random
        private = private or DiscoPrivate.generate(random)
        self.private = private
        self.public = private.public()
        self.peers: DiscoMap[PeerT] = DiscoMap(private)
        self.dropped: Counter[str] = Counter()

    def seal(self, to: DiscoPublic, message: disco.Message) -> bytes | None:
        """A packet for the owner of ``to``; None when the key is unknown or unusable."""
        shared = self.peers.shared(to.raw)
        if shared is None:
            return None
        return disco.seal(self.public.raw, shared, self._random(disco.NONCE_SIZE), disco.encode_message(message))

    def open(self, packet: bytes) -> Opened[PeerT] | None:
        """What a disco packet says; None (and counted) when it is not from a peer or not well-formed."""
        try:
            sender, nonce, boxed = disco.split(packet)
            peers = self.peers.peers(sender)
            if not peers:
                self.dropped["unknown_sender"] += 1
                return None
            shared = self.peers.shared(sender)
            plaintext = box_open(shared, nonce, boxed) if shared is not None else None
            if plaintext is None:
                self.dropped["forged"] += 1
                return None
            return Opened(peers, disco.decode_message(plaintext))
        except WireError:
            self.dropped["malformed"] += 1
            return None
