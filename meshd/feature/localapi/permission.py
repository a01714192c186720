"""What a local user may do, decided by the uid that the kernel names (and by nothing a client says)."""

from __future__ import annotations

import os
from dataclasses import dataclass

from meshd.feature.localapi.backendapi import LocalBackend
from meshd.io import peercred
from meshd.io.peercred import PeerIdentity


@dataclass(frozen=True, slots=True)
class Permissions:
    """`read`: see status and preferences. `write`: change them, and see what could be sensitive."""

    read: bool
    write: bool


def permissions(peer: PeerIdentity | None, backend: LocalBackend, *, daemon_uid: int | None = None) -> Permissions:
    """Everybody who can open the socket may read. Root, the operator, and the user that an unprivileged daemon
    runs as may write.

    Where the system has no peer credentials at all the socket file is for its owner alone (mode 0600), and having
    opened it is proof enough.
    """
    if peer is None:
        return Permissions(read=True, write=not peercred.SUPPORTED)
    own = os.getuid() if daemon_uid is None else daemon_uid
    if peer.uid == 0 or (own != 0 and peer.uid == own):
        return Permissions(read=True, write=True)
    return Permissions(read=True, write=backend.is_operator(peer.uid))
