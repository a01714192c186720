"""Writing files that others may be reading."""

from __future__ import annotations

import os

from meshd.cli.errors import CliError


def write_atomically(path: str, content: bytes, mode: int) -> None:
    """Replace a file as a whole: its readers see the old content or the new one.

    Raises:
        CliError: the directory cannot be written to, the disk is full.
    """
    import tempfile

    try:
        handle, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=os.path.dirname(path) or ".")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                os.fchmod(file.fileno(), mode)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise CliError(f"cannot write {path}: {error.strerror or error}") from None


def write_if_changed(path: str, content: bytes, mode: int) -> bool:
    """As `write_atomically`, unless the file has this content; says whether it was written."""
    try:
        with open(path, "rb") as file:
            if file.read() == content:
                return False
    except OSError:
        pass  # not there, or not readable: writing says more
    write_atomically(path, content, mode)
    return True
