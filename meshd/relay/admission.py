"""Asking a coordination server whether a client may use this relay (`POST <url>`)."""

from __future__ import annotations

import asyncio
import re
import ssl
from base64 import b64encode
from urllib.parse import unquote, urlsplit

import h11

from meshd.base.errors import MeshdError, WireError
from meshd.base.keys import NodePublic
from meshd.base.log import get_logger, kv
from meshd.io.listenaddress import is_host
from meshd.wire.control import DERPAdmitRequest, DERPAdmitResponse, decode, encode

log = get_logger(__name__)

TIMEOUT_S = 5.0
MAX_ANSWER_BYTES = 64 * 1024
MAX_QUESTIONS = 64
"""Under way at a time: anybody can make us ask, and each question has a connection, of which the clients leave few."""
_TARGET = re.compile(r"[!-~]+", re.ASCII)


class AskUrl:
    """The admission of a relay that asks at a URL; an unreachable server admits nobody unless `fail_open`."""

    def __init__(self, url: str, *, fail_open: bool = False) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise MeshdError(f"--verify-url: {error}", code="usage") from None
        if parts.scheme not in ("http", "https") or not host or not is_host(host) or not _TARGET.fullmatch(url):
            raise MeshdError(
                f"--verify-url {parts.scheme}://{parts.netloc.rpartition('@')[2]} is not an http(s):// address",
                code="usage",
                hint="Write other letters in the path as %XX, and those of a host name in its form xn--….",
            )
        self._host = host
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = port or (443 if self._tls else 80)
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._authority = parts.netloc.rpartition("@")[2]
        self._credentials: list[tuple[str, str]] = []
        if parts.username is not None:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._credentials.append(("Authorization", f"Basic {b64encode(login.encode()).decode()}"))
        self._places = asyncio.Semaphore(MAX_QUESTIONS)
        self._fail_open = fail_open

    async def __call__(self, key: NodePublic, source_ip: str) -> bool:
        question = encode(DERPAdmitRequest(node_public=key.text(), source=source_ip.partition("%")[0]))
        try:
            async with asyncio.timeout(TIMEOUT_S), self._places:
                status, body = await self._post(question)
            if status != 200:
                raise WireError(f"the server answered with status {status}")
            return decode(DERPAdmitResponse, body).allow
        except (OSError, TimeoutError, WireError, h11.ProtocolError) as error:
            log.warning("admission_not_answered", extra=kv(peer=key, reason=str(error) or "no answer in time"))
            return self._fail_open

    async def _post(self, body: bytes) -> tuple[int, bytes]:
        reader, writer = await asyncio.open_connection(self._host, self._port, ssl=self._tls)
        try:
            http = h11.Connection(h11.CLIENT)
            headers = [
                ("Host", self._authority),
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(body))),
                ("Connection", "close"),
                *self._credentials,
            ]
            writer.write(
                (http.send(h11.Request(method="POST", target=self._target, headers=headers)) or b"")
                + (http.send(h11.Data(data=body)) or b"")
                + (http.send(h11.EndOfMessage()) or b"")
            )
            status, answer = 0, bytearray()
            while True:
                event = http.next_event()
                if event is h11.NEED_DATA:
                    http.receive_data(await reader.read(65536))
                elif isinstance(event, h11.Response):
                    status = event.status_code
                elif isinstance(event, h11.Data):
                    answer += event.data
                    if len(answer) > MAX_ANSWER_BYTES:
                        raise WireError("the answer is too long")
                elif isinstance(event, h11.EndOfMessage):
                    return status, bytes(answer)
                elif isinstance(event, h11.ConnectionClosed):
                    raise WireError("the server hung up")
        finally:
            writer.close()
