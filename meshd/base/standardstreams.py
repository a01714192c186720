"""Standard input, output and error of our programs, in whatever state they were handed over."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Mapping

_FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO))


def open_standard_streams() -> None:
    """Open /dev/null in the place of those that are closed, and let standard output take any text.

    First of all: the descriptors 0 to 2 would else become sockets or polls, which whatever writes to standard error
    would write to, and which libuv refuses to close.
    """
    _fill_gaps()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # By lines: what a program says over time is read over time, also from a pipe or a file.
        sys.stdout.reconfigure(errors="backslashreplace", line_buffering=True)


def writes_unicode(stream: object) -> bool:
    """Whether every character can be written to a stream."""
    return (getattr(stream, "encoding", None) or "").lower().startswith("utf")


def _fill_gaps() -> None:
    try:
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(descriptor, True)
    except OSError:
        return  # a host without /dev/null has other troubles
    os.close(descriptor)
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 - for as long as the program runs


def say(text: str) -> int:
    """Write to standard output; the exit status: 0, or 1 when nobody takes it, which is told unless he left."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        return unwritten(error)
    return 0


def unwritten(error: OSError, by: str = "") -> int:
    """Standard output cannot be written: the exit status, 1. Told, after ``by``, unless the reader left."""
    # Keeps the interpreter from trying again, and complaining, when it ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if not isinstance(error, BrokenPipeError):
        sys.stderr.write(f"{by}cannot write the output: {error.strerror}\n")
    return 1


def goes_to_journal(environment: Mapping[str, str]) -> bool:
    """Whether standard output is systemd's journal (systemd.exec(5)): many may read that, and it is kept for long."""
    try:
        status = os.fstat(1)
    except OSError:
        return False
    return environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def is_output_error(error: OSError) -> bool:
    """Whether it is most likely standard output that could not be written: no file is named, and it is full."""
    return error.filename is None and error.errno in _FULL
