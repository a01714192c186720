"""Names that programs of this host want looked up: apart from our own lookups, which they must never hold up.

The event loop looks up few names at a time, and one whose name servers do not answer takes half a minute.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any

from meshd.base.addr import is_address
from meshd.io.threads import start_thread

MAX_LOOKUPS = 16  # at a time, each with a thread

Found = list[tuple[int, Any]]
"""Family and socket address of each address."""


class ClientLookups:
    """Looks up names for clients, few at a time; the others wait for their turn."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(MAX_LOOKUPS)

    async def look_up(self, host: str, port: int) -> Found:
        """The addresses of a name. Raises OSError."""
        await self._slots.acquire()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Found] = loop.create_future()

        def settle(found: Found, error: OSError | None) -> None:
            self._slots.release()  # now, and not when the client leaves: the thread goes on
            if answer.cancelled():
                return
            if error is None:
                answer.set_result(found)
            else:
                answer.set_exception(error)

        def work() -> None:
            found: Found = []
            failure: OSError | None = None
            try:
                found = [(i[0], i[4]) for i in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
            except ValueError:
                failure = socket.gaierror(socket.EAI_NONAME, "there can be no such name")
            except OSError as error:
                failure = error
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, found, failure)

        if start_thread("lookup", work) is None:
            self._slots.release()
            raise OSError(errno.EAGAIN, "no thread to look up a name")
        return await answer

    async def connect(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to a name or address, of which each is tried. Raises OSError."""
        if is_address(host):
            return await asyncio.open_connection(host, port)
        failure: OSError | None = None
        for family, address in await self.look_up(host, port):
            try:
                return await asyncio.open_connection(sock=await _connected(family, address))
            except OSError as error:
                failure = failure or error
        try:
            raise failure or OSError(errno.EADDRNOTAVAIL, "the name has no address")
        finally:
            del failure  # it knows this frame


async def _connected(family: int, address: Any) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock
