"""SQLite on a thread of its own, with one fsync for everything that waits.

Callers hand in a function that works on the connection. All functions that wait at the same time run in one
transaction, each inside its own savepoint, and every caller is answered after the common commit: what was answered
survives a power cut.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from meshd.base.errors import MeshdError
from meshd.coord.schema import migrate

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

MAX_BATCH = 512
BUSY_TIMEOUT_MS = 5000
HINT = "Check the disk and the owner of the state directory, or restore a copy of the file."


class Database:
    """The one writer of the state. Open it inside a running loop, `close` it at the end."""

    def __init__(self, path: Path) -> None:
        self._connection = _open(path)
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[tuple[Work[Any], asyncio.Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="mesh-coord-db", daemon=True)
        self._thread.start()

    def run(self, work: Work[T]) -> asyncio.Future[T]:
        """Run `work` in a transaction; the future is done after the commit, or fails with what `work` raised."""
        done: asyncio.Future[T] = self._loop.create_future()
        self._queue.put((work, done))
        return done

    async def close(self) -> None:
        """Finish what waits and close the file."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        self._connection.close()

    def _serve(self) -> None:
        ending = False
        while not ending:
            batch = [self._queue.get()]
            while len(batch) < MAX_BATCH and not self._queue.empty():
                batch.append(self._queue.get())
            ending = None in batch
            outcomes = self._transaction([entry for entry in batch if entry is not None])
            if outcomes:
                self._loop.call_soon_threadsafe(_resolve, outcomes)

    def _transaction(
        self, batch: list[tuple[Work[Any], asyncio.Future[Any]]]
    ) -> list[tuple[asyncio.Future[Any], Any, BaseException | None]]:
        if not batch:
            return []
        outcomes: list[tuple[asyncio.Future[Any], Any, BaseException | None]] = []
        run = self._connection.execute
        try:
            run("BEGIN IMMEDIATE")
            for work, done in batch:
                run("SAVEPOINT one")
                try:
                    outcomes.append((done, work(self._connection), None))
                except Exception as error:  # noqa: BLE001 - handed to the caller that waits for it
                    run("ROLLBACK TO one")
                    outcomes.append((done, None, _failure(error) if isinstance(error, sqlite3.Error) else error))
                run("RELEASE one")
            run("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                run("ROLLBACK")
            failure = _failure(error)
            return [(done, None, failure) for _, done in batch]
        return outcomes


def _resolve(outcomes: list[tuple[asyncio.Future[Any], Any, BaseException | None]]) -> None:
    for done, result, error in outcomes:
        if done.cancelled():
            continue
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(error)


def _failure(error: sqlite3.Error) -> MeshdError:
    return MeshdError(f"the database could not be used: {error}", code="storage", hint=HINT)


def _open(path: Path) -> sqlite3.Connection:
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        os.close(descriptor)
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        migrate(connection)
    except (OSError, sqlite3.Error) as error:
        raise MeshdError(
            f"cannot use the database {path}: {error}",
            code="storage" if isinstance(error, (OSError, sqlite3.OperationalError)) else "config",
            hint=HINT,
        ) from None
    return connection
