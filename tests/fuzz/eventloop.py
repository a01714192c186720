"""An event loop without I/O for fuzz targets: a connection lives and dies within one execution.

Time is simulated, and nothing of one execution may be left for the next.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from tests.fuzz.nulloop import NullLoop

_LOG = logging.getLogger("meshd")
PAUSE_S = 0.01
LONG_S = 1000.0
"""Longer than any timeout of a connection."""


class Complaints(logging.Handler):
    """Collects what is logged as an error: no input of a stranger may cause that."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info:
            text += " " + logging.Formatter().formatException(record.exc_info)
        self.texts.append(text)

    def unhandled(self, context: dict[str, Any]) -> None:
        """Takes what a loop calls its exception handler with."""
        self.texts.append(f"{context.get('message')} {context.get('exception')!r}")


class Bench:
    """Runs coroutines, each in a loop and at a time of its own."""

    def __init__(self) -> None:
        self._complaints = Complaints()

    def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run a coroutine, then let time pass until everything it began is over."""
        complaints = self._complaints
        if complaints not in _LOG.handlers:
            _LOG.addHandler(complaints)
        complaints.texts.clear()
        loop = NullLoop(complaints.unhandled)
        loop.run_until_complete(_whole(loop, work))
        left = [repr(task.get_coro()) for task in loop.pending()]
        for task in loop.pending():
            task.cancel()
        loop.forget_tasks()
        assert not complaints.texts, list(complaints.texts)
        assert not left, left


async def _whole(loop: NullLoop, work: Callable[[], Awaitable[None]]) -> None:
    await work()
    await asyncio.sleep(PAUSE_S)
    if len(loop.pending()) > 1:
        await asyncio.sleep(LONG_S)


BENCH = Bench()


def parts_of(data: bytes) -> tuple[bytes, bytes]:
    """The data in two parts; where they are cut depends on the data."""
    cut = data[-1] * 7 % (len(data) + 1) if data else 0
    return data[:cut], data[cut:]


class Wire(asyncio.Transport):
    """The transport under a protocol: takes everything that is written, loses the connection when told."""

    def __init__(self, protocol: Any) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._protocol = protocol
        self._closing = False
        self.written = bytearray()
        protocol.connection_made(self)

    async def feed(self, data: bytes) -> None:
        """What the other side sends, in two parts, and its end."""
        for part in parts_of(data):
            if part and not self._closing:
                self._protocol.data_received(part)
                await asyncio.sleep(PAUSE_S)
        if not self._closing and not self._protocol.eof_received():
            self.close()
        await asyncio.sleep(PAUSE_S)
        self.close()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()

    def set_protocol(self, protocol: Any) -> None:
        self._protocol = protocol

    def get_protocol(self) -> Any:
        return self._protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("192.0.2.1", 5) if name in ("peername", "sockname") else default

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass
