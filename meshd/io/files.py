"""Writing files so that a crash leaves the old content or the new one, never a part."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import tempfile
import time
from pathlib import Path

from meshd.base.log import get_logger, kv

log = get_logger(__name__)

LEFTOVER_AGE_S = 60.0  # no writer takes so long


def write_atomic(path: Path | str, data: bytes, mode: int = 0o600) -> None:
    """Replace ``path`` by ``data`` durably: temporary file beside it, fsync, rename, fsync of the folder.

    Raises OSError (disk full, read-only, no permission); ``path`` is then unchanged and no temporary file
    is left. Once the new content is in place nothing is raised: a folder that cannot be synchronised is logged.
    """
    target = Path(path)
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _replace(target, data, mode)
        try:
            _sync(folder)
        except OSError as error:
            log.warning("folder_not_synchronised", extra=kv(path=target.parent, reason=error.strerror))
    finally:
        os.close(folder)


def _replace(target: Path, data: bytes, mode: int) -> None:
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
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _sync(folder: int) -> None:
    """Some file systems (of virtual machines' shared folders, of other kinds of servers) know no such thing."""
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF):
            raise
