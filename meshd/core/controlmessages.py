"""What the coordination server says about this node's health, kept over the messages of a map stream.

There are two forms: named messages, of which each map message brings changes, and the older list of texts, which
replaces the one before. Named ones win.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import msgspec

from meshd.wire.control import DisplayMessage

MAX_MESSAGES = 64
MAX_TITLE, MAX_TEXT, MAX_ID = 200, 2000, 128  # characters; what is longer is cut
CLEAR_ALL = "*"


class ControlMessages:
    """The messages of one stream."""

    def __init__(self) -> None:
        self._named: dict[str, DisplayMessage] = {}
        self._texts: tuple[str, ...] = ()

    def apply(self, texts: tuple[str, ...] | None, named: Mapping[str, DisplayMessage | None]) -> None:
        """Take in one map message; ``texts`` None and a name that is absent leave things as they were."""
        if texts is not None:
            self._texts = texts[:MAX_MESSAGES]
        if named.get(CLEAR_ALL, self) is None:
            self._named.clear()
        for name, message in named.items():
            if name == CLEAR_ALL:
                continue
            short = name[:MAX_ID]
            if message is None:
                self._named.pop(short, None)
            elif short in self._named or len(self._named) < MAX_MESSAGES:
                self._named[short] = _bounded(message)

    def current(self) -> dict[str, DisplayMessage]:
        """All messages, by id."""
        return dict(self._named) if self._named else dict(_from_texts(self._texts))


def _from_texts(texts: Iterable[str]) -> Iterable[tuple[str, DisplayMessage]]:
    for text in texts:
        name = "health-" + hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
        yield (
            name,
            DisplayMessage(
                title="Coordination server reports an issue",
                text=f"The coordination server is reporting a health issue: {text[:MAX_TEXT]}",
                severity="medium",
            ),
        )


def _bounded(message: DisplayMessage) -> DisplayMessage:
    """Cut to size; a link that is no web page is not offered."""
    action = message.primary_action
    if action is not None:
        is_page = action.url.startswith(("https://", "http://")) and action.url.isprintable()
        action = msgspec.structs.replace(action, label=action.label[:MAX_TITLE]) if is_page else None
    return msgspec.structs.replace(
        message, title=message.title[:MAX_TITLE], text=message.text[:MAX_TEXT], primary_action=action
    )
