"""CallMeMaybe messages that wait until we know our own addresses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from meshd.node.ownendpoints import SETTLE_S, OwnEndpoints
from meshd.node.peerpaths import PeerPath

CALL_WAIT_S = 0.5  # without a STUN answer by then, it goes with what is known


class CallQueue:
    """``ask`` sends at once while our endpoints are fresh; else ``check`` is called and the message waits
    for the first STUN answer, the end of the check, or half a second."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        endpoints: OwnEndpoints,
        send: Callable[[PeerPath], None],
        check: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._endpoints = endpoints
        self._send = send
        self._check = check
        self._waiting: dict[PeerPath, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def ask(self, peer: PeerPath) -> None:
        """The peer should ping us."""
        if self._endpoints.fresh and self._endpoints.current:
            self._send(peer)
            return
        self._waiting[peer] = None
        if self._timer is None:
            self._timer = self._loop.call_later(CALL_WAIT_S, self.flush)
        self._check()

    def address_found(self) -> None:
        """STUN answered: a moment for the other family, then go."""
        if self._waiting:
            self._cancel()
            self._timer = self._loop.call_later(SETTLE_S, self.flush)

    def flush(self) -> None:
        """Send everything that waits, with the endpoints known now."""
        self._cancel()
        if not self._waiting:
            return
        self._endpoints.refresh()
        waiting, self._waiting = self._waiting, {}
        for peer in waiting:
            self._send(peer)

    def forget(self, peer: PeerPath) -> None:
        self._waiting.pop(peer, None)

    def close(self) -> None:
        self._cancel()
        self._waiting.clear()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
