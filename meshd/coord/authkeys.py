"""Auth keys: their text, and how one lets a machine in.

Text: `mesh-auth-<12 hex>-<64 hex>`. The first part finds the key, the second is the secret; 256 random bits need no
slow digest.
"""

from __future__ import annotations

import os
import re
import sqlite3

from meshd.base.crypto import blake2s, same
from meshd.base.errors import MeshdError
from meshd.coord import store
from meshd.coord.records import AuthKeyRecord

_FORM = re.compile(r"mesh-auth-([0-9a-f]{12})-([0-9a-f]{64})", re.ASCII)
PREFIX_BYTES = 6
SECRET_BYTES = 32


def new_key() -> tuple[str, str, bytes]:
    """A fresh key: its public half, its whole text, and the digest to store."""
    prefix = os.urandom(PREFIX_BYTES).hex()
    secret = os.urandom(SECRET_BYTES).hex()
    return prefix, f"mesh-auth-{prefix}-{secret}", blake2s(secret.encode())


def check_key(connection: sqlite3.Connection, text: str) -> AuthKeyRecord:
    """The key written as `text`; MeshdError `invalid auth key` when there is none. It may be used up."""
    found = _FORM.fullmatch(text)
    known = store.find_auth_key(connection, found[1]) if found else None
    if found is None or known is None or not same(blake2s(found[2].encode()), known[1]):
        raise MeshdError("invalid auth key", code="denied")
    return known[0]


def consume_key(connection: sqlite3.Connection, key: AuthKeyRecord, wall: float) -> None:
    """Use the key for one machine; MeshdError says why it cannot be."""
    if store.consume_auth_key(connection, key.id, wall):
        return
    current = store.find_auth_key(connection, key.prefix)
    state = current[0].state(wall) if current is not None else "revoked"
    reason = {"used": "auth key was already used", "expired": "auth key has expired"}.get(state, "auth key was revoked")
    raise MeshdError(reason, code="denied")
