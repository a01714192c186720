"""Writing files so that a crash leaves the old content or the new one, never a part."""

from __future__ import annotations

import contextlib
import glob
import os
import tempfile
import time
from pathlib import Path

LEFTOVER_AGE_S = 60.0  # no writer takes so long


def write_atomic(path: Path | str, data: bytes, mode: int = 0o600) -> None:
    """Replace ``path`` by ``data`` durably: temporary file beside it, fsync, rename, fsync of the folder.

    Raises OSError (disk full, read-only, no permission); ``path`` is then unchanged and no temporary file
    is left.
    """
    target = Path(path)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    sync_directory(target.parent)


def keep_aside(path: Path) -> Path:
    """Move a file out of the way, durably, under a name that nothing has. Returns the new path; raises OSError."""
    number = 1
    while (kept := path.with_name(f"{path.name}.kept-{number}")).exists():
        number += 1
    os.rename(path, kept)
    sync_directory(path.parent)
    return kept


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files of writers of ``path`` that were killed a while ago: they hold what it holds."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.????????"):
        with contextlib.suppress(OSError):
            if time.time() - left.lstat().st_mtime > LEFTOVER_AGE_S:
                left.unlink()


def sync_directory(path: Path) -> None:
    """Make a rename or unlink inside ``path`` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
