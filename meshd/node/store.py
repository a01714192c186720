"""Where state is kept between runs.

The file form is one JSON object of key to base64 bytes, the one that existing daemons use; their files can be
read. By default it is sealed, and a plain file becomes a sealed one when it is opened. A write is on disk before it
returns. A file that cannot be understood is never touched: the store then refuses writes and says why. One whose key
is lost is kept aside, and the store begins empty.
"""

from __future__ import annotations

import errno
import os
import stat
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from meshd.base.errors import MeshdError
from meshd.base.log import get_logger, kv
from meshd.io.files import keep_aside, remove_leftovers, write_atomic
from meshd.node.sealedstate import StateSeal
from meshd.node.statekey import KeyLost, Protection, credential

log = get_logger(__name__)

MACHINE_KEY = "_machinekey"
PROFILES = "_profiles"
CURRENT_PROFILE = "_current-profile"
LEGACY_PREFS = "_daemon"
"""Preferences and login of daemons from before there were profiles."""
INITIAL_STATE = "meshd.state"
"""The credential with the state that a new node begins with, in the plain form. The usual file is named so too."""
TAILSCALED_STATE = "tailscaled.state"
"""What the file is called in a directory that tailscaled had before us."""
_LIMIT_BYTES = 64 << 20
_TPM_SEALED = {"key", "nonce", "data"}
_DECRYPT_FIRST = "Start tailscaled once with --encrypt-state=false"


class Store(Protocol):
    """Keys to bytes. ``problem`` is a text for the user while the store cannot be used."""

    problem: MeshdError | None
    notice: str
    """What the user should know although the store works; empty when there is nothing."""
    ephemeral: bool

    @property
    def encrypted(self) -> bool:
        """Whether who finds the stored bytes can do nothing with them."""
        ...

    @property
    def passing(self) -> bool:
        """Whether ``problem`` may go away by itself, which `reopen` finds out."""
        ...

    def reopen(self) -> None:
        """Try again what could not be opened; ``problem`` says how it went."""
        ...

    def read(self, key: str) -> bytes | None:
        """The value; None when there is none or it is empty."""
        ...

    def write(self, key: str, value: bytes | None) -> None:
        """Store durably, or raise MeshdError and keep what was there. None removes."""
        ...

    def update(self, changes: Mapping[str, bytes | None]) -> None:
        """As `write`, for several keys at once: whatever happens, all of them are changed or none."""
        ...


class MemoryStore:
    """State that ends with the process (``mem:``); the node logs in as ephemeral."""

    ephemeral = True
    encrypted = False
    passing = False
    notice = ""

    def __init__(self) -> None:
        self.problem: MeshdError | None = None
        self._values: dict[str, bytes] = {}

    def reopen(self) -> None:
        """What is wrong stays so until somebody mends it."""

    def read(self, key: str) -> bytes | None:
        return self._values.get(key) or None

    def write(self, key: str, value: bytes | None) -> None:
        self.update({key: value})

    def update(self, changes: Mapping[str, bytes | None]) -> None:
        self._values = _changed(self._values, changes)


def _check_place(path: Path) -> None:
    """The file is replaced when it is written: that must not happen to a device. MeshdError "usage"."""
    if not path.name:
        raise MeshdError(f"--state={path} names no file", code="usage")
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise MeshdError(
            f"--state={path} is no regular file", code="usage", hint="Use --state=mem: to keep nothing between runs."
        )


class InitialState(NamedTuple):
    """The plain form of the state to begin with where there is none, and what messages call it."""

    data: bytes
    name: str = "the initial state"


