"""Logging as events with fields.

``log.info("handshake_completed", extra=kv(peer=key, took_ms=12))`` prints
``handshake_completed peer=[B6N8v] took_ms=12``. Values print through ``str``, so keys show their
fingerprint and private keys show nothing.
"""

from __future__ import annotations

import logging

_FIELDS = "kv_fields"


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


def _value(value: object) -> str:
    text = str(value)
    if text and text.isprintable() and not any(c in ' "=' for c in text):
        return text
    return '"' + "".join(c if c.isprintable() and c not in '"\\' else _escaped(c) for c in text) + '"'


def _escaped(character: str) -> str:
    """Text from the network must not drive a terminal, nor begin a line of its own in a log."""
    return f"\\{character}" if character in '"\\' else character.encode("unicode_escape").decode("ascii")
