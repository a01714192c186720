"""One question to one resolver over UDP or TCP.

Sockets are not marked unless that is asked for: which resolver is reached through the network, and which beside it, is
what the host's routes say. With an exit node chosen nothing is asked in the clear beside it, even while that node is
away.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from meshd.base.addr import AddrPort
from meshd.io.mark import mark_socket
from meshd.wire import dnsresponse

MAX_STRAY = 8
"""Datagrams that are no answer, after which a socket is given up: somebody guesses numbers."""
MAX_MESSAGE = 65535


class UdpQuestion:
    """A question that is under way to a resolver over UDP; ``answered`` has the response, or an OSError. ``close`` it.

    The socket is connected, so that the kernel takes nothing from any other address or port, and from a port that the
    kernel chose at random. What does not fit the question is passed over and told to ``stray``. With ``beside`` the
    question does not go through the network, whatever the routes say. Raises OSError when it cannot leave.
    """

    def __init__(
        self, server: AddrPort, query: bytes, question: bytes, stray: Callable[[], None], *, beside: bool = False
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.answered: asyncio.Future[bytes] = self._loop.create_future()
        self._query = query
        self._question = question
        self._stray = stray
        self._strays = 0
        self._socket = _socket(server, socket.SOCK_DGRAM, beside=beside)
        try:
            self._socket.connect(_place(server))
            self._socket.send(query)
        except OSError:
            self._socket.close()
            raise
        self._loop.add_reader(self._socket.fileno(), self._readable)

    def close(self) -> None:
        """Listen no longer."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
        if self.answered.done() and not self.answered.cancelled():
            self.answered.exception()  # whether anybody asks or not
        self.answered.cancel()

    def _readable(self) -> None:
        try:
            data = self._socket.recv(MAX_MESSAGE)
        except (BlockingIOError, InterruptedError):  # a datagram with a wrong checksum
            return
        except OSError as error:
            self._end(error)
            return
        if is_answer(self._query, self._question, data):
            self._end(data)
            return
        self._stray()
        self._strays += 1
        if self._strays >= MAX_STRAY:
            self._end(ConnectionError("too many datagrams that are no answer"))

    def _end(self, outcome: bytes | OSError) -> None:
        if self.answered.done():
            return
        if isinstance(outcome, bytes):
            self.answered.set_result(outcome)
        else:
            self.answered.set_exception(outcome)


async def ask_tcp(server: AddrPort, query: bytes, question: bytes, *, beside: bool = False) -> bytes:
    """The response of a resolver over a connection of its own; ``beside`` as above. Raises OSError."""
    loop = asyncio.get_running_loop()
    with _socket(server, socket.SOCK_STREAM, beside=beside) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await loop.sock_connect(sock, _place(server))
        await loop.sock_sendall(sock, len(query).to_bytes(2, "big") + query)
        length = int.from_bytes(await _exactly(loop, sock, 2), "big")
        message = await _exactly(loop, sock, length)
    if not is_answer(query, question, message):
        raise ConnectionError("the resolver answered another question")
    return message


def is_answer(query: bytes, question: bytes, message: bytes) -> bool:
    """Whether a message from the resolver that was asked belongs to the question."""
    return dnsresponse.answers(query, question, message) or dnsresponse.answers_without_question(query, message)


def _socket(server: AddrPort, kind: int, *, beside: bool) -> socket.socket:
    family = socket.AF_INET if server.ip.version == 4 else socket.AF_INET6
    made = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    if beside:
        mark_socket(made, server.ip)
    return made


def _place(server: AddrPort) -> tuple[str, int] | tuple[str, int, int, int]:
    """Where a socket connects to. OSError when the zone names no interface of this host."""
    zone = getattr(server.ip, "scope_id", None)
    if zone is None:
        return str(server.ip), server.port
    scope = int(zone) if zone.isdecimal() and len(zone) < 10 else socket.if_nametoindex(zone)
    return str(server.ip).partition("%")[0], server.port, 0, scope


async def _exactly(loop: asyncio.AbstractEventLoop, sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = await loop.sock_recv(sock, count - len(data))
        if not part:
            raise ConnectionError("the resolver closed the connection")
        data += part
    return data
