"""The signals by which a server is told to end, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from typing import NoReturn


def stop_wanted() -> asyncio.Event:
    """Set by SIGTERM and SIGINT from now on; SIGHUP ends nothing any more. Inside a running loop."""
    stop = asyncio.Event()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def leave(status: int) -> NoReturn:
    """End the process at once; everything of ours is closed.

    The C library's lookups of names cannot be broken off, and where no name server answers, an ordinary end would wait
    a minute for them.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
