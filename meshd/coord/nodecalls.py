"""Calls of the server to a node: the request goes out with its map stream, the answer comes as a request of the node.

Only the machine that was asked can answer, once, to the address that it was given.
"""

from __future__ import annotations

import asyncio
import secrets

from meshd.base.errors import MeshdError, WireError
from meshd.base.keys import MachinePublic
from meshd.coord.distributor import Distributor
from meshd.coord.records import NodeRecord
from meshd.wire.control import PingRequest, encode

PATH = "/machine/c2n/"
TIMEOUT_S = 20.0
MAX_WAITING = 64
"""Calls under way at a time; they are an administrator's."""
MAX_ANSWER_BYTES = 1024 * 1024


class NodeCalls:
    """The calls that wait for an answer."""

    def __init__(self, distributor: Distributor) -> None:
        self._distributor = distributor
        self._waiting: dict[str, tuple[str, asyncio.Future[bytes]]] = {}

    async def call(self, node: NodeRecord, request: bytes) -> bytes:
        """Send a serialized HTTP request to a node; its serialized answer. MeshdError when there is none."""
        stream = self._distributor.stream_of(node.id)
        if stream is None:
            raise MeshdError(f"{node.name} is not connected", code="offline")
        if len(self._waiting) >= MAX_WAITING:
            raise MeshdError("too many calls to nodes are under way", code="busy")
        token = secrets.token_hex(16)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[token] = node.machine_key, answer
        ping = PingRequest(url=f"https://unused{PATH}{token}", url_is_noise=True, types="c2n", payload=request)
        try:
            stream.tell(b'{"PingRequest":' + encode(ping) + b"}")
            async with asyncio.timeout(TIMEOUT_S):
                return await answer
        except TimeoutError:
            raise MeshdError(f"{node.name} does not answer", code="silent") from None
        finally:
            del self._waiting[token]

    def answered(self, machine: MachinePublic, token: str, body: bytes) -> bool:
        """A machine answers; False when nobody asked it that."""
        asked, answer = self._waiting.get(token, ("", None))
        if answer is None or asked != machine.text() or answer.done():
            return False
        answer.set_result(body)
        return True


def split_answer(answer: bytes) -> tuple[int, bytes]:
    """Status and body of a serialized answer that ends with its data. WireError when it is none."""
    head, blank, body = answer.partition(b"\r\n\r\n")
    words = head.partition(b"\r\n")[0].split(b" ", 2)
    if not blank or len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        raise WireError("the node's answer is no HTTP response")
    return int(words[1][:3]), body


def serialized(method: str, path: str, body: bytes) -> bytes:
    """One request. MeshdError for what cannot stand in a request line."""
    if not path.startswith("/") or not path.isascii() or not path.isprintable() or " " in path:
        raise MeshdError(f"{path[:80]!r} is not a path", code="usage", hint="Write it like /debug/health.")
    if not method.isascii() or not method.isalpha():
        raise MeshdError(f"{method[:20]!r} is not a method", code="usage", hint="GET or POST.")
    return f"{method.upper()} {path} HTTP/1.1\r\nHost: node\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
