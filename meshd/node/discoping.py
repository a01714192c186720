"""Disco pings for a user."""

from __future__ import annotations

import asyncio
from itertools import count

import msgspec

from meshd.base.addr import AddrPort
from meshd.base.clock import Clock
from meshd.base.errors import MeshdError
from meshd.core.path import MAX_PING_BYTES, PING_TIMEOUT_S
from meshd.node.pathtypes import PingOutcome
from meshd.node.peerpaths import PeerPath, PeerPaths

RESEND_S = (0.25, 0.5, 1.0, 1.5)  # seconds from one try of a ping to the next
HOLD_S = 0.25
HOLD_AGAIN_S = 10.0  # how often an answer by relay may wait for a direct one


class _Attempt(msgspec.Struct):
    peer: PeerPath
    size: int
    future: asyncio.Future[PingOutcome]
    hold: bool
    held: PingOutcome | None = None


class DiscoPings:
    """Pings under way. The first ping of a peer usually makes the path direct, a moment after its answer came
    by relay: that answer is held back for a quarter of a second, so that the user sees what holds from now on.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock, paths: PeerPaths) -> None:
        self._loop = loop
        self._clock = clock
        self._paths = paths
        self._tokens = count(1)
        self._attempts: dict[int, _Attempt] = {}

    async def ping(self, peer: PeerPath, size: int) -> PingOutcome | None:
        """Ping with a UDP payload of ``size`` bytes (0: smallest); None when there is no answer within 5 s.

        MeshdError when the peer cannot be pinged at all.
        """
        if size > MAX_PING_BYTES:
            raise MeshdError(f"a ping has at most {MAX_PING_BYTES} bytes", code="invalid")
        if peer.path.disco_key.is_zero:
            raise MeshdError("the peer does not speak the path discovery protocol", code="unsupported")
        token, now = next(self._tokens), self._clock.monotonic()
        hold = not peer.path.trusted(now) and now - peer.ping_held_at >= HOLD_AGAIN_S
        attempt = self._attempts[token] = _Attempt(peer, size, self._loop.create_future(), hold)
        try:
            async with asyncio.timeout(PING_TIMEOUT_S):
                for patience in (*RESEND_S, PING_TIMEOUT_S):
                    # Again when nothing came: the peer's addresses or our relay may have appeared meanwhile.
                    self._send(token, attempt)
                    await asyncio.wait((attempt.future,), timeout=patience)
                    if attempt.future.done():
                        return attempt.future.result()
        except TimeoutError:
            return attempt.held
        finally:
            del self._attempts[token]
        return None

    def answered(self, token: int, outcome: PingOutcome) -> None:
        """A pong for one of the pings."""
        attempt = self._attempts.get(token)
        if attempt is None or attempt.future.done():
            return
        if attempt.hold and outcome.address is None:
            if attempt.held is None:
                attempt.held = outcome
                attempt.peer.ping_held_at = self._clock.monotonic()
                self._loop.call_later(HOLD_S, self._release, attempt)
            return
        attempt.future.set_result(outcome)

    def became_direct(self, peer: PeerPath, address: AddrPort) -> None:
        """The path of a peer is direct now: what was held can be answered better."""
        for token, attempt in list(self._attempts.items()):
            if attempt.peer is peer and attempt.held is not None:
                self._loop.call_soon(self._send_again, token, attempt)

    def close(self) -> None:
        """End all pings with an error."""
        for attempt in self._attempts.values():
            if not attempt.future.done():
                attempt.future.set_exception(MeshdError("meshd is stopping", code="unavailable"))

    def _release(self, attempt: _Attempt) -> None:
        if attempt.held is not None and not attempt.future.done():
            attempt.future.set_result(attempt.held)

    def _send_again(self, token: int, attempt: _Attempt) -> None:
        if token in self._attempts and not attempt.future.done():
            self._send(token, attempt)

    def _send(self, token: int, attempt: _Attempt) -> None:
        attempt.peer.path.command_ping(token, attempt.size, self._clock.monotonic())
        self._paths.turn(attempt.peer)
