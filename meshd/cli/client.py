"""The command line's side of the LocalAPI: a small blocking HTTP/1.1 client over a Unix socket.

Written for a fast start: `http.client`, `urllib.request` and an event loop would cost more than most commands take.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

from meshd.base.version import long_version
from meshd.cli.errors import AccessDenied, ApiError, CliError, NotRunning

JSON = dict[str, Any]

DEFAULT_SOCKET = "/run/meshd/meshd.sock"

_HOST = "local-tailscaled.sock"
_MAX_HEADER_LINES = 100
_MAX_LINE = 64 * 1024


class Answer:
    """Status, headers (lower-case names) and body of a response."""

    __slots__ = ("body", "headers", "reason", "status")

    def __init__(self, status: int, reason: str, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.reason = reason
        self.headers = headers
        self.body = body


class LocalClient:
    """Talks to the daemon behind `path`. Every call opens its own connection."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._warned = False

    # -- the routes that commands use ------------------------------------------------------------------------

    def status(self, *, peers: bool = True) -> JSON:
        """The daemon's status."""
        return self._object(self.call("GET", "status" if peers else "status?peers=false").body)

    def prefs(self) -> JSON:
        """The daemon's preferences."""
        return self._object(self.call("GET", "prefs").body)

    def edit_prefs(self, masked: JSON) -> JSON:
        """Change the preferences marked in `masked`."""
        return self._object(self.call("PATCH", "prefs", masked).body)

    def check_prefs(self, prefs: JSON) -> None:
        """CliError when the daemon would not accept these preferences."""
        complaint = self._object(self.call("POST", "check-prefs", prefs).body).get("Error")
        if complaint:
            raise CliError(str(complaint))

    def json(self, method: str, name: str, *, timeout: float | None = None) -> Any:
        """Any route that answers JSON."""
        return self._parse(self.call(method, name, timeout=timeout).body)

    def watch(self, mask: int) -> Watcher:
        """Notifies from now on."""
        sock, reader = self._open(None)
        try:
            self._send(sock, "GET", f"watch-ipn-bus?mask={mask}", b"")
            status, reason, headers = self._read_head(reader)
            if status != 200:
                raise self._error(Answer(status, reason, headers, _read_body(reader, headers)))
        except BaseException:
            sock.close()
            raise
        return Watcher(sock, reader, chunked="chunked" in headers.get("transfer-encoding", ""))

    # -- transport -------------------------------------------------------------------------------------------

    def call(self, method: str, name: str, body: JSON | None = None, *, timeout: float | None = None) -> Answer:
        """One request to /localapi/v0/`name`.

        Raises:
            NotRunning, AccessDenied, ApiError: see there. TimeoutError: no answer within `timeout` seconds.
        """
        sock, reader = self._open(timeout)
        try:
            self._send(sock, method, name, b"" if body is None else json.dumps(body).encode())
            status, reason, headers = self._read_head(reader)
            answer = Answer(status, reason, headers, _read_body(reader, headers))
        except TimeoutError:
            raise
        except (OSError, ValueError) as error:
            raise CliError(f"lost the connection to local meshd: {error}") from None
        finally:
            reader.close()
            sock.close()
        self._check_version(headers)
        if status >= 300:
            raise self._error(answer)
        return answer

    def _open(self, timeout: float | None) -> tuple[socket.socket, BinaryIO]:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(self.path)
        except OSError as error:
            sock.close()
            raise self._unreachable(error) from None
        sock.settimeout(timeout)
        return sock, sock.makefile("rb")

    def _unreachable(self, error: OSError) -> NotRunning:
        if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
            hint = " (sudo systemctl start meshd ?)" if os.path.isdir("/run/systemd/system") else ""
            where = "" if self.path == DEFAULT_SOCKET else f" at {self.path}"
            return NotRunning(f"failed to connect to local meshd{where}; it doesn't appear to be running{hint}")
        return NotRunning(f"failed to connect to local meshd at {self.path}: {error.strerror or error}")

    def _send(self, sock: socket.socket, method: str, name: str, body: bytes) -> None:
        head = f"{method} /localapi/v0/{name} HTTP/1.1\r\nHost: {_HOST}\r\nConnection: close\r\n"
        if method != "GET":
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        sock.sendall(head.encode() + b"\r\n" + body)

    def _read_head(self, reader: BinaryIO) -> tuple[int, str, dict[str, str]]:
        line = reader.readline(_MAX_LINE).decode("latin-1")
        version, _, rest = line.strip().partition(" ")
        code, _, reason = rest.partition(" ")
        if not version.startswith("HTTP/1.") or not code.isdigit():
            raise ValueError("it did not answer in HTTP" if line else "it closed the connection")
        headers: dict[str, str] = {}
        for _ in range(_MAX_HEADER_LINES):
            line = reader.readline(_MAX_LINE).decode("latin-1").strip()
            if not line:
                return int(code), reason, headers
            key, _, value = line.partition(":")
            headers[key.strip().lower()] = value.strip()
        raise ValueError("it sent too many headers")

    def _check_version(self, headers: dict[str, str]) -> None:
        version = headers.get("tailscale-version", "")
        if version and version != long_version() and not self._warned:
            self._warned = True
            sys.stderr.write(f'Warning: client version "{long_version()}" != meshd server version "{version}"\n')

    def _error(self, answer: Answer) -> CliError:
        text = answer.body.decode("utf-8", "replace").strip()
        message = ""
        if text.startswith("{"):
            try:
                parsed = json.loads(text)
            except ValueError:
                parsed = {}
            message = str(parsed.get("error") or parsed.get("Error") or "")
        if answer.status == 403:
            return AccessDenied(f"Access denied: {message or text}")
        return ApiError(answer.status, message or f"{answer.status} {answer.reason}: {text}")

    def _object(self, body: bytes) -> JSON:
        value = self._parse(body)
        if not isinstance(value, dict):
            raise CliError("local meshd answered something else than a JSON object")
        return value

    def _parse(self, body: bytes) -> Any:
        try:
            return json.loads(body)
        except ValueError as error:
            raise CliError(f"local meshd answered something that is not JSON: {error}") from None


