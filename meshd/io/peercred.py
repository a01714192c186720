"""Who is at the other end of a Unix-domain socket, as the kernel says."""

from __future__ import annotations

import os
import socket
import struct
import sys
from typing import NamedTuple

_LINUX_UCRED = struct.Struct("=iII")
"""struct ucred of Linux: pid, uid, gid (unix(7), SO_PEERCRED)."""

_BSD_XUCRED = struct.Struct("@IIh2x16I")
"""The head of struct xucred of FreeBSD and Darwin: version, uid, number of groups, groups (unix(4))."""

_BSD_LOCAL_PEERCRED = 1

SUPPORTED = sys.platform == "linux" or sys.platform == "darwin" or sys.platform.startswith("freebsd")
"""Whether this system tells the identity of a Unix socket's peer at all."""


class PeerIdentity(NamedTuple):
    """User of the process that called connect(); `pid` is None where the system does not tell."""

    uid: int
    gid: int
    pid: int | None


def peer_identity(fd: int) -> PeerIdentity | None:
    """Identity behind a connected Unix socket; None when the system cannot tell.

    The answer is that of the moment of connect() and never changes for a connection.
    """
    if not SUPPORTED:
        return None
    try:
        with socket.socket(fileno=os.dup(fd)) as probe:
            if probe.family != socket.AF_UNIX:
                return None
            return _ask_linux(probe) if sys.platform == "linux" else _ask_bsd(probe)
    except OSError:
        return None


def _ask_linux(probe: socket.socket) -> PeerIdentity | None:
    pid, uid, gid = _LINUX_UCRED.unpack(
        probe.getsockopt(socket.SOL_SOCKET, getattr(socket, "SO_PEERCRED", 17), _LINUX_UCRED.size)
    )
    if pid == 0 and uid == 0xFFFFFFFF:
        return None
    return PeerIdentity(uid, gid, pid or None)


def _ask_bsd(probe: socket.socket) -> PeerIdentity | None:
    data = probe.getsockopt(0, _BSD_LOCAL_PEERCRED, 256)
    if len(data) < _BSD_XUCRED.size:
        return None
    version, uid, count, *groups = _BSD_XUCRED.unpack_from(data)
    return PeerIdentity(uid, groups[0], None) if version == 0 and count > 0 else None
