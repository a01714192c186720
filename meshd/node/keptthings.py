"""Small things that programs keep with a login profile: one JSON file each, gone with the profile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from meshd.base.errors import MeshdError
from meshd.base.log import get_logger, kv
from meshd.io.files import write_atomic
from meshd.node.profiledata import ProfileData

log = get_logger(__name__)

JSON = dict[str, Any]


class KeptThings:
    """``read`` and ``write`` by name, of the profile in use. Nothing is kept for a profile that was never saved."""

    def __init__(self, data: ProfileData, profile_id: Callable[[], str]) -> None:
        self._data = data
        self._profile_id = profile_id

    def read(self, name: str) -> JSON:
        """What was written last; empty for nothing, or when the file is damaged."""
        directory = self._data.directory(self._profile_id())
        if directory is None:
            return {}
        path = directory / f"{name}.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=JSON)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("kept_unreadable", extra=kv(path=path, reason=str(error)))
            return {}

    def write(self, name: str, value: JSON) -> None:
        """Durable when this returns. Raises MeshdError where nothing can be kept."""
        directory = self._data.directory(self._profile_id())
        if directory is None:
            raise MeshdError("nothing can be kept: this profile is not saved yet, or there is no state directory")
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomic(directory / f"{name}.json", msgspec.json.encode(value))
        except OSError as error:
            raise MeshdError(f"cannot keep {name}: {error.strerror}") from None
