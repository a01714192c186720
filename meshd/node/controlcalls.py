"""The requests of the control protocol on an open connection, with what can go wrong put into words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from meshd.base.errors import MeshdError, WireError
from meshd.base.log import get_logger, kv
from meshd.wire.control import (
    ZERO_NODE_KEY,
    MapRequest,
    MapResponse,
    RegisterRequest,
    RegisterResponse,
    decode,
    encode,
)
from meshd.wire.mapframe import KEEP_ALIVE_JSON, MapFrameReader

if TYPE_CHECKING:
    from meshd.io.http.h2client import Exchange, H2Client

log = get_logger(__name__)

REGISTER_LIMIT = 1024 * 1024  # bytes of an answer to register
UPDATE_LIMIT = 64 * 1024 * 1024  # some servers answer an update with a whole map, which is thrown away
UPDATE_TIMEOUT = 60.0  # s
TOGETHER_BYTES = 256 * 1024  # of JSON: messages of one read beyond this are not held back for one another
ERROR_LIMIT = 64 * 1024  # bytes read of an error answer
ERROR_SHOWN = 200  # characters of it that are shown

_KEEP_ALIVE = MapResponse(keep_alive=True)


class StatusError(MeshdError):
    """The server answered with another status than 200; ``retry_after`` is the header, unread."""

    def __init__(self, message: str, *, code: str, hint: str | None, status: int, retry_after: str) -> None:
        super().__init__(message, code=code, hint=hint, status=status)
        self.status = status
        self.retry_after = retry_after


async def register(client: H2Client, request: RegisterRequest) -> RegisterResponse:
    """POST /machine/register. Waits as long as the server does. Raises MeshdError."""
    keys = [key for key in (request.old_node_key, request.node_key) if key != ZERO_NODE_KEY]
    headers = [("content-type", "application/json"), *(("ts-lb", key) for key in keys)]
    log.debug(
        "register_sent",
        extra=kv(
            new_key=request.old_node_key != ZERO_NODE_KEY,
            with_auth_key=request.auth is not None,
            followup=bool(request.followup),
        ),
    )
    exchange = _open(client, "/machine/register", headers, encode(request))
    try:
        await _accept(exchange, "the login")
        answer = decode(RegisterResponse, await exchange.read_all(REGISTER_LIMIT))
        log.debug(
            "register_answered",
            extra=kv(
                authorized=answer.machine_authorized,
                key_expired=answer.node_key_expired,
                page=bool(answer.auth_url),
                error=answer.error[:ERROR_SHOWN],
            ),
        )
        return answer
    except WireError as error:
        raise unreadable("login", error) from None
    except ConnectionError as error:
        raise broken(error) from None
    finally:
        exchange.cancel()


async def map_stream(client: H2Client, request: MapRequest) -> AsyncIterator[list[MapResponse]]:
    """POST /machine/map as a long poll; yields decoded messages, as many as came at once, until MeshdError says why it
    ended. A message that cannot be decoded ends it after those before it were yielded."""
    headers = [("content-type", "application/json"), ("ts-lb", request.node_key)]
    exchange = _open(client, "/machine/map", headers, encode(request))
    try:
        await _accept(exchange, "the network map")
        frames = MapFrameReader(zstd=request.compress == "zstd")
        while data := await exchange.read():
            messages: list[MapResponse] = []
            size = 0
            failure: WireError | None = None
            try:
                for message in frames.messages(data):
                    messages.append(_KEEP_ALIVE if message == KEEP_ALIVE_JSON else decode(MapResponse, message))
                    size += len(message)
                    if size > TOGETHER_BYTES:
                        yield messages
                        messages, size = [], 0
            except WireError as error:
                failure = error
            if messages:
                yield messages
            if failure is not None:
                raise failure
            message, messages, data = b"", [], b""  # the next ones may be a minute away, and these a whole network
        raise MeshdError("the coordination server ended the map stream", code="control-closed")
    except WireError as error:
        raise unreadable("map", error) from None
    except ConnectionError as error:
        raise broken(error) from None
    finally:
        exchange.cancel()


async def update(client: H2Client, request: MapRequest) -> None:
    """POST /machine/map as a lite update. Raises MeshdError."""
    headers = [("content-type", "application/json"), ("ts-lb", request.node_key)]
    exchange = _open(client, "/machine/map", headers, encode(request))
    try:
        await _accept(exchange, "an update")
        size = 0
        while data := await exchange.read():
            size += len(data)
            if size > UPDATE_LIMIT:
                raise ConnectionError("the answer to an update does not end")
    except ConnectionError as error:
        raise broken(error) from None
    finally:
        exchange.cancel()


async def call(client: H2Client, method: str, path: str, body: bytes) -> tuple[int, bytes]:
    """Any other request, answered as the server answers it: status and body. Raises MeshdError."""
    headers = [("content-type", "application/json")]
    try:
        exchange = client.open(method, path, headers, body)
    except ConnectionError as error:
        raise broken(error) from None
    try:
        return await exchange.head(), await exchange.read_all(REGISTER_LIMIT)
    except ConnectionError as error:
        raise broken(error) from None
    finally:
        exchange.cancel()


def broken(error: ConnectionError) -> MeshdError:
    """The connection went while something was under way."""
    return MeshdError(f"the connection to the coordination server broke: {error}", code="control-closed")


def unreadable(what: str, error: WireError) -> MeshdError:
    """The server sent something that no server may send."""
    return MeshdError(
        f"the coordination server sent an unreadable {what} answer: {error}",
        code="control-garbage",
        hint="This is a fault of the server or of something between; meshd keeps trying.",
    )


def _open(client: H2Client, path: str, headers: list[tuple[str, str]], body: bytes) -> Exchange:
    try:
        return client.open("POST", path, headers, body)
    except ConnectionError as error:
        raise broken(error) from None


async def _accept(exchange: Exchange, what: str) -> None:
    """Wait for the head of the answer; anything but 200 is an error with the server's own words."""
    status = await exchange.head()
    if status == 200:
        return
    try:
        body = await exchange.read_all(ERROR_LIMIT)
    except ConnectionError:
        body = b""
    text = body.decode("utf-8", "replace")[:ERROR_SHOWN]
    words = "".join(c if c.isprintable() else " " for c in text).strip()
    code, hint = "control-status", None
    if "version" in words.lower():
        code = "control-version"
        hint = "The server does not support this client's protocol version; upgrade meshd (or the server)."
    elif status == 404 and what != "the login":
        hint = "The server does not know this node (any more). Log in again with: mesh up --force-reauth"
    raise StatusError(
        f"the coordination server refused {what}: HTTP {status}" + (f": {words}" if words else ""),
        code=code,
        hint=hint,
        status=status,
        retry_after=exchange.headers.get("retry-after", ""),
    )
