"""The key that seals the state file: where it comes from, and the small file that brings it back.

The file ``<state>.key`` (mode 0600) says in its first line how the key is protected:

``systemd-creds``  encrypted by systemd for this host, with its TPM where it has one (systemd-creds(1))
``file``           as it is; only root can read the file

The kernel's keyring is no place for it: what it holds is gone with the next boot.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from meshd.base.crypto import hmac_blake2s
from meshd.base.errors import MeshdError
from meshd.base.log import get_logger, kv
from meshd.io.files import write_atomic

log = get_logger(__name__)

KEY_BYTES = 32
_HEADER = "meshd-state-key 1"
_CREDENTIAL = "meshd-state"
_COMMAND_TIMEOUT_S = 30.0
_LIMIT_BYTES = 1 << 16


class KeyLost(MeshdError):
    """There is no way to the key: its file is gone or damaged, or this host cannot decrypt it any more."""


class Protection(Protocol):
    """A way to keep a key in a file. ``wrap`` and ``unwrap`` raise MeshdError; KeyLost when it is for good."""

    name: str

    def wrap(self, key: bytes) -> str: ...
    def unwrap(self, text: str) -> bytes: ...


class InFile:
    """Nothing but the permissions of the file."""

    name = "file"

    def wrap(self, key: bytes) -> str:
        return key.hex()

    def unwrap(self, text: str) -> bytes:
        try:
            return bytes.fromhex(text)
        except ValueError:
            raise KeyLost("the key file is damaged", code="unavailable") from None


class SystemdCreds:
    """systemd encrypts it for this host."""

    name = "systemd-creds"

    def __init__(self, command: str) -> None:
        self._command = command

    def wrap(self, key: bytes) -> str:
        return self._run("encrypt", key).decode("ascii", "replace")

    def unwrap(self, text: str) -> bytes:
        return self._run("decrypt", text.encode())

    def _run(self, verb: str, data: bytes) -> bytes:
        try:
            done = subprocess.run(
                [self._command, verb, f"--name={_CREDENTIAL}", "-", "-"],
                input=data,
                capture_output=True,
                timeout=_COMMAND_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise MeshdError(f"{self._command} {verb} did not work: {error}", code="unavailable") from None
        if done.returncode < 0:  # killed, as when memory is short: that says nothing about the key
            raise MeshdError(f"{self._command} {verb} was ended by signal {-done.returncode}", code="unavailable")
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise KeyLost(f"systemd-creds {verb}: {said[-1][:200] if said else 'failed'}", code="unavailable")
        return done.stdout


def best_protection(environment: Mapping[str, str] = os.environ) -> Protection:
    """systemd's where it started us as root, else the plain file."""
    command = shutil.which("systemd-creds")
    if command and os.geteuid() == 0 and "INVOCATION_ID" in environment and os.path.isdir("/run/systemd/system"):
        return SystemdCreds(command)
    return InFile()


def key_id(key: bytes) -> str:
    """Names a key without telling anything about it."""
    return hmac_blake2s(key, b"meshd: name of a state key")[:8].hex()


def make_key(path: Path, protection: Protection) -> bytes:
    """A new key, on disk before this returns. Raises OSError when the file cannot be written."""
    key = os.urandom(KEY_BYTES)
    try:
        wrapped = protection.wrap(key)
        if protection.unwrap(wrapped) != key:
            raise MeshdError("it gave back another key than it got", code="unavailable")
    except MeshdError as error:
        log.warning("state_key_in_plain_file", extra=kv(instead_of=protection.name, reason=error.message))
        protection = InFile()
        wrapped = protection.wrap(key)
    write_atomic(path, f"{_HEADER} {protection.name}\n{wrapped.strip()}\n".encode())
    log.info("state_key_made", extra=kv(path=path, protection=protection.name))
    return key


def read_key(path: Path) -> bytes:
    """The key in the file. Raises KeyLost, or MeshdError for what may be better after a restart."""
    try:
        with path.open("rb") as file:
            text = file.read(_LIMIT_BYTES).decode("ascii", "replace")
            if os.fstat(file.fileno()).st_mode & 0o077:
                log.warning("state_key_was_readable", extra=kv(path=path, action="made private"))
                os.fchmod(file.fileno(), 0o600)
    except FileNotFoundError:
        raise KeyLost(f"its key, {path}, is not there", code="unavailable") from None
    except OSError as error:
        raise MeshdError(f"its key, {path}, cannot be read: {error.strerror}", code="unavailable") from None
    header, _, wrapped = text.partition("\n")
    version, _, name = header.rpartition(" ")
    if version != _HEADER or name not in (InFile.name, SystemdCreds.name):
        raise KeyLost(f"its key, {path}, is damaged or of another version of meshd", code="unavailable")
    key = (InFile() if name == InFile.name else _systemd_creds()).unwrap(wrapped.strip())
    if len(key) != KEY_BYTES:
        raise KeyLost(f"its key, {path}, is damaged", code="unavailable")
    return key


def _systemd_creds() -> SystemdCreds:
    command = shutil.which("systemd-creds")
    if command is None:
        raise MeshdError("its key needs systemd-creds, which is not installed", code="unavailable")
    return SystemdCreds(command)


def credential(name: str, environment: Mapping[str, str] = os.environ) -> bytes | None:
    """What the service manager passed us under ``name`` (LoadCredential=); None when it did not."""
    directory = environment.get("CREDENTIALS_DIRECTORY")
    if not directory:
        return None
    try:
        with open(os.path.join(directory, name), "rb") as file:
            return file.read(_LIMIT_BYTES * 64)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise MeshdError(f"the credential {name} cannot be read: {error.strerror}", code="unavailable") from None
