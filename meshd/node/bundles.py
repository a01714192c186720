"""Agreeing with peers on several WireGuard messages in one relay frame.

A relay spends its time on frames, not on bytes, and keeps 32 of them for a receiver. Peers that are meshd, too, learn
by a disco message that we take bundles; others ignore the question, and get a frame per message as ever. What was
agreed holds for one WireGuard session: after a restart the peer may be another program.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from meshd.base.clock import Clock
from meshd.wire.disco import TakesBundles

if TYPE_CHECKING:
    from meshd.node.peerpaths import PeerPath

FIRST_PAUSE_S = 1.0  # until a peer that did not answer is asked again
LONGEST_PAUSE_S = 600.0
_SLOWER = 5.0


class BundlePlane(Protocol):
    """The part of the data plane that knows which peer takes bundles."""

    def set_bundles(self, peer: int, bundles: bool) -> None: ...

    def takes_bundles(self, peer: int) -> bool: ...


class Bundles:
    """Asks peers whose data comes through a relay, and answers them."""

    def __init__(self, plane: BundlePlane, clock: Clock, send: Callable[[PeerPath, TakesBundles], None]) -> None:
        self._plane = plane
        self._clock = clock
        self._send = send
        self._asked: dict[PeerPath, tuple[float, float]] = {}  # when to ask again, and the pause after that

    def data_relayed(self, peer: PeerPath) -> None:
        """WireGuard data of the peer came through a relay, so ours is likely to go that way."""
        if peer.index is None or peer.spec.disco_key is None or self._plane.takes_bundles(peer.index):
            return
        now = self._clock.monotonic()
        due, pause = self._asked.get(peer, (now, FIRST_PAUSE_S))
        if now >= due:
            self._asked[peer] = now + pause, min(pause * _SLOWER, LONGEST_PAUSE_S)
            self._send(peer, TakesBundles(question=True))

    def offered(self, peer: PeerPath, *, question: bool) -> None:
        """The peer takes bundles, and may have asked whether we do."""
        if peer.index is None:
            return
        self._plane.set_bundles(peer.index, True)
        self._asked.pop(peer, None)
        if question:
            self._send(peer, TakesBundles())

    def forget(self, peer: PeerPath) -> None:
        """The peer is gone."""
        self._asked.pop(peer, None)
