"""Where the daemon's log goes, and how much of it is written."""

from __future__ import annotations

import logging
import logging.handlers
import socket
from collections.abc import Mapping

from meshd.base.environment import complaints, wanted_loggers
from meshd.base.errors import MeshdError
from meshd.base.log import KeyValueFormatter, RepeatFilter, get_logger, kv

SYSLOG = "/dev/log"

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
        handler = logging.StreamHandler()
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


def _syslog(address: str) -> logging.Handler:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:  # the handler itself would stay silent
            probe.connect(address)
        handler = logging.handlers.SysLogHandler(address, logging.handlers.SysLogHandler.LOG_DAEMON)
    except OSError as error:
        raise MeshdError(
            f"--syslog: cannot reach the system's log at {address}: {error.strerror}",
            code="host",
            hint="Leave out --syslog; the log then goes to standard error.",
        ) from None
    handler.ident = "meshd: "
    handler.append_nul = False
    return handler