class Watcher:
    """An open notify stream."""

    def __init__(self, sock: socket.socket, reader: BinaryIO, *, chunked: bool) -> None:
        self._sock = sock
        self._reader = reader
        self._chunks = _chunks(reader) if chunked else iter(lambda: reader.read1(_MAX_LINE), b"")  # type: ignore[attr-defined]
        self._buffer = b""

    def next(self, timeout: float | None) -> JSON | None:
        """The next notify, None when the daemon closed the stream. TimeoutError after `timeout` seconds."""
        while b"\n" not in self._buffer:
            if timeout is not None and timeout <= 0:
                raise TimeoutError
            self._sock.settimeout(timeout)
            try:
                part = next(self._chunks, b"")
            except TimeoutError:
                raise
            except (OSError, ValueError):
                return None
            if not part:
                return None
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            value = json.loads(line)
        except ValueError as error:
            raise CliError(f"local meshd sent a notify that is not JSON: {error}") from None
        return value if isinstance(value, dict) else {}

    def close(self) -> None:
        """End the stream."""
        self._reader.close()
        self._sock.close()


def _read_body(reader: BinaryIO, headers: dict[str, str]) -> bytes:
    if "chunked" in headers.get("transfer-encoding", ""):
        return b"".join(_chunks(reader))
    length = headers.get("content-length")
    if length is None:
        return reader.read()
    body = reader.read(int(length))
    if len(body) != int(length):
        raise ValueError("it closed the connection in the middle of an answer")
    return body


def _chunks(reader: BinaryIO) -> Iterator[bytes]:
    """The chunks of a chunked body (RFC 9112 7.1)."""
    while True:
        line = reader.readline(_MAX_LINE)
        size = int(line.partition(b";")[0].strip() or b"-", 16)
        if size == 0:
            while reader.readline(_MAX_LINE).strip():
                pass
            return
        data = reader.read(size)
        if len(data) != size:
            raise ValueError("it closed the connection in the middle of an answer")
        reader.readline(_MAX_LINE)
        yield data
