"""Where programs find the daemon of this machine."""

from __future__ import annotations

import os

RUN_DIRECTORY = "/run"


def default_socket(run_directory: str = RUN_DIRECTORY) -> str:
    """The path of the LocalAPI's socket unless told otherwise; in the working directory on a machine without /run."""
    return f"{run_directory}/meshd/meshd.sock" if os.path.isdir(run_directory) else "meshd.sock"


DEFAULT_SOCKET = default_socket()
