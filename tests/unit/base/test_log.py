"""Log lines."""

from __future__ import annotations

import logging

import pytest

from meshd.base.keys import NodePrivate
from meshd.base.log import KeyValueFormatter, kv


def line(**fields: object) -> str:
    record = logging.makeLogRecord({"msg": "event", "levelno": logging.INFO, **kv(**fields)})
    return KeyValueFormatter(timestamps=False).format(record)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (12, "12"),
        ("plain", "plain"),
        ("", '""'),
        ("two words", '"two words"'),
        ('say "no"', r'"say \"no\""'),
        ("C:\\ x", r'"C:\\ x"'),
        ("a=b", '"a=b"'),
        ("Jürgen", "Jürgen"),
    ],
)
def test_log_value_quoted_where_needed(value: object, shown: str) -> None:
    assert line(field=value) == f"event field={shown}"


@pytest.mark.parametrize("text", ["\n", "\r", "\x1b[2J", "\0", "\x7f", "\x9b1m", "\u202e", "\u2028", "a\nevent b=c"])
def test_log_value_with_control_characters_stays_on_its_line(text: str) -> None:
    """A host name or a relay's complaint must not drive the terminal that the log is read on, nor forge a line."""
    shown = line(field=text)
    assert shown.isprintable()
    assert shown.isascii()
    assert shown.startswith('event field="')


def test_log_private_key_shows_nothing() -> None:
    key = NodePrivate.generate()
    assert key.raw.hex() not in line(key=key)
