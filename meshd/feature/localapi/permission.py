"""What a local user may do, decided by the uid that the kernel names (and by nothing a client says)."""

from __future__ import annotations

import os

import msgspec

from meshd.feature.localapi.backendapi import LocalBackend
from meshd.io import peercred
from meshd.io.peercred import PeerIdentity


class Permissions(msgspec.Struct, frozen=True):
    """`read`: see status and preferences. `write`: change them, and see what could be sensitive. `cert`: get TLS
    certificates for the names of this node. `owner`: no operator, but one who could end the daemon by a signal too."""

    read: bool
    write: bool
    cert: bool = False
    owner: bool = False


def permissions(peer: PeerIdentity | None, backend: LocalBackend, *, daemon_uid: int | None = None) -> Permissions:
    """Everybody who can open the socket may read. Root, the operator, and the user that an unprivileged daemon
    runs as may write.

    Where the system has no peer credentials at all the socket file is for its owner alone (mode 0600), and having
    opened it is proof enough.
    """
    if peer is None:
        trusted = not peercred.SUPPORTED
        return Permissions(read=True, write=trusted, cert=trusted, owner=trusted)
    own = os.getuid() if daemon_uid is None else daemon_uid
    if peer.uid == 0 or (own != 0 and peer.uid == own):
        return Permissions(read=True, write=True, cert=True, owner=True)
    write = backend.is_operator(peer.uid)
    return Permissions(read=True, write=write, cert=write or _may_have_certificates(peer.uid))


def _may_have_certificates(uid: int) -> bool:
    """Whether the administrator named this user, a web server's, in the environment: by number or by name."""
    named = os.environ.get("TS_PERMIT_CERT_UID", "").strip()
    if not named:
        return False
    if named.isascii() and named.isdigit():
        return int(named) == uid
    import pwd

    try:
        return pwd.getpwnam(named).pw_uid == uid
    except (KeyError, ValueError):
        return False
