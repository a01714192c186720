"""Notices changes of files (inotify(7))."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

from meshd.base.log import get_logger, kv

log = get_logger(__name__)

_IN_MODIFY, _IN_ATTRIB, _IN_CLOSE_WRITE = 0x2, 0x4, 0x8
_IN_MOVED_FROM, _IN_MOVED_TO, _IN_CREATE, _IN_DELETE, _IN_DELETE_SELF = 0x40, 0x80, 0x100, 0x200, 0x400
_IN_FOLDER = _IN_MOVED_FROM | _IN_MOVED_TO | _IN_CREATE | _IN_DELETE | _IN_CLOSE_WRITE
_IN_FILE = _IN_MODIFY | _IN_CLOSE_WRITE | _IN_DELETE_SELF | _IN_ATTRIB
_HEADER = struct.Struct("=iIII")
_BYTES = 1 << 16
_NONE_LEFT = (errno.ENOSPC, errno.ENOMEM)  # fs.inotify.max_user_watches, which all of root's programs share


class FileWatch:
    """Calls ``changed`` once per burst when one of the watched files is written, replaced, made or removed.

    Each file is watched itself (it may be a mount whose folder is elsewhere) and by its name in its folder (another
    may take its place). Raises OSError where the kernel has no watch left for us.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, changed: Callable[[], None]) -> None:
        self._loop = loop
        self._changed = changed
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._call(self._libc.inotify_init1, os.O_NONBLOCK | os.O_CLOEXEC)
        self._folders: dict[int, set[bytes]] = {}
        self._files: set[int] = set()
        loop.add_reader(self._fd, self._readable)

    def watch(self, paths: Iterable[Path]) -> None:
        """Watch these from now on, and what is there now. What was watched before is not any more.

        Raises OSError where the kernel has no watch left for us; what was watched before still is then.
        """
        before = {*self._folders, *self._files}
        folders: dict[int, set[bytes]] = {}
        files: set[int] = set()
        for path in paths:
            folder = self._add(path.parent, _IN_FOLDER)
            if folder is not None:
                folders.setdefault(folder, set()).add(os.fsencode(path.name))
            file = self._add(path, _IN_FILE)
            if file is not None:
                files.add(file)
        self._folders, self._files = folders, files
        # What is watched still has its number still, so that nothing of what happened meanwhile is missed.
        for number in before.difference(folders, files):
            self._libc.inotify_rm_watch(self._fd, number)

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _add(self, path: Path, events: int) -> int | None:
        try:
            return self._call(self._libc.inotify_add_watch, self._fd, os.fsencode(path), events)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in _NONE_LEFT:
                raise
            log.info("file_unwatched", extra=kv(path=path, reason=error.strerror))
            return None

    def _call(self, function: Callable[..., int], *arguments: object) -> int:
        result = function(*arguments)
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, _BYTES)
        except BlockingIOError:
            return
        offset, hit = 0, False
        while offset + _HEADER.size <= len(data):
            number, _, _, length = _HEADER.unpack_from(data, offset)
            name = data[offset + _HEADER.size : offset + _HEADER.size + length].rstrip(b"\0")
            offset += _HEADER.size + length
            hit = hit or number in self._files or name in self._folders.get(number, ()) or number < 0
        if hit:
            self._changed()