class FileStore:
    """A state file, mode 0600; sealed with ``seal``, plain when ``sealed`` is false."""

    ephemeral = False
    passing = False

    def __init__(
        self,
        path: Path,
        *,
        sealed: bool = False,
        protection: Protection | None = None,
        initial: Callable[[], InitialState | None] = lambda: None,
    ) -> None:
        """``initial`` is asked where there is no state yet."""
        _check_place(path)
        if path.is_symlink():  # the link stays, and what it leads to is written
            path = Path(os.path.realpath(path))
        self._path = path
        self._initial = initial
        self._seal = StateSeal(path, protection)
        self._sealed = sealed
        self.problem: MeshdError | None = None
        self.notice = ""
        self._values: dict[str, bytes] = {}
        try:
            self._load()
        except MeshdError as error:
            self.problem = error

    @property
    def encrypted(self) -> bool:
        return self._sealed and not self.notice

    def _load(self) -> None:
        data = self._read()
        if not data:
            initial = self._initial()
            if initial is not None and initial.data:
                self._values = self._parse(*initial)
                log.info("state_taken_over", extra=kv(source=initial.name))
            self._begin()
            return
        try:
            plain = self._seal.open(data)
        except KeyLost as error:
            self._set_aside(error)
            return
        except MeshdError as error:
            raise self._unusable(error.message) from None
        self._values = self._parse(data if plain is None else plain)
        if (plain is not None) is not self._sealed:
            self._change_form()

    def _read(self) -> bytes:
        try:
            remove_leftovers(self._path)
            return _read_limited(self._path)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise self._unusable(f"cannot be read: {error.strerror}") from None

    def _begin(self) -> None:
        """Nothing is lost when that cannot be written yet: whoever wants something kept is told, and may try again."""
        try:
            self._save(self._values)
        except MeshdError as error:
            log.warning("state_not_begun", extra=kv(reason=error.message))

    def _change_form(self) -> None:
        """From plain to sealed or back. What cannot be written stays as it is, and is said."""
        try:
            self._save(self._values)
        except MeshdError as error:
            what = "is not encrypted" if self._sealed else "is still encrypted"
            self.notice = f"The state file {self._path} {what}: {error.message}."
            log.warning("state_form_unchanged", extra=kv(path=self._path, reason=error.message))
        else:
            log.info("state_sealed" if self._sealed else "state_unsealed", extra=kv(path=self._path))

    def _set_aside(self, reason: KeyLost) -> None:
        """Nobody can read the file any more on this host: keep it, and begin anew."""
        try:
            kept = keep_aside(self._path)
            if self._seal.key_path.exists():
                keep_aside(self._seal.key_path)
        except OSError as error:
            raise self._unusable(f"cannot be decrypted, {reason.message}, nor moved away: {error.strerror}") from None
        self.notice = (
            f"The state file could not be decrypted: {reason.message}. It is kept as {kept}; this machine has to log "
            f"in again. With its key back in place, stop meshd, move it to {self._path} and start meshd."
        )
        log.error("state_set_aside", extra=kv(kept=kept, reason=reason.message))
        self._begin()

    def _parse(self, data: bytes, name: str = "") -> dict[str, bytes]:
        try:
            if msgspec.json.decode(data, type=dict[str, msgspec.Raw]).keys() == _TPM_SEALED:
                raise self._unusable("was encrypted by tailscaled with the TPM of its host", name, _DECRYPT_FIRST)
            entries = msgspec.json.decode(data, type=dict[str, str | None])
            return {key: b64decode(text, validate=True) for key, text in entries.items() if text is not None}
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise self._unusable(f"is damaged or not a state file ({_brief(error)})", name) from None

    def _unusable(self, what: str, name: str = "", remedy: str = "Restore the file, or move it away,") -> MeshdError:
        return _unusable(name or f"the state file {self._path}", what, remedy)

    def reopen(self) -> None:
        """What is wrong stays so until somebody mends it."""

    def read(self, key: str) -> bytes | None:
        return self._values.get(key) or None

    def write(self, key: str, value: bytes | None) -> None:
        self.update({key: value})

    def update(self, changes: Mapping[str, bytes | None]) -> None:
        if self.problem is not None:
            raise self.problem
        values = _changed(self._values, changes)
        if values != self._values:
            self._save(values)
            self._values = values

    def _save(self, values: dict[str, bytes]) -> None:
        entries = {key: b64encode(value).decode() for key, value in values.items()}
        data = msgspec.json.format(msgspec.json.encode(entries), indent=2)
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomic(self._path, self._seal.seal(data) if self._sealed else data)
        except OSError as error:
            raise MeshdError(
                f"cannot write the state file {self._path}: {error.strerror}",
                code="unavailable",
                hint="Nothing was changed. Free space or make the directory writable, then try again.",
            ) from None


def _read_limited(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(_LIMIT_BYTES + 1)
    if len(data) > _LIMIT_BYTES:
        raise OSError(errno.EFBIG, "it is larger than any state file")
    return data


def _unusable(name: str, what: str, remedy: str = "Restore the file, or move it away,") -> MeshdError:
    return MeshdError(
        f"{name} {what}",
        code="unavailable",
        hint=f"meshd keeps it untouched and does not log in. {remedy} and restart meshd.",
    )


def _changed(values: Mapping[str, bytes], changes: Mapping[str, bytes | None]) -> dict[str, bytes]:
    merged = {**values, **changes}
    return {key: value for key, value in merged.items() if value is not None}


def _brief(error: Exception) -> str:
    return str(error).splitlines()[0][:120]


def open_store(spec: str, encrypt: bool | None = None) -> Store:
    """The store for ``--state``: ``mem:``, ``kube:NAME`` or a path.

    ``encrypt`` is ``--encrypt-state``, None when not given.
    """
    kind, colon, name = spec.partition(":")
    if colon and "/" not in kind:
        if encrypt:
            raise MeshdError("--encrypt-state can only be used with --state set to a local file path", code="usage")
        if kind == "mem":
            return MemoryStore()
        if kind == "kube":
            from meshd.node.kubestore import KubeStore

            return KubeStore(name)
        raise MeshdError(
            f"--state={spec}: this build has no store of kind {kind!r}",
            code="usage",
            hint="Use a file path, kube:NAME or mem:",
        )
    path = Path(spec)
    return FileStore(path, sealed=encrypt is not False, initial=lambda: _initial_state(path))


def _initial_state(path: Path) -> InitialState | None:
    """The credential; else what tailscaled left in the same directory, whose file stays as it is, for a way back."""
    passed = credential(INITIAL_STATE)
    if passed is not None:
        return InitialState(passed)
    left = path.with_name(TAILSCALED_STATE)
    if path.name != INITIAL_STATE:
        return None
    name = f"tailscaled's state file {left}"
    try:
        return InitialState(_read_limited(left), name)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(name, f"cannot be read: {error.strerror}") from None
