"""What clients of an HTTP/1.1 server may take of it."""

from __future__ import annotations

import asyncio
from typing import Protocol

import msgspec

from meshd.io.peercred import PeerIdentity


class Limits(msgspec.Struct, frozen=True):
    """What one client may ask of a server. Times in seconds."""

    header_bytes: int = 16 * 1024
    """Request line and headers; real clients stay below 2 KiB."""
    body_bytes: int = 1 << 20
    """Bodies that are read whole; the largest real one is a preferences object of a few KiB."""
    header_s: float = 10.0
    """From the first byte of a request to the end of its headers, and from accept to the first byte."""
    body_s: float = 30.0
    """Between two parts of a request body."""
    idle_s: float = 5.0
    """Between an answer and the next request."""
    write_s: float = 30.0
    """For a client to take what was written to it of an answer that ends. One that takes nothing, or a byte now and
    then, is cut off."""
    pause_s: float = 600.0
    """The same for streams that go on for ever: a pager or a stopped process is no reason to end them at once."""
    connections: int = 1024
    """Open at the same time."""
    connections_per_user: int = 256
    """Of these, by one user other than root."""
    connections_of_root: int = 64
    """Of these, for root alone: not even many users together keep it out."""


class Member(Protocol):
    """What the set of connections knows of one."""

    peer: PeerIdentity | None
    task: asyncio.Task[None] | None
    idle: bool

    def __hash__(self) -> int: ...


class ConnectionOwner:
    """The set of open connections of a server, and its limits."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.open: set[Member] = set()
        self.closing = False

    def admit(self, connection: Member) -> bool:
        """Count a new connection; False when it must be refused."""
        peer, room = connection.peer, self._limits.connections
        if peer is not None and peer.uid != 0:
            room -= self._limits.connections_of_root
        if self.closing or len(self.open) >= room:
            return False
        if peer is not None and peer.uid != 0:
            same = sum(1 for other in self.open if other.peer is not None and other.peer.uid == peer.uid)
            if same >= self._limits.connections_per_user:
                return False
        self.open.add(connection)
        return True

    def forget(self, connection: Member) -> None:
        """Drop a connection that has ended or was handed over."""
        self.open.discard(connection)
