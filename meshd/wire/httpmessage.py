"""A whole HTTP/1 request inside a message, and the answer to it as bytes: how a server calls one of its nodes."""

from __future__ import annotations

from urllib.parse import parse_qsl

import msgspec

from meshd.base.errors import WireError
from meshd.wire.requesttarget import read_target

MAX_PARAMETERS = 64
FORM = "application/x-www-form-urlencoded"
TEXT, JSON = "text/plain; charset=utf-8", "application/json"
_REASONS = {
    200: "OK",
    204: "No Content",
    400: "Bad Request",
    405: "Method Not Allowed",
    500: "Internal Server Error",
    501: "Not Implemented",
}


class MessageRequest(msgspec.Struct, frozen=True):
    """What a payload asks for; ``form`` has the parameters of the query and, before those, of a form in the body."""

    method: str
    path: str
    body: bytes
    form: dict[str, str]
    """The first value of each."""
    parameters: tuple[tuple[str, str], ...] = ()
    """All of them."""


class MessageResponse(msgspec.Struct, frozen=True):
    """An answer."""

    status: int
    body: bytes = b""
    content_type: str = TEXT


def read_request(payload: bytes) -> MessageRequest:
    """Raises WireError when ``payload`` is not one request with all of its body."""
    import h11  # the server calls rarely

    connection = h11.Connection(h11.SERVER)
    method, target, content_type, body = "", "", "", bytearray()
    try:
        connection.receive_data(payload)
        connection.receive_data(b"")
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Request):
                method, target = event.method.decode("ascii"), event.target.decode("ascii")
                content_type = dict(event.headers).get(b"content-type", b"").decode("latin-1")
            elif isinstance(event, h11.Data):
                body += event.data
            else:
                raise WireError("no request")
    except (h11.RemoteProtocolError, UnicodeDecodeError) as error:
        raise WireError(f"no HTTP request: {error}") from None
    try:
        asked = read_target(target)
    except ValueError as error:
        raise WireError(f"no HTTP request: its target is {error}") from None
    pairs: list[tuple[str, str]] = []
    try:
        if content_type.partition(";")[0].strip().lower() == FORM:
            pairs += parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=MAX_PARAMETERS)
        pairs += parse_qsl(asked.query, keep_blank_values=True, max_num_fields=MAX_PARAMETERS)
    except ValueError:
        raise WireError(f"more than {MAX_PARAMETERS} parameters") from None
    form: dict[str, str] = {}
    for name, value in pairs:
        form.setdefault(name, value)
    return MessageRequest(method, asked.path, bytes(body), form, tuple(pairs))


def write_response(response: MessageResponse) -> bytes:
    """The answer as HTTP/1.1; it ends where the data ends."""
    lines = [f"HTTP/1.1 {response.status} {_REASONS.get(response.status, 'Status')}", "Connection: close"]
    if response.status != 204:
        lines.append(f"Content-Type: {response.content_type}")
    return "\r\n".join([*lines, "", ""]).encode() + (response.body if response.status != 204 else b"")
