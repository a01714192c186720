"""The directories below the state directory that belong to one profile each, and go with it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from meshd.base.log import get_logger, kv

log = get_logger(__name__)

_FOLDER = "profile-data"


class ProfileData:
    """``<statedir>/profile-data/<profile id>``. Without a state directory nothing is ever kept."""

    def __init__(self, statedir: Path | None) -> None:
        self._root = statedir / _FOLDER if statedir is not None else None

    def directory(self, profile_id: str) -> Path | None:
        """Where data of a profile may be kept; it need not exist. None: nowhere."""
        if self._root is None or not profile_id or not profile_id.isalnum():
            return None
        return self._root / profile_id

    def remove(self, profile_id: str) -> None:
        """The profile is gone."""
        directory = self.directory(profile_id)
        if directory is not None:
            _remove(directory)

    def keep_only(self, profile_ids: Iterable[str]) -> None:
        """Remove what belongs to no profile: a process was killed between deleting a profile and its data."""
        if self._root is None or not self._root.is_dir():
            return
        known = set(profile_ids)
        for directory in self._root.iterdir():
            if directory.name not in known:
                _remove(directory)


def _remove(directory: Path) -> None:
    try:
        shutil.rmtree(directory)
    except FileNotFoundError:
        return
    except OSError as error:
        log.warning("profile_data_stays", extra=kv(path=directory, reason=error.strerror))
