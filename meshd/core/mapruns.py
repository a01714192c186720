"""Map messages that came together and can be taken in together.

A server that has much to tell sends many messages of one change each. What a message costs beside its changes is then
most of the work, so runs of them become one message each, which says the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from msgspec.structs import replace

from meshd.wire.control import MapResponse

MAX_RUN = 64  # changes: a few milliseconds

_NOTHING: Final = MapResponse()


def in_runs(messages: Iterable[MapResponse]) -> list[MapResponse]:
    """The messages, those in a row that only patch peers, or only describe changed ones, as one.

    The changes stay in their order. Only what is of one kind is joined: the kinds have an order of their own within a
    message.
    """
    result: list[MapResponse] = []
    kind = ""
    run: tuple[Any, ...] = ()
    for message in messages:
        this = _only(message)
        changes: tuple[Any, ...] = getattr(message, this) if this else ()
        if this and this == kind and len(run) + len(changes) <= MAX_RUN:
            run += changes
            result[-1] = replace(_NOTHING, **{kind: run})
        else:
            kind, run = this, changes
            result.append(message)
    return result


def _only(message: MapResponse) -> str:
    """The field of changes that the message has, when it has nothing else; empty for every other message."""
    if patches := message.peers_changed_patch:
        return "peers_changed_patch" if message == replace(_NOTHING, peers_changed_patch=patches) else ""
    if peers := message.peers_changed:
        return "peers_changed" if message == replace(_NOTHING, peers_changed=peers) else ""
    return ""
