"""Questions that come over one TCP connection (RFC 7766): answered as soon as each is ready."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from meshd.base.log import get_logger, kv
from meshd.node.dnsresolver import Asking, NodeResolver

log = get_logger(__name__)

IDLE_S = 20.0  # a connection without a question for so long is closed
MAX_QUESTION = 4096
"""Bytes of a question: nobody has a longer one."""
MAX_WAITING = 16
"""Questions of a connection that are under way; more are not read until then."""


class DnsStream:
    """One connection, from now on until it is closed. ``used`` is told of every question, ``gone`` of the end."""

    def __init__(
        self,
        resolver: NodeResolver,
        sock: socket.socket,
        used: Callable[[DnsStream], None],
        gone: Callable[[DnsStream], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._resolver = resolver
        self._sock = sock
        self._used = used
        self._gone = gone
        self._asking: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(MAX_WAITING)
        self._sending = asyncio.Lock()
        self._task = self._loop.create_task(self._run())
        self._task.add_done_callback(self._ended)

    @property
    def waiting(self) -> int:
        """Questions under way."""
        return len(self._asking)

    def abort(self) -> None:
        """End it now."""
        self._task.cancel()

    async def _run(self) -> None:
        try:
            while True:
                async with asyncio.timeout(IDLE_S):
                    message = await self._message()
                    if message is None:
                        break
                    await self._room.acquire()
                self._used(self)
                task = self._loop.create_task(self._answer(message))
                self._asking.add(task)
                task.add_done_callback(self._answered)
            await self._finish()
        except (OSError, TimeoutError):
            pass
        finally:
            for task in self._asking:
                task.cancel()
            await self._finish()  # they must let go of the socket before it is closed

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._sock.close()
        self._gone(self)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("dns_connection_failed", extra=kv(reason=repr(error)))

    async def _finish(self) -> None:
        """A client may close its side first and still wait for answers."""
        if self._asking:
            await asyncio.wait(list(self._asking))

    async def _message(self) -> bytes | None:
        head = await self._exactly(2)
        if head is None:
            return None
        length = int.from_bytes(head, "big")
        if length > MAX_QUESTION:
            self._resolver.counters["dns_malformed"] += 1
            return None
        return await self._exactly(length)

    async def _exactly(self, count: int) -> bytes | None:
        data = b""
        while len(data) < count:
            part = await self._loop.sock_recv(self._sock, count - len(data))
            if not part:
                return None
            data += part
        return data

    async def _answer(self, message: bytes) -> None:
        found = self._resolver.look(message, tcp=True)
        response = await self._resolver.ask(found) if isinstance(found, Asking) else found
        if response is None:
            return
        async with self._sending, asyncio.timeout(IDLE_S):
            await self._loop.sock_sendall(self._sock, len(response).to_bytes(2, "big") + response)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._asking.discard(task)
        self._room.release()
        if task.cancelled() or (error := task.exception()) is None:
            return
        if not isinstance(error, OSError):
            log.error("dns_question_failed", extra=kv(reason=repr(error)))
        self._task.cancel()  # a client that does not read, or is gone
