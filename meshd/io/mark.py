"""Keeping our own sockets out of the tunnel: an exit node's route must never send them back into it."""

from __future__ import annotations

import functools
import os
import socket
from pathlib import Path

from meshd.base.addr import IPAddress
from meshd.base.switch import switch

SOCKET_MARK = 0x80000
SO_MARK = 36  # Linux
SO_BINDTODEVICE = 25  # Linux
NOWHERE = "lo"
"""The interface of sockets while the host has no default route: nothing leaves, and nothing loops."""

_ROUTES = Path("/proc/net/route")
_UP = 0x1


def mark_socket(sock: socket.socket, peer: IPAddress | None = None) -> bool:
    """Set SO_MARK where the system has it and allows it; connections to this host stay as they are.

    False when the socket is not marked, which is what happens without CAP_NET_ADMIN, and where the administrator
    wants sockets to be bound to the interface of the default route instead.
    """
    if peer is not None and peer.is_loopback:
        return False
    try:
        device = bound_device()
        if device:
            sock.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_BINDTODEVICE", SO_BINDTODEVICE), device.encode())
            return False
        sock.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_MARK", SO_MARK), SOCKET_MARK)
    except OSError:
        return False
    return True


def bound_device() -> str:
    """The interface that sockets are bound to now; ``""`` where they are marked instead."""
    return (default_device() or NOWHERE) if _binds() else ""


@functools.cache
def _binds() -> bool:
    return switch(os.environ, "TS_FORCE_LINUX_BIND_TO_DEVICE")


def default_device(routes: Path = _ROUTES) -> str:
    """The interface of the IPv4 default route with the lowest metric; ``""`` when there is none."""
    try:
        lines = routes.read_text().splitlines()[1:]
    except OSError:
        return ""
    found = []
    for line in lines:
        fields = line.split()
        if len(fields) < 8 or (fields[1], fields[7]) != ("00000000", "00000000"):
            continue
        try:
            if int(fields[3], 16) & _UP:
                found.append((int(fields[6]), fields[0]))
        except ValueError:
            continue
    return min(found)[1] if found else ""
