"""The signals by which a server is told to end."""

from __future__ import annotations

import asyncio
import signal


def stop_wanted() -> asyncio.Event:
    """Set by SIGTERM and SIGINT from now on; SIGHUP ends nothing any more. Inside a running loop."""
    stop = asyncio.Event()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop
