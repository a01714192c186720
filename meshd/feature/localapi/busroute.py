"""The route that streams what happens: one JSON object a line, for as long as the client listens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack

from meshd.base.version import long_version
from meshd.feature.localapi.backendapi import JSON
from meshd.feature.localapi.jsontext import compact, compact_in_turns
from meshd.feature.localapi.route import Access, Call, Route
from meshd.feature.localapi.waiting import one_waiter
from meshd.io.http.h1server import HttpError, Response

_IN_PROCESS_ONLY = 1 << 16
"""Mask bit that exempts a watcher from being dropped when slow; never for a client behind a socket."""

_RATE_LIMIT = 1 << 8
_DELTA_BITS = {1 << 12: "PeerChanges", 1 << 13: "NoNetMap", 1 << 14: "InitialStatus", 1 << 15: "PeerPatches"}

_ALWAYS_PRESENT: JSON = {
    "ErrMessage": None,
    "LoginFinished": None,
    "State": None,
    "Prefs": None,
    "NetMap": None,
    "Engine": None,
    "BrowseToURL": None,
    "DriveShares": None,
}
"""Members that clients expect in every notify, null when they have nothing to say."""


_LARGE = 1 << 3 | 1 << 12 | 1 << 14 | 1 << 15
"""Mask bits that bring every peer: whoever does not read them holds megabytes in a large network."""


async def _watch(call: Call) -> Response:
    mask = _parse_mask(await call.request.value("mask"))
    with ExitStack() as held:
        if mask & _LARGE:
            held.enter_context(one_waiter(call.request.peer, call.may))
        lines = _Lines(call.backend.watch(mask), held.pop_all(), large=bool(mask & _LARGE))
    return Response(200, [("Content-Type", "application/json")], lines)


class _Lines:
    """The notifies as lines of JSON. A class, not a generator: closing one that never ran must unsubscribe too."""

    def __init__(self, notifies: AsyncIterator[JSON], held: ExitStack, *, large: bool) -> None:
        self._notifies = notifies
        self._large = large
        self._rest: list[bytes] = []  # of the line that is being sent, in reverse
        self._held = held

    def __aiter__(self) -> _Lines:
        return self

    async def __anext__(self) -> bytes:
        if self._rest:
            return self._rest.pop()
        notify = await anext(self._notifies)
        line = {"Version": long_version(), **_ALWAYS_PRESENT, **notify}
        if not self._large:
            return compact(line)
        self._rest = (await compact_in_turns(line))[::-1]
        return self._rest.pop()

    async def aclose(self) -> None:
        self._held.close()
        close = getattr(self._notifies, "aclose", None)
        if close is not None:
            await close()


def _parse_mask(text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and int(text) < 1 << 64):
        raise HttpError(400, "bad mask")
    mask = int(text)
    if mask & _IN_PROCESS_ONLY:
        raise HttpError(400, f"mask bit {_IN_PROCESS_ONLY} is not available to clients of the socket")
    clash = [name for bit, name in _DELTA_BITS.items() if mask & bit]
    if mask & _RATE_LIMIT and clash:
        raise HttpError(400, f"mask bit RateLimit does not go with {', '.join(clash)}")
    return mask


ROUTES = [Route("watch-ipn-bus", _watch, Access.READ, "watch ipn bus access denied")]
