"""Telling people at a terminal that something takes a while."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE_S = 1.0
"""How long a command may be silent."""

_CLEAR_LINE = "\r\x1b[K"


def at_terminal() -> bool:
    """Whether a person reads stderr."""
    return sys.stderr is not None and sys.stderr.isatty()


@contextmanager
def progress(text: str) -> Iterator[None]:
    """Show `text` on stderr while the body runs longer than a second, and take it away at the end.

    Nothing is ever written when stderr is not a terminal.
    """
    if not at_terminal():
        yield
        return
    from threading import Event, Thread

    done = Event()

    def show() -> None:
        seconds = 0
        while not done.wait(PATIENCE_S):
            seconds += 1
            sys.stderr.write(f"{_CLEAR_LINE}{text} ({seconds} s)")
            sys.stderr.flush()

    thread = Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        sys.stderr.write(_CLEAR_LINE)
        sys.stderr.flush()
