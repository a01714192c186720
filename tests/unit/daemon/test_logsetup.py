"""Where the log goes."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshd.base.errors import MeshdError
from meshd.base.log import get_logger, kv
from meshd.daemon.logsetup import set_up_log

LOGGERS = ("meshd", "meshd.node.control", "meshd.node.netprobe")


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    saved = {name: (logging.getLogger(name).level, list(logging.getLogger(name).handlers)) for name in LOGGERS}
    yield
    for name, (level, handlers) in saved.items():
        logger = logging.getLogger(name)
        for handler in logger.handlers:
            if handler not in handlers:
                handler.close()
        logger.setLevel(level)
        logger.handlers = handlers


class Output:
    """What was written to standard error so far."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._text = ""

    def getvalue(self) -> str:
        self._text += self._capsys.readouterr().err
        return self._text


@pytest.fixture
def output(capsys: pytest.CaptureFixture[str]) -> Output:
    return Output(capsys)


def test_log_goes_to_standard_error_without_times_below_systemd(output: Output) -> None:
    """DM-09."""
    set_up_log(0, {"JOURNAL_STREAM": "8:1"})
    get_logger("meshd.x").info("event", extra=kv(a=1))
    assert output.getvalue() == "event a=1\n"


def test_log_times_can_be_had_below_systemd_too(output: Output) -> None:
    """TS_DEBUG_LOG_TIME."""
    set_up_log(0, {"JOURNAL_STREAM": "8:1", "TS_DEBUG_LOG_TIME": "1"})
    get_logger("meshd.x").info("event")
    assert output.getvalue()[4:5] == "-"
    assert output.getvalue().endswith(" event\n")


def test_log_repeats_are_few_unless_all_are_wanted(output: Output) -> None:
    """DM-09, TS_DEBUG_LOG_RATE=all."""
    set_up_log(0, {})
    for _ in range(100):
        get_logger("meshd.x").info("again")
    few = output.getvalue().count("again")
    assert 0 < few < 100
    logging.getLogger("meshd").handlers.pop().close()
    set_up_log(0, {"TS_DEBUG_LOG_RATE": "all"})
    for _ in range(100):
        get_logger("meshd.x").info("again")
    assert output.getvalue().count("again") == few + 100


def test_log_of_one_part_is_raised_by_its_variable(output: Output) -> None:
    """TS_DEBUG_NETCHECK."""
    set_up_log(0, {"TS_DEBUG_NETCHECK": "1"})
    get_logger("meshd.node.netprobe").debug("netcheck_finished")
    get_logger("meshd.node.control").debug("map_message")
    assert "netcheck_finished" in output.getvalue()
    assert "map_message" not in output.getvalue()


def test_log_goes_to_the_systems_log_when_asked(tmp_path: Path, output: Output) -> None:
    """flag:--syslog: as facility daemon, under the name meshd."""
    path = str(tmp_path / "log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as system:
        system.bind(path)
        set_up_log(0, {}, syslog=True, syslog_socket=path)
        get_logger("meshd.x").warning("event", extra=kv(a="b"))
        assert system.recv(1000) == b"<28>meshd: warning: event a=b"
    assert output.getvalue() == ""


def test_log_into_a_pipe_that_nobody_reads_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """DM-09: what collects logs may stop when its disk is full, which must not end the network of the host."""
    reading, writing = os.pipe()
    log = get_logger("meshd.x")

    def write() -> None:
        for number in range(5000):
            log.info("event", extra=kv(number=number))

    with open(writing, "w", buffering=1) as stream, open(reading, "rb", buffering=0) as reader:
        monkeypatch.setattr(sys, "stderr", stream)
        set_up_log(0, {"JOURNAL_STREAM": "1:1", "TS_DEBUG_LOG_RATE": "all"})
        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        writer.join(20)
        assert not writer.is_alive()
        before = reader.read(1 << 20)
        log.info("again")
        told = reader.read(1 << 20).decode().splitlines()
        assert before.startswith(b"event number=0\n")
        assert told[-1] == "again"
        lost = 5000 - before.count(b"\n")
        assert told[-2] == f'warning: log_lines_lost count={lost} reason="nobody read the log"'


@pytest.mark.parametrize("text", ["x" * 7000, "\u00e9" * 3500], ids=["ascii", "other"])
def test_log_of_a_line_longer_than_the_room_that_is_left_holds_up_nothing(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """DM-09: a pipe that has room for some bytes does not have it for those of any line."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 1 << 16)
    log = get_logger("meshd.x")

    def write() -> None:
        log.info("begin")
        for _ in range(20):
            log.info("event", extra=kv(one=text, other=text))

    with open(writing, "w", buffering=1, encoding="utf-8") as stream, open(reading, "rb", buffering=0) as reader:
        monkeypatch.setattr(sys, "stderr", stream)
        set_up_log(0, {"JOURNAL_STREAM": "1:1", "TS_DEBUG_LOG_RATE": "all"})
        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        writer.join(20)
        stuck = writer.is_alive()
        before = reader.read(1 << 20)
        assert not stuck
        log.info("again")
        *_, lost, last = (before + reader.read(1 << 20)).decode().splitlines()
        whole = before.count(f"other={text}\n".encode())
        assert 0 < whole < 9
        assert lost == f'warning: log_lines_lost count={20 - whole} reason="nobody read the log"'
        assert last == "again"


def test_log_of_the_system_that_nobody_reads_holds_up_nothing(output: Output, tmp_path: Path) -> None:
    """flag:--syslog: its socket takes a few lines; after that each write waited, and with it the whole daemon."""
    path = str(tmp_path / "log")
    log = get_logger("meshd.x")

    def write() -> None:
        for number in range(1000):
            log.info("event", extra=kv(number=number))

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as system:
        system.bind(path)
        set_up_log(0, {}, syslog=True, syslog_socket=path)
        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        writer.join(20)
        assert not writer.is_alive()
        assert system.recv(1000) == b"<30>meshd: event number=0"
    os.unlink(path)
    log.info("nobody")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as system:
        system.bind(path)
        log.info("again")
        assert system.recv(1000) == b"<30>meshd: again"
    assert output.getvalue() == ""


def test_log_without_a_systems_log_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(MeshdError, match="--syslog: cannot reach the system's log at .*: No such file"):
        set_up_log(0, {}, syslog=True, syslog_socket=str(tmp_path / "none"))
