"""Where state is kept between runs.

The file form is one JSON object of key to base64 bytes, the one that existing daemons use; their files can be
read. A write is on disk before it returns. A file that cannot be understood is never touched: the store then
refuses writes and says why.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from meshd.base.errors import MeshdError
from meshd.io.files import remove_leftovers, write_atomic

MACHINE_KEY = "_machinekey"
PROFILES = "_profiles"
CURRENT_PROFILE = "_current-profile"
_LIMIT_BYTES = 64 << 20


class Store(Protocol):
    """Keys to bytes. ``problem`` is a text for the user while the store cannot be used."""

    problem: MeshdError | None
    ephemeral: bool

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

    def __init__(self) -> None:
        self.problem: MeshdError | None = None
        self._values: dict[str, bytes] = {}

    def read(self, key: str) -> bytes | None:
        return self._values.get(key) or None

    def write(self, key: str, value: bytes | None) -> None:
        self.update({key: value})

    def update(self, changes: Mapping[str, bytes | None]) -> None:
        self._values = _changed(self._values, changes)


class FileStore:
    """A state file, mode 0600."""

    ephemeral = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self.problem: MeshdError | None = None
        self._values: dict[str, bytes] = {}
        try:
            self._load()
        except MeshdError as error:
            self.problem = error

    def _load(self) -> None:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            remove_leftovers(self._path)
            with self._path.open("rb") as file:
                data = file.read(_LIMIT_BYTES + 1)
        except FileNotFoundError:
            self._save({})
            return
        except OSError as error:
            raise self._unusable(f"cannot be read: {error.strerror}") from None
        if not data:
            self._save({})
            return
        if len(data) > _LIMIT_BYTES:
            raise self._unusable("is larger than any state file")
        self._values = self._parse(data)

    def _parse(self, data: bytes) -> dict[str, bytes]:
        try:
            entries = msgspec.json.decode(data, type=dict[str, str | None])
            return {key: b64decode(text, validate=True) for key, text in entries.items() if text is not None}
        except (msgspec.MsgspecError, ValueError) as error:
            raise self._unusable(f"is damaged or not a state file ({_brief(error)})") from None

    def _unusable(self, what: str) -> MeshdError:
        return MeshdError(
            f"the state file {self._path} {what}",
            code="unavailable",
            hint="meshd keeps it untouched and does not log in. Restore the file, or move it away, and restart meshd.",
        )

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
            write_atomic(self._path, data)
        except OSError as error:
            raise MeshdError(
                f"cannot write the state file {self._path}: {error.strerror}",
                code="unavailable",
                hint="Nothing was changed. Free space or make the directory writable, then try again.",
            ) from None


def _changed(values: Mapping[str, bytes], changes: Mapping[str, bytes | None]) -> dict[str, bytes]:
    merged = {**values, **changes}
    return {key: value for key, value in merged.items() if value is not None}


def _brief(error: Exception) -> str:
    return str(error).splitlines()[0][:120]


def open_store(spec: str) -> Store:
    """The store for ``--state``: ``mem:`` or a path."""
    if spec.startswith("mem:"):
        return MemoryStore()
    kind, colon, _ = spec.partition(":")
    if colon and "/" not in kind:
        raise MeshdError(
            f"--state={spec}: this build has no store of kind {kind!r}", code="usage", hint="Use a file path or mem:"
        )
    return FileStore(Path(spec))
