"""Log lines."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from meshd.base.keys import NodePrivate
from meshd.base.log import (
    EVENT_LINES,
    MAX_VALUE,
    REPEAT_WINDOW_S,
    REPEATS,
    KeyValueFormatter,
    RepeatFilter,
    get_logger,
    kv,
    log_to_stderr,
)


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


def test_log_value_of_any_length_is_cut_and_not_kept() -> None:
    """What a server sends must neither fill the disk nor stay in memory for the comparison with later lines."""
    huge = "x" * 10_000_000
    assert len(line(reason=huge)) < MAX_VALUE + 100
    assert line(reason=huge).endswith('... (10000000 characters)"')
    assert line(reason="x" * MAX_VALUE) == "event reason=" + "x" * MAX_VALUE
    filtered = RepeatFilter()
    passed(filtered, 0.0, reason=huge)
    assert sum(len(str(part)) for key in filtered._seen for part in key) < MAX_VALUE + 200


def test_log_private_key_shows_nothing() -> None:
    key = NodePrivate.generate()
    assert key.raw.hex() not in line(key=key)


def passed(filtered: RepeatFilter, at: float, event: str = "relay_down", **fields: object) -> str | None:
    """The line if it is written."""
    record = logging.makeLogRecord(
        {"name": "meshd.x", "msg": event, "created": at, "levelno": logging.INFO, **kv(**fields)}
    )
    return KeyValueFormatter(timestamps=False).format(record) if filtered.filter(record) else None


def test_log_equal_lines_are_few_and_then_rare() -> None:
    """DM-09: a node that is offline for a day writes some lines about each of its troubles."""
    filtered = RepeatFilter()
    day = [passed(filtered, second, derp=9) for second in range(0, 86400, 5)]
    written = [line for line in day if line]
    assert day[:REPEATS] == ["relay_down derp=9"] * REPEATS
    assert len(written) == REPEATS + 86400 // int(REPEAT_WINDOW_S) - 1
    assert written[REPEATS] == f"relay_down derp=9 left_out={int(REPEAT_WINDOW_S) // 5 - REPEATS}"
    assert written[-1] == f"relay_down derp=9 left_out={int(REPEAT_WINDOW_S) // 5 - 1}"


def test_log_different_lines_and_new_troubles_are_all_written() -> None:
    filtered = RepeatFilter()
    for _ in range(REPEATS + 5):
        passed(filtered, 1.0, derp=9)
    assert passed(filtered, 2.0, derp=9) is None
    assert passed(filtered, 2.0, derp=10) == "relay_down derp=10"
    assert passed(filtered, 2.0, event="relay_up", derp=9) == "relay_up derp=9"
    assert passed(filtered, 1.0 + 3 * REPEAT_WINDOW_S, derp=9) == "relay_down derp=9 left_out=6"


def test_log_clock_that_is_set_back_silences_nothing_for_long() -> None:
    filtered = RepeatFilter()
    for _ in range(REPEATS + 1):
        passed(filtered, 1e9, derp=9)
    assert passed(filtered, 5.0, derp=9) == "relay_down derp=9 left_out=1"


def test_log_filter_remembers_a_bounded_number_of_lines() -> None:
    filtered = RepeatFilter()
    for number in range(10_000):
        assert passed(filtered, 1.0, event=f"event{number}", number=number)
    assert len(filtered._seen) <= 256
    assert len(filtered._events) <= 256


def test_log_lines_of_one_kind_are_limited_however_they_differ() -> None:
    """DM-09: a server that makes up names must not fill the disk with them; other events are told all the same."""
    filtered = RepeatFilter()
    written = [passed(filtered, 1.0 + number / 100, reason=f"no host {number}") for number in range(50_000)]
    assert sum(line is not None for line in written) == EVENT_LINES
    assert passed(filtered, 502.0, event="relay_up", derp=9) == "relay_up derp=9"
    told = passed(filtered, 1.0 + REPEAT_WINDOW_S, reason="other")
    assert told == f"relay_down reason=other others_left_out={50_000 - EVENT_LINES}"


def test_log_details_that_somebody_asked_for_are_all_written() -> None:
    """A bug report records what paths do for as long as it takes."""
    filtered = RepeatFilter()
    for number in range(2 * EVENT_LINES):
        record = logging.LogRecord("meshd.x", logging.DEBUG, "", 0, "disco_sent", None, None)
        record.__dict__.update(kv(number=number))
        assert filtered.filter(record)


@pytest.mark.parametrize(("verbose", "lines"), [(False, REPEATS), (True, 1000)])
def test_log_of_the_servers_is_not_filled_by_one_hostile_client(
    verbose: bool, lines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand lines a second were written for as long as it went on."""
    root, stream = logging.getLogger(), io.StringIO()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    monkeypatch.setattr(logging.getLogger("meshd"), "level", logging.NOTSET)
    monkeypatch.setattr(sys, "stderr", stream)
    log_to_stderr(verbose=verbose)
    for _ in range(1000):
        get_logger("meshd.x").info("relay_protocol_error", extra=kv(addr="192.0.2.1"))
    assert len(stream.getvalue().splitlines()) == lines
