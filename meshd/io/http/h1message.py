"""What an HTTP/1.1 server handler is given and what it returns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager
from http import HTTPStatus
from typing import Protocol
from urllib.parse import parse_qsl, unquote

import msgspec

from meshd.io.peercred import PeerIdentity

Headers = list[tuple[str, str]]
"""Header fields in order; names in any case on the way out, lower case on the way in."""

TakeOver = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""What goes on with the bytes of a connection after 101 Switching Protocols; it owns and closes the writer."""


class HttpError(Exception):
    """A refusal: `status`, and `text` as the plain-text body. `headers` are added to the response."""

    def __init__(self, status: int, text: str, headers: Headers | None = None) -> None:
        super().__init__(f"{status} {text}")
        self.status = status
        self.text = text
        self.headers = headers or []


class ClientGone(Exception):
    """The client closed its side; nobody is left to answer. Handlers let it pass."""


class ConnectionSide(Protocol):
    """What a request needs of the connection that it came on."""

    async def read_body_part(self, patience_s: float | None = None) -> bytes:
        """The next bytes of the request body, b"" at its end. Without `patience_s` the server's limit holds."""
        ...

    def cancel_if_gone(self) -> AbstractContextManager[None]: ...


class Request(msgspec.Struct):
    """One request. `path` is percent-decoded, `raw_path` as sent; `query` keeps order and repeats."""

    method: str
    raw_path: str
    query: list[tuple[str, str]]
    headers: Headers
    peer: PeerIdentity | None
    """Who connected; None on TCP, or where the system did not tell."""
    body_limit: int
    """Bytes of body that `body()` accepts."""
    _side: ConnectionSide
    _body: bytes | None = None
    _form: list[tuple[str, str]] | None = None

    @property
    def path(self) -> str:
        return unquote(self.raw_path)

    def header(self, name: str) -> str:
        """The first header of that (lower-case) name, "" when absent."""
        return next((value for key, value in self.headers if key == name), "")

    async def parts(self, patience_s: float | None = None) -> AsyncIterator[bytes]:
        """The body as it arrives, of any length. HttpError 408 when a part is not there in time: `patience_s`, or else
        the server's limit."""
        while part := await self._side.read_body_part(patience_s):
            yield part

    async def body(self) -> bytes:
        """The whole body.

        Raises:
            HttpError: 413 when it is longer than `body_limit`.
        """
        if self._body is None:
            declared = self.header("content-length")
            if declared.isascii() and declared.isdigit() and int(declared) > self.body_limit:
                raise self._too_large()
            collected = bytearray()
            async for part in self.parts():
                collected += part
                if len(collected) > self.body_limit:
                    raise self._too_large()
            self._body = bytes(collected)
        return self._body

    async def value(self, name: str) -> str:
        """A parameter from a url-encoded body or else from the query; "" when absent."""
        if self._form is None:
            form: list[tuple[str, str]] = []
            if self.header("content-type").partition(";")[0].strip().lower() == "application/x-www-form-urlencoded":
                form = parse_query((await self.body()).decode("utf-8", "replace"))
            self._form = form + self.query
        return next((value for key, value in self._form if key == name), "")

    def cancel_if_gone(self) -> AbstractContextManager[None]:
        """A `with` block that is cancelled, and raises ClientGone, once the client closes its side.

        For waits that only make sense while somebody listens. Work that must be finished stays outside.
        """
        return self._side.cancel_if_gone()

    def _too_large(self) -> HttpError:
        return HttpError(413, f"request body too large, the limit is {self.body_limit} bytes")


class Response(msgspec.Struct):
    """An answer. A bytes body is sent with its length, an iterator as chunks, each as soon as it is there.

    An iterator is closed (`aclose`) when the client leaves, or closes its half; one that `ends` soon by itself is sent
    to the end to a client that has closed its half. With `take_over` the status must be 101, and the
    connection is handed over after the headers. When that cannot be, `abandon` is called in its place.
    """

    status: int = 200
    headers: Headers = msgspec.field(default_factory=list)
    body: bytes | AsyncIterator[bytes] = b""
    take_over: TakeOver | None = None
    abandon: Callable[[], None] | None = None
    ends: bool = False


def text_response(status: int, text: str) -> Response:
    """A plain-text answer, one line feed added."""
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("X-Content-Type-Options", "nosniff")]
    return Response(status, headers, text.encode() + b"\n")


def reason_phrase(status: int) -> str:
    """The words beside a status; servers behind us may use ones that are in no book."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def parse_query(text: str) -> list[tuple[str, str]]:
    """Query or form parameters; HttpError 400 when there are unreasonably many."""
    try:
        return parse_qsl(text, keep_blank_values=True, max_num_fields=100)
    except ValueError as error:
        raise HttpError(400, "too many parameters") from error
