"""Cutting every TCP connection of this process, to see what happens then."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

_DESCRIPTORS = Path("/proc/self/fd")


def break_connections() -> int:
    """Shut down every connected TCP socket in both directions; how many there were. Raises OSError without procfs."""
    broken = 0
    for name in os.listdir(_DESCRIPTORS):
        with contextlib.suppress(OSError), _duplicate(int(name)) as sock:
            if sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type == socket.SOCK_STREAM:
                sock.getpeername()
                sock.shutdown(socket.SHUT_RDWR)
                broken += 1
    return broken


def _duplicate(descriptor: int) -> socket.socket:
    copy = os.dup(descriptor)
    try:
        return socket.socket(fileno=copy)
    except OSError:  # it is no socket
        os.close(copy)
        raise
