"""The smallest event loop there can be: ready callbacks and timers, no sockets, threads or processes.

Fuzz targets make one for each execution; a loop of `asyncio` would cost more than what is under test. Time begins at
zero and jumps to the next timer whenever nothing else is to be done.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
from asyncio import events
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextvars import Context, copy_context
from heapq import heappop, heappush
from itertools import count
from typing import Any


class _Handle:
    """What is to be called; both kinds of handle of `asyncio` as far as programs look at them."""

    __slots__ = ("_args", "_callback", "_cancelled", "_context", "_when")

    def __init__(
        self, when: float, callback: Callable[..., object], args: tuple[Any, ...], context: Context | None
    ) -> None:
        self._when = when
        self._callback = callback
        self._args = args
        self._context = copy_context() if context is None else context
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True
        self._args = ()

    def cancelled(self) -> bool:
        return self._cancelled

    def when(self) -> float:
        return self._when


class NullLoop(asyncio.AbstractEventLoop):
    """Runs one coroutine and what it begins. ``unhandled`` hears of errors that nobody else does."""

    def __init__(self, unhandled: Callable[[dict[str, Any]], None]) -> None:
        self._unhandled = unhandled
        self._now = 0.0
        self._ready: deque[_Handle] = deque()
        self._timers: list[tuple[float, int, _Handle]] = []
        self._number = count()
        self._tasks: list[asyncio.Task[Any]] = []

    def pending(self) -> list[asyncio.Task[Any]]:
        """Tasks that have not ended."""
        return [task for task in self._tasks if not task.done()]

    def forget_tasks(self) -> None:
        """Let go of all tasks, so that those nobody asked for their error report it."""
        self._tasks.clear()

    def run_until_complete(self, future: Any) -> Any:
        """Raises RuntimeError when nothing is left to do and the coroutine still waits."""
        task = self.create_task(future)
        events._set_running_loop(self)
        before = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(finalizer=self._abandoned)
        try:
            while not task.done():
                self._turn()
        finally:
            sys.set_asyncgen_hooks(*before)
            events._set_running_loop(None)
        return task.result()

    def _turn(self) -> None:
        ready, timers = self._ready, self._timers
        if not ready:
            while timers and timers[0][2]._cancelled:
                heappop(timers)
            if not timers:
                raise RuntimeError("the simulation waits for something that will never happen")
            self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= self._now:
            ready.append(heappop(timers)[2])
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            try:
                handle._context.run(handle._callback, *handle._args)
            except Exception as error:
                self.call_exception_handler({"message": f"in {handle._callback!r}", "exception": error})

    def _abandoned(self, generator: AsyncGenerator[Any, Any]) -> None:
        self.call_soon(self.create_task, generator.aclose())

    # -- what asyncio asks of a loop

    def time(self) -> float:
        return self._now

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> Any:
        handle = _Handle(self._now, callback, args, context)
        self._ready.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Any:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None) -> Any:
        handle = _Handle(when, callback, args, context)
        heappush(self._timers, (when, next(self._number), handle))
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        self._tasks.append(task)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self._unhandled(context)

    async def create_connection(self, *args: Any, **options: Any) -> Any:
        raise OSError(errno.ENETUNREACH, "there is no network")

    async def create_unix_connection(self, *args: Any, **options: Any) -> Any:
        raise OSError(errno.ENOENT, "there is no network")

    async def create_datagram_endpoint(self, *args: Any, **options: Any) -> Any:
        raise OSError(errno.ENETUNREACH, "there is no network")

    async def getaddrinfo(self, *args: Any, **options: Any) -> Any:
        raise socket.gaierror(socket.EAI_AGAIN, "there is no network")

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return events._get_running_loop() is self

    def is_closed(self) -> bool:
        return False
