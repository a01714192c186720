"""Marking our own sockets, so that an exit node's route never sends them back into the tunnel."""

from __future__ import annotations

import socket

from meshd.base.addr import IPAddress

SOCKET_MARK = 0x80000
SO_MARK = 36  # Linux


def mark_socket(sock: socket.socket, peer: IPAddress | None = None) -> bool:
    """Set SO_MARK where the system has it and allows it; connections to this host stay unmarked.

    False when the socket is not marked, which is what happens without CAP_NET_ADMIN.
    """
    if peer is not None and peer.is_loopback:
        return False
    try:
        sock.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_MARK", SO_MARK), SOCKET_MARK)
    except OSError:
        return False
    return True
