"""HTTP/1.1 from the client's side, one exchange per connection, over any byte stream.

`fetch` reads a whole bounded answer; `upgrade` stops after the head of a 101 (or of the answer to CONNECT)
and hands back the bytes that already belong to the next protocol.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from meshd.base.errors import MeshdError
from meshd.io.streams import ByteStream

MAX_HEAD = 64 * 1024  # bytes of status line and header fields
MAX_ERROR_BODY = 4096  # bytes read of an answer whose content is only shown


class Answer(msgspec.Struct, frozen=True):
    """``headers`` has lower-case names, the last of equal ones; ``rest`` are bytes after the head."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    rest: bytes = b""


Headers = Sequence[tuple[str, str]]


async def fetch(
    stream: ByteStream, method: str, target: str, headers: Headers, body: bytes = b"", *, limit: int
) -> Answer:
    """Send a request, read the whole answer. Raises MeshdError ``http``; the stream is used up."""
    if body:
        headers = [*headers, ("Content-Length", str(len(body)))]
    return await _exchange(stream, method, target, headers, body, limit, switching=False)


async def upgrade(stream: ByteStream, method: str, target: str, headers: Headers) -> Answer:
    """Ask for another protocol. On any answer that refuses, ``body`` holds its beginning."""
    return await _exchange(stream, method, target, headers, b"", MAX_ERROR_BODY, switching=True)


async def _exchange(
    stream: ByteStream, method: str, target: str, headers: Headers, content: bytes, limit: int, *, switching: bool
) -> Answer:
    import h11

    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
    try:
        request = h11.Request(method=method, target=target, headers=list(headers))
        stream.write(connection.send(request) or b"")
        if content:
            stream.write(connection.send(h11.Data(data=content)) or b"")
        stream.write(connection.send(h11.EndOfMessage()) or b"")
        await stream.drain()
        head: h11.Response | h11.InformationalResponse | None = None
        body = bytearray()
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                data = await stream.read()
                if not data and head is None and not connection.trailing_data[0]:
                    raise _broken("the connection was closed before an answer came")
                connection.receive_data(data)
            elif isinstance(event, h11.InformationalResponse) and event.status_code == 101:
                return _answer(event, b"", connection.trailing_data[0])
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > limit:
                    if not switching:
                        raise _broken(f"the answer is longer than {limit} bytes")
                    break
            elif event is h11.PAUSED or isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
                break
    except h11.RemoteProtocolError as error:
        raise _broken(f"what came back is not HTTP: {error}") from None
    except ConnectionError as error:
        raise _broken(f"the connection broke: {error}") from None
    if head is None:
        raise _broken("the connection was closed before an answer came")
    return _answer(head, bytes(body[:limit]), connection.trailing_data[0] if switching else b"")


def _answer(head: object, body: bytes, rest: bytes) -> Answer:
    status: int = getattr(head, "status_code", 0)
    pairs = getattr(head, "headers", ())
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in pairs}
    return Answer(status, headers, body, rest)


def _broken(reason: str) -> MeshdError:
    return MeshdError(reason, code="http")
