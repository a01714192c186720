"""The route that streams the daemon's own log, as lines of JSON."""

from __future__ import annotations

import asyncio
import logging

from meshd.base.log import KeyValueFormatter
from meshd.feature.localapi.jsontext import compact
from meshd.feature.localapi.route import Access, Call, Route
from meshd.io.http.h1server import Response

QUEUE_LINES = 16
"""Lines a reader may lag behind; what comes then is dropped and counted."""


class _Tap(logging.Handler):
    """Log lines from the call on. Records may come from any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.setFormatter(KeyValueFormatter())
        self._loop = loop
        self._queue: asyncio.Queue[str] = asyncio.Queue(QUEUE_LINES)
        self._lost = 0
        self._queue.put_nowait("[logtap connected]")
        logging.getLogger("meshd").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._put, line)

    def _put(self, line: str) -> None:
        if self._queue.full():
            self._lost += 1
            return
        if self._lost:
            line, self._lost = f"[{self._lost} lines lost]\n{line}", 0
        self._queue.put_nowait(line)

    def __aiter__(self) -> _Tap:
        return self

    async def __anext__(self) -> bytes:
        return compact({"text": await self._queue.get() + "\n"})

    async def aclose(self) -> None:
        logging.getLogger("meshd").removeHandler(self)


async def _logtap(call: Call) -> Response:
    del call
    return Response(200, [("Content-Type", "text/plain; charset=utf-8")], _Tap(asyncio.get_running_loop()))


ROUTES = [
    Route("logtap", _logtap, Access.WRITE, "logtap access denied", methods=("GET",), wrong_method=(405, "GET required"))
]
