"""Which peers stand behind a disco key: one process may run several nodes, so the map is one to many."""

from __future__ import annotations

from typing import Generic, TypeVar

from meshd.base.crypto import box_shared
from meshd.base.keys import DiscoPrivate, DiscoPublic

PeerT = TypeVar("PeerT")


class _Entry(Generic[PeerT]):
    __slots__ = ("peers", "shared")

    def __init__(self) -> None:
        self.peers: tuple[PeerT, ...] = ()  # nearly always one
        self.shared: bytes | None = None


class DiscoMap(Generic[PeerT]):
    """Disco public key to peers, with the box key computed when a first message needs it."""

    def __init__(self, private: DiscoPrivate) -> None:
        self._private = private
        self._entries: dict[bytes, _Entry[PeerT]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, key: DiscoPublic, peer: PeerT) -> None:
        """Note that ``peer`` uses ``key``; a zero key means "speaks no disco" and is ignored."""
        if key.is_zero:
            return
        entry = self._entries.get(key.raw)
        if entry is None:
            entry = self._entries[key.raw] = _Entry()
        if peer not in entry.peers:
            entry.peers = (*entry.peers, peer)

    def remove(self, key: DiscoPublic, peer: PeerT) -> None:
        """Forget it; the last peer of a key takes the shared secret with it."""
        entry = self._entries.get(key.raw)
        if entry is None:
            return
        if entry.peers == (peer,):
            del self._entries[key.raw]
        else:
            entry.peers = tuple(other for other in entry.peers if other != peer)

    def peers(self, key: bytes) -> list[PeerT]:
        """The peers using the 32-byte key, oldest first; empty when unknown."""
        entry = self._entries.get(key)
        return list(entry.peers) if entry else []

    def shared(self, key: bytes) -> bytes | None:
        """The box key with the owner of a known 32-byte key, None for anyone else."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.shared is None:
            try:
                entry.shared = box_shared(self._private.raw, key)
            except ValueError:  # a low-order point: nobody can own it
                return None
        return entry.shared
