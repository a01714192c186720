"""A LocalAPI server over a fake node, in a thread of its own: for tests of clients that block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

from meshd.base.errors import MeshdError
from meshd.feature.localapi.backendapi import LocalBackend
from meshd.feature.localapi.server import LocalApiServer
from meshd.io.http.h1server import Limits
from meshd.io.peercred import PeerIdentity
from meshd.testing.fakebackend import FakeBackend

T = TypeVar("T")


class LocalApiThread:
    """A context manager; `backend` is the fake node, `uid` who every client claims to be (changeable)."""

    def __init__(self, path: str, backend: FakeBackend | None = None, *, limits: Limits | None = None) -> None:
        self.path = path
        self.backend = backend or FakeBackend()
        self.uid: int | None = 0
        self._limits = limits or Limits()
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._main, name="localapi")

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait(10)
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def call(self, function: Callable[[], T]) -> T:
        """Run a function on the server's loop and wait for its result."""

        async def run() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    def _identify(self, fd: int) -> PeerIdentity | None:
        return None if self.uid is None else PeerIdentity(self.uid, self.uid, None)

    def _main(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        node: LocalBackend = self.backend
        server = LocalApiServer(node, limits=self._limits, identify=self._identify, daemon_uid=0)
        try:
            await server.start(self.path)
        except MeshdError as error:
            self._failure = error
            return
        finally:
            self._started.set()
        await self._stop.wait()
        await server.close()
