"""The Unix socket that the LocalAPI listens on."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat

from meshd.base.errors import MeshdError
from meshd.base.log import get_logger, kv
from meshd.io import peercred
from meshd.io.http.h1server import LISTEN_BACKLOG

log = get_logger(__name__)


def open_socket(path: str) -> socket.socket:
    """Bind and listen; a socket left behind by a dead daemon is replaced, a live one is not.

    The directory is made (0755) when missing. Everybody may connect where the system tells who they are.

    Raises:
        MeshdError: "conflict" when a daemon answers there, "internal" when the path cannot be used.
    """
    if not path:
        raise MeshdError("the socket path is empty", code="invalid", hint="Give one with --socket=PATH.")
    try:
        _make_directory(os.path.dirname(path))
        _remove_stale(path)
        return _bind(path)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise _in_use(path) from None
        raise MeshdError(
            f"cannot listen on {path}: {error.strerror or error}",
            hint="Choose another place with --socket=PATH, or start the daemon as root.",
        ) from error


class SocketFile:
    """The file of a socket that was just opened, told apart from one that another daemon puts there later."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._identity = self._look()

    def remove(self) -> None:
        """Remove it, if it is still there."""
        if self._identity is not None and self._look() == self._identity:
            with contextlib.suppress(OSError):
                os.unlink(self._path)

    def _look(self) -> tuple[int, int] | None:
        try:
            found = os.lstat(self._path)
        except OSError:
            return None
        return found.st_dev, found.st_ino


def _bind(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        before = os.umask(0o177)  # nobody gets in between bind and chmod
        try:
            listener.bind(path)
        finally:
            os.umask(before)
        os.chmod(path, 0o666 if peercred.SUPPORTED else 0o600)
        listener.listen(LISTEN_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _make_directory(directory: str) -> None:
    if not directory or os.path.isdir(directory):
        return
    os.makedirs(directory, 0o755, exist_ok=True)
    if peercred.SUPPORTED and stat.S_IMODE(os.stat(directory).st_mode) & 0o077 == 0:
        os.chmod(directory, 0o755)  # a umask took it away


def _remove_stale(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise MeshdError(
            f"{path} exists and is not a socket", code="conflict", hint="Remove it, or give another --socket=PATH."
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except TimeoutError:
            raise _in_use(path) from None  # its backlog is full: somebody listens
        except OSError as error:
            log.info("socket_stale_removed", extra=kv(path=path, reason=error.strerror))
            os.unlink(path)
            return
    raise _in_use(path)


def _in_use(path: str) -> MeshdError:
    return MeshdError(
        f"{path}: address already in use",
        code="conflict",
        hint="Another daemon is running there; stop it, or give another --socket=PATH.",
    )
