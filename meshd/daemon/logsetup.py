"""Where the daemon's log goes, and how much of it is written."""

from __future__ import annotations

import contextlib
import logging
import select
import socket
from collections.abc import Mapping
from typing import TextIO

from meshd.base.environment import complaints, wanted_loggers
from meshd.base.errors import MeshdError
from meshd.base.log import KeyValueFormatter, RepeatFilter, get_logger, kv

SYSLOG = "/dev/log"
_PATIENCE_MS = 100
_ESCAPED = 16  # bytes at most of one character
_LINES_LOST = {"msg": "log_lines_lost", "name": __name__, "levelno": logging.WARNING, "levelname": "WARNING"}
_FACILITY_DAEMON = 3 << 3
_SEVERITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (0, 7))

log = get_logger(__name__)


def set_up_log(
    verbose: int, environment: Mapping[str, str], *, syslog: bool = False, syslog_socket: str = SYSLOG
) -> None:
    """One line per event on standard error, without times where the service manager adds them, or to the system's log.

    Raises MeshdError "host" when there is no system's log.
    """
    handler: logging.Handler
    if syslog:
        handler = _syslog(syslog_socket)
        timestamps = False
    else:
        handler = _StandardError()
        timestamps = "JOURNAL_STREAM" not in environment or bool(environment.get("TS_DEBUG_LOG_TIME"))
    handler.setFormatter(KeyValueFormatter(timestamps=timestamps))
    if verbose <= 0 and environment.get("TS_DEBUG_LOG_RATE") != "all":
        handler.addFilter(RepeatFilter())
    root = logging.getLogger("meshd")
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if verbose > 0 else logging.INFO)
    for name in wanted_loggers(environment):
        logging.getLogger(name).setLevel(logging.DEBUG)


def report_environment(environment: Mapping[str, str]) -> None:
    """Name the variables that will have no effect although somebody set them, those of one reason together."""
    by_reason: dict[str, list[str]] = {}
    for name, why in complaints(environment):
        by_reason.setdefault(why, []).append(name)
    for why, names in by_reason.items():
        log.warning("environment_without_effect", extra=kv(variables=" ".join(names), reason=why))


class _StandardError(logging.StreamHandler[TextIO]):
    """Standard error may be a pipe, and who reads it may stop: that holds up the daemon once and briefly. What is
    lost after that is counted."""

    def __init__(self) -> None:
        super().__init__()
        self._stuck = False
        self._lost = 0
        self._cut = False  # the last line, before its end

    def emit(self, record: logging.LogRecord) -> None:
        if self._lost and self._has_room():
            lost, self._lost = self._lost, 0
            self._write(logging.makeLogRecord(_LINES_LOST | kv(count=lost, reason="nobody read the log")))
        self._write(record)

    def _write(self, record: logging.LogRecord) -> None:
        """In pieces that are sure to fit where there is room: a pipe with some takes no long line as a whole."""
        try:
            text = f"{self.terminator if self._cut else ''}{self.format(record)}{self.terminator}"
            size = select.PIPE_BUF if text.isascii() else select.PIPE_BUF // _ESCAPED
            for start in range(0, len(text), size):
                if not self._has_room():
                    self._lost += 1
                    return
                self.stream.write(text[start : start + size])
                self.flush()
                self._cut = start + size < len(text)
        except Exception:  # noqa: BLE001 - as all handlers do
            self.handleError(record)

    def _has_room(self) -> bool:
        poll = select.poll()
        try:
            poll.register(self.stream.fileno(), select.POLLOUT)
        except (OSError, ValueError):  # it is no file, or closed
            return True
        self._stuck = not poll.poll(0 if self._stuck else _PATIENCE_MS)
        return not self._stuck


class _SystemLog(logging.Handler):
    """syslog(3) that waits for nobody: while the system's log is not read its lines are lost, and nothing else is."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self._address = address
        self._socket = _connected(address)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            severity = next(number for level, number in _SEVERITIES if record.levelno >= level)
            line = f"<{_FACILITY_DAEMON | severity}>meshd: {self.format(record)}".encode("utf-8", "replace")
        except Exception:  # noqa: BLE001 - as all handlers do
            self.handleError(record)
            return
        try:
            self._socket.send(line, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:  # whoever reads it began anew
            self._socket.close()
            with contextlib.suppress(OSError):
                self._socket = _connected(self._address)
                self._socket.send(line, socket.MSG_DONTWAIT)

    def close(self) -> None:
        self._socket.close()
        super().close()


def _connected(address: str) -> socket.socket:
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        channel.connect(address)
    except OSError:
        channel.close()
        raise
    return channel


def _syslog(address: str) -> logging.Handler:
    try:
        return _SystemLog(address)
    except OSError as error:
        raise MeshdError(
            f"--syslog: cannot reach the system's log at {address}: {error.strerror}",
            code="host",
            hint="Leave out --syslog; the log then goes to standard error.",
        ) from None
