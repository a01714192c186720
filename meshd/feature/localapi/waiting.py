"""How many costly answers one unprivileged user may wait for at once: pings, network checks, streams of all peers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from meshd.feature.localapi.permission import Permissions
from meshd.io.http.h1server import HttpError
from meshd.io.peercred import PeerIdentity

MAX_WAITERS = 32
"""More than a person, or a script that watches every peer of a small network, has under way."""

_waiting: dict[int, int] = {}


@contextmanager
def one_waiter(peer: PeerIdentity | None, may: Permissions) -> Iterator[None]:
    """Count a caller for as long as the block runs. Those who may change settings anyway are not counted.

    Raises:
        HttpError: 429 when that user has too many under way.
    """
    if may.write or peer is None:
        yield
        return
    uid = peer.uid
    if _waiting.get(uid, 0) >= MAX_WAITERS:
        raise HttpError(429, f"user {uid} already waits for {MAX_WAITERS} answers; try again when one has come")
    _waiting[uid] = _waiting.get(uid, 0) + 1
    try:
        yield
    finally:
        _waiting[uid] -= 1
        if not _waiting[uid]:
            del _waiting[uid]
