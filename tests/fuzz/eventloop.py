"""An event loop without I/O for fuzz targets: a connection lives and dies within one execution.

Time is simulated, and nothing of one execution may be left for the next.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from meshd.testing.clock import FakeClock
from meshd.testing.loop import FakeTimeLoop

PAUSE_S = 0.01
LONG_S = 1000.0
"""Longer than any timeout of a connection."""
OLD_S = 1e5


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


class Bench:
    """A loop in simulated time; made at first use, so that importing the targets costs nothing."""

    def __init__(self) -> None:
        self._loop: FakeTimeLoop | None = None
        self._complaints = Complaints()

    def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run a coroutine, then let time pass until everything it began is over."""
        if self._loop is None or self._loop.time() > OLD_S:
            self._renew()
        assert self._loop is not None
        self._complaints.texts.clear()
        self._loop.run_until_complete(self._whole(work))
        left = [repr(task.get_coro()) for task in asyncio.all_tasks(self._loop)]
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        assert not self._complaints.texts, list(self._complaints.texts)
        assert not left, left

    def _renew(self) -> None:
        """A new loop at time 0: after years of simulated time a float cannot tell short delays apart."""
        log = logging.getLogger("meshd")
        if self._loop is not None:
            self._loop.close()
            log.removeHandler(self._complaints)
        self._loop = FakeTimeLoop(FakeClock())
        self._loop.set_exception_handler(self._unhandled)
        log.addHandler(self._complaints)

    async def _whole(self, work: Callable[[], Awaitable[None]]) -> None:
        await work()
        await asyncio.sleep(PAUSE_S)
        if len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(LONG_S)

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._complaints.texts.append(f"{context.get('message')} {context.get('exception')!r}")


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
