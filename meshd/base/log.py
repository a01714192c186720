"""Logging as events with fields.

``log.info("handshake_completed", extra=kv(peer=key, took_ms=12))`` prints
``handshake_completed peer=[B6N8v] took_ms=12``. Values print through ``str``, so keys show their
fingerprint and private keys show nothing.
"""

from __future__ import annotations

import logging
import sys

_FIELDS = "kv_fields"
REPEATS = 20
"""Equal lines that are written one after the other..."""
REPEAT_WINDOW_S = 600.0
"""...within this time; after that one in this time."""
EVENT_LINES = 1000
"""Lines about one kind of event within that time, however much they differ: a server may think up any number."""
_SOURCES = 256
MAX_VALUE = 8000
"""Characters of a value that are written: texts of other hosts may be of any length, and a disk is not."""


def get_logger(name: str) -> logging.Logger:
    """The logger of a module, below ``meshd``."""
    return logging.getLogger(name if name.startswith("meshd") else f"meshd.{name}")


def kv(**fields: object) -> dict[str, dict[str, object]]:
    """Fields for the ``extra`` argument of a log call."""
    return {_FIELDS: fields}


class KeyValueFormatter(logging.Formatter):
    """One line per event; ``timestamps`` off where the service manager adds its own."""

    def __init__(self, *, timestamps: bool = True) -> None:
        super().__init__("%(asctime)s %(message)s" if timestamps else "%(message)s", "%Y-%m-%dT%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:
        line = super().formatMessage(record)
        if record.levelno >= logging.WARNING:
            line = f"{record.levelname.lower()}: {line}" if "%(asctime)" not in (self._fmt or "") else line
        fields = getattr(record, _FIELDS, None)
        if not fields:
            return line
        return line + "".join(f" {name}={_value(value)}" for name, value in fields.items())


def log_to_stderr(*, verbose: bool) -> None:
    """All of our events and the warnings of others; with ``verbose`` each of them, and what is for debugging, too."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(KeyValueFormatter())
    if not verbose:
        handler.addFilter(RepeatFilter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("meshd").setLevel(logging.DEBUG if verbose else logging.INFO)


class RepeatFilter(logging.Filter):
    """Lets through a few equal lines, then one now and then with the number of those left out (DM-09).

    A node may be offline for months; what it tries again and again must not fill the disk. Nor must lines that differ
    only by what somebody else sends; but for debugging, whoever wants details wants all of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[object, ...], _Run] = {}
        self._events: dict[tuple[object, ...], _Run] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        return self._is_news(record) and (record.levelno < logging.INFO or self._is_one_of_few(record))

    def _is_one_of_few(self, record: logging.LogRecord) -> bool:
        key = (record.name, record.msg)
        run = self._events.get(key)
        if run is None or not 0 <= record.created - run.since < REPEAT_WINDOW_S:
            dropped = run.dropped if run is not None else 0
            self._events.pop(key, None)
            run = self._events[key] = _Run(record.created, EVENT_LINES)
            if len(self._events) > _SOURCES:
                del self._events[next(iter(self._events))]
            if dropped:
                fields: dict[str, object] = getattr(record, _FIELDS, None) or {}
                setattr(record, _FIELDS, {**fields, "others_left_out": dropped})
        if run.left:
            run.left -= 1
            return True
        run.dropped += 1
        return False

    def _is_news(self, record: logging.LogRecord) -> bool:
        fields: dict[str, object] = getattr(record, _FIELDS, None) or {}
        key = (record.name, record.msg, *map(_text, fields.values()))
        run = self._seen.get(key)
        if run is None or not 0 <= record.created - run.since < REPEAT_WINDOW_S:
            dropped = run.dropped if run is not None else 0
            self._seen.pop(key, None)
            self._seen[key] = _Run(record.created, 0 if dropped else REPEATS - 1)
            if len(self._seen) > _SOURCES:
                del self._seen[next(iter(self._seen))]
            if dropped:
                setattr(record, _FIELDS, {**fields, "left_out": dropped})
            return True
        if run.left:
            run.left -= 1
            return True
        run.dropped += 1
        return False


class _Run:
    """Equal lines since a time."""

    __slots__ = ("dropped", "left", "since")

    def __init__(self, since: float, left: int) -> None:
        self.since, self.left, self.dropped = since, left, 0


def _text(value: object) -> str:
    text = str(value)
    return text if len(text) <= MAX_VALUE else f"{text[:MAX_VALUE]}... ({len(text)} characters)"


def _value(value: object) -> str:
    text = _text(value)
    if text and text.isprintable() and not any(c in ' "=' for c in text):
        return text
    return '"' + "".join(c if c.isprintable() and c not in '"\\' else _escaped(c) for c in text) + '"'


def _escaped(character: str) -> str:
    """Text from the network must not drive a terminal, nor begin a line of its own in a log."""
    return f"\\{character}" if character in '"\\' else character.encode("unicode_escape").decode("ascii")
