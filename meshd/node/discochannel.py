"""Disco packets of this process: sealing for peers, opening from peers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from meshd.base.crypto import box_open
from meshd.base.errors import WireError
from meshd.base.keys import DiscoPrivate, DiscoPublic, NodePublic
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


class DiscoMemory:
    """The disco key by which peers know this node. One that a stop made (`PeerPaths.renew_disco`) is of use when the
    coordination server tells them of it; until then they answer to the one before only."""

    def __init__(
        self,
        current: Callable[[], DiscoPrivate],
        resume: Callable[[DiscoPrivate], None],
        met: Callable[[], list[NodePublic]],
        greet: Callable[[NodePublic], None],
    ) -> None:
        """``resume`` goes on with an earlier key. ``met`` are the peers with a session; ``greet`` makes a new one."""
        self._current = current
        self._resume = resume
        self._met = met
        self._greet = greet
        self._left: list[NodePublic] = []  # with the sessions that a stop ended
        self._known: tuple[NodePublic, DiscoPrivate] | None = None
        self.alone = False
        """The server cannot be reached, and the node goes on with what it said before."""

    def told(self, node: NodePublic) -> None:
        """Peers know ``node`` by the key that there is now."""
        self._known, self.alone = (node, self._current()), False

    def stopping(self) -> None:
        """All sessions are about to end."""
        self._left, self.alone = self._met(), False

    def note(self, node: NodePublic, *, in_map_poll: bool, failed: bool) -> bool:
        """The server hears ``node`` or it does not. Whether an earlier key had to be taken."""
        if in_map_poll:
            self.told(node)
            return False
        self.alone = self.alone or failed
        if not failed or self._known is None or self._known[0] != node or self._known[1] == self._current():
            return False
        self._resume(self._known[1])
        for key in self._left:
            self._greet(key)
        return True
