"""The administration socket: one JSON line asks, one JSON line answers.

    {"op": "nodes.list", "args": {…}}   →   {"result": …}   or   {"error": {"message", "hint", "code"}}

The socket file belongs to the user that runs the server and has mode 0600: who can open it may do everything.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec

from meshd.base.errors import MeshdError
from meshd.base.log import get_logger, kv

log = get_logger(__name__)

MAX_LINE_BYTES = 16 * 1024 * 1024
"""The largest policy text fits in, even when each of its characters is written as two escapes."""
REQUEST_TIMEOUT_S = 30.0
SOCKET_NAME = "admin.sock"

Arguments = dict[str, Any]
Operation = Callable[[Arguments], Coroutine[Any, Any, object]]


class _Question(msgspec.Struct):
    op: str
    args: Arguments = {}


class AdminServer:
    """Serves the operations on a Unix socket."""

    def __init__(self, operations: dict[str, Operation]) -> None:
        self._operations = operations
        self._server: asyncio.AbstractServer | None = None
        self._path: Path | None = None
        self._running: set[asyncio.Task[object]] = set()

    async def start(self, path: Path) -> None:
        """Listen; a file left over by a killed server is replaced (the state directory is locked by us)."""
        _remove(path)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        old_mask = os.umask(0o177)
        try:
            listening.bind(os.fspath(path))
        except OSError as error:
            listening.close()
            raise MeshdError(f"cannot create the administration socket {path}: {error}", code="config") from None
        finally:
            os.umask(old_mask)
        self._path = path
        self._server = await asyncio.start_unix_server(self._serve, sock=listening, limit=MAX_LINE_BYTES)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        if self._path is not None:
            _remove(self._path)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                line = await reader.readline()
                writer.write(await self._answer(line) + b"\n")
                await writer.drain()
        except (OSError, ValueError, TimeoutError) as error:
            log.debug("admin_request_failed", extra=kv(reason=str(error)))
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> bytes:
        try:
            question = msgspec.json.decode(line, type=_Question)
            operation = self._operations.get(question.op)
            if operation is None:
                raise MeshdError(
                    f"the server does not know {question.op!r}",
                    code="usage",
                    hint="The running server may be older than this command; restart it.",
                )
            return msgspec.json.encode({"result": await self._to_its_end(operation(question.args))})
        except MeshdError as error:
            return _failure(error.message, error.hint, error.code)
        except (msgspec.MsgspecError, KeyError, TypeError, ValueError, RecursionError, OverflowError) as error:
            return _failure(f"malformed request: {error}", None, "usage")
        except Exception as error:  # a bug, and the administrator must not wait for an answer in vain
            log.error("admin_request_failed", extra=kv(reason=repr(error)), exc_info=error)
            return _failure("internal error; the server's log has more", None, "internal")

    async def _to_its_end(self, work: Coroutine[Any, Any, object]) -> object:
        """Also when the time for an answer is over, so that memory and disk never differ."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _failure(message: str, hint: str | None, code: str) -> bytes:
    return msgspec.json.encode({"error": {"message": message, "hint": hint, "code": code}})
