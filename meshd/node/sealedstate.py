"""The sealed form of a state file.

One JSON object: ``meshd-sealed-state`` is the version of the form, ``key`` names the key, ``data`` is the nonce and
the sealed plain form, in base64.
"""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from pathlib import Path

import msgspec

from meshd.base.crypto import xaead_open, xaead_seal
from meshd.base.errors import MeshdError
from meshd.node.statekey import KeyLost, Protection, best_protection, key_id, make_key, read_key

_VERSION = 1
_CONTEXT = b"meshd sealed state 1"
_NONCE_BYTES = 24


class _Form(msgspec.Struct, forbid_unknown_fields=True):
    version: int = msgspec.field(name="meshd-sealed-state")
    key: str
    data: str


class StateSeal:
    """Seals and opens the state file ``path`` with the key in ``path`` + ``.key``, which it makes when it must."""

    def __init__(self, path: Path, protection: Protection | None = None) -> None:
        self.key_path = path.with_name(path.name + ".key")
        self._protection = protection
        self._key: bytes | None = None

    def open(self, data: bytes) -> bytes | None:
        """The plain form; None when ``data`` is not in the sealed form.

        Raises KeyLost when the key that sealed it is not to be had, MeshdError for all else.
        """
        if b'"meshd-sealed-state"' not in data[:64]:
            return None
        try:
            form = msgspec.json.decode(data, type=_Form)
            sealed = b64decode(form.data, validate=True)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise MeshdError("is damaged", code="unavailable") from None
        if form.version != _VERSION:
            raise MeshdError("was sealed by a newer version of meshd", code="unavailable")
        key = read_key(self.key_path)
        if key_id(key) != form.key:
            raise KeyLost(f"its key is not the one in {self.key_path}", code="unavailable")
        plain = xaead_open(key, sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _CONTEXT)
        if plain is None:
            raise MeshdError("is damaged", code="unavailable")
        self._key = key
        return plain

    def seal(self, plain: bytes) -> bytes:
        """The sealed form. Makes the key first if there is none; raises OSError when it cannot be stored."""
        key = self._key
        if key is None:
            key = self._key = self._usable_key() or make_key(self.key_path, self._protection or best_protection())
        nonce = os.urandom(_NONCE_BYTES)
        data = b64encode(nonce + xaead_seal(key, nonce, plain, _CONTEXT)).decode()
        return msgspec.json.format(msgspec.json.encode(_Form(_VERSION, key_id(key), data)), indent=2) + b"\n"

    def _usable_key(self) -> bytes | None:
        """A key that was made, and not used before its maker was killed."""
        try:
            return read_key(self.key_path)
        except KeyLost:
            return None
        except MeshdError as error:
            raise OSError(5, error.message) from None
