"""Where the state of a node is when nobody says so."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

DEFAULT_STATE = "/var/lib/meshd/meshd.state"
_UP = 3  # directories above the file that may have to be made


def default_state(
    environment: Mapping[str, str],
    uid: int,
    writable: Callable[[str], bool] = lambda path: os.access(path, os.W_OK),
) -> str:
    """The system's place where we may write there (DM-07); else, for an ordinary user, a place among his own data."""
    path = DEFAULT_STATE
    for _ in range(_UP):
        path = os.path.dirname(path)
        if writable(path):
            return DEFAULT_STATE
    data = environment.get("XDG_DATA_HOME", "")
    if not data and environment.get("HOME"):
        data = os.path.join(environment["HOME"], ".local", "share")
    if uid == 0 or not data:
        return DEFAULT_STATE
    return os.path.join(data, "meshd", "meshd.state")
