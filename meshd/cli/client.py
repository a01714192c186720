"""The command line's side of the LocalAPI: a small blocking HTTP/1.1 client over a Unix socket.

Written for a fast start: `http.client`, `urllib.request` and an event loop would cost more than most commands take.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import time
from base64 import b64encode
from typing import Any, BinaryIO

from meshd.base.socketpath import DEFAULT_SOCKET
from meshd.base.version import long_version
from meshd.cli.daemonprocess import daemon_is_starting, find_daemons
from meshd.cli.errors import AccessDenied, ApiError, CliError, LeftToUs, NotRunning
from meshd.cli.stream import JSON, MAX_LINE, Stream, Watcher, read_body

__all__ = ["DEFAULT_SOCKET", "JSON", "Answer", "LocalClient", "Stream", "Watcher"]

_HOST = "local-tailscaled.sock"
_PREFIX = "/localapi/v0/"
_MAX_HEADER_LINES = 100
_PIECE = 64 * 1024
_ABSENT = frozenset((errno.ENOENT, errno.ECONNREFUSED))
_RETRY_S = 0.05


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
        self.reason = ""
        """Why the user does what the next calls ask for, where a policy of the daemon's machine wants to know."""
        self.deadline: float | None = None
        """When the answers of the next calls must have begun (`time.monotonic`), for commands with a time limit."""
        self._warned = False

    def give(self, seconds: float) -> None:
        """Let the next calls take so long together; 0 is for ever."""
        self.deadline = time.monotonic() + seconds if seconds > 0 else None

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

    def text(self, method: str, name: str, *, timeout: float | None = None) -> str:
        """Any route that answers plain text."""
        return self.call(method, name, timeout=timeout).body.decode("utf-8", "replace")

    def watch(self, mask: int) -> Watcher:
        """Notifies from now on."""
        return Watcher(self.stream("GET", f"watch-ipn-bus?mask={mask}"))

    # -- transport -------------------------------------------------------------------------------------------

    def call(self, method: str, name: str, body: JSON | bytes | None = None, *, timeout: float | None = None) -> Answer:
        """One request to /localapi/v0/`name`; bytes are sent as they are, anything else as JSON.

        Raises:
            NotRunning, AccessDenied, ApiError: see there. TimeoutError: no answer within `timeout` seconds, or until
            the deadline.
            UnicodeEncodeError: an argument of the command line that is no text.
        """
        data = (
            b"" if body is None else body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
        )
        answer = self.request(method, _PREFIX + name, data, timeout=timeout)
        if answer.status >= 300:
            raise self._error(answer)
        return answer

    def request(self, method: str, path: str, body: bytes = b"", *, timeout: float | None = None) -> Answer:
        """One request to any path of the socket, whatever its outcome. Raises as `call`, but no ApiError."""
        sock, reader = self._open(timeout)
        try:
            self._send(sock, method, path, body)
            status, reason, headers = self._read_head(reader)
            bodyless = method == "HEAD" or status in (204, 304)
            answer = Answer(status, reason, headers, b"" if bodyless else read_body(reader, headers))
        except TimeoutError:
            raise
        except (OSError, ValueError) as error:
            raise CliError(f"lost the connection to local meshd: {error}") from None
        finally:
            reader.close()
            sock.close()
        self._check_version(headers)
        return answer

    def stream(self, method: str, name: str, body: bytes = b"") -> Stream:
        """A request whose answer is read piece by piece. Raises as `call`."""
        sock, reader = self._open(None)
        try:
            self._send(sock, method, _PREFIX + name, body)
            status, reason, headers = self._read_head(reader)
            if status >= 300:
                raise self._error(Answer(status, reason, headers, read_body(reader, headers)))
        except TimeoutError:
            sock.close()
            raise
        except (OSError, ValueError) as error:
            sock.close()
            raise CliError(f"lost the connection to local meshd: {error}") from None
        except BaseException:
            sock.close()
            raise
        return Stream(sock, reader, headers)

    def upload(self, name: str, source: BinaryIO, length: int | None) -> None:
        """PUT a file that need not fit into memory; without `length` (bytes) it is sent in chunks. Raises as `call`."""
        sock, reader = self._open(None)
        chunked = length is None
        framing = {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(length)}
        try:
            self._send(sock, "PUT", _PREFIX + name, b"", {"Connection": "close", **framing})
            while data := source.read(_PIECE):
                sock.sendall(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
            if chunked:
                sock.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before the end: the answer says why
        except BaseException:
            sock.close()
            raise
        try:
            status, reason, headers = self._read_head(reader)
            if status >= 300:
                raise self._error(Answer(status, reason, headers, read_body(reader, headers)))
        except (OSError, ValueError) as error:
            raise CliError(f"lost the connection to local meshd: {error}") from None
        finally:
            reader.close()
            sock.close()

    def upgrade(self, name: str, protocol: str, fields: dict[str, str]) -> tuple[socket.socket, bytes]:
        """Turn a connection into a raw one (RFC 9110 7.8): the socket, and what has already been read from it.

        Raises:
            NotRunning, AccessDenied, ApiError: the daemon did not agree. LeftToUs: it is not for the daemon to connect.
        """
        sock, reader = self._open(None)
        lines = {"Connection": "upgrade", "Upgrade": protocol, "Content-Length": "0", **fields}
        try:
            self._send(sock, "POST", _PREFIX + name, b"", lines)
            status, reason, headers = self._read_head(reader)
            if status == 200 and headers.get("dial-self") == "true":
                raise LeftToUs(headers.get("dial-addr", ""))
            if status != 101:
                raise self._error(Answer(status, reason, headers, read_body(reader, headers)))
            sock.settimeout(0)  # only what is in the buffer already, or could be
            early = reader.read(len(reader.peek()))  # type: ignore[attr-defined]
            sock.settimeout(None)
            return sock, early
        except (OSError, ValueError) as error:
            sock.close()
            raise CliError(f"lost the connection to local meshd: {error}") from None
        except BaseException:
            sock.close()
            raise

    def _open(self, timeout: float | None) -> tuple[socket.socket, BinaryIO]:
        while True:
            left = self._left(timeout)
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.connect(self.path)
            except OSError as error:
                sock.close()
                if error.errno not in _ABSENT or not daemon_is_starting():
                    raise self._unreachable(error) from None
                time.sleep(_RETRY_S)
                continue
            sock.settimeout(left)
            return sock, sock.makefile("rb")

    def _left(self, timeout: float | None) -> float | None:
        if self.deadline is None:
            return timeout
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left if timeout is None else min(left, timeout)

    def _unreachable(self, error: OSError) -> NotRunning:
        if error.errno in _ABSENT:
            where = "" if self.path == DEFAULT_SOCKET else f" at {self.path}"
            running = find_daemons() if error.errno == errno.ECONNREFUSED or not where else []
            if running:
                return NotRunning(
                    f"failed to connect to local meshd{where} (which appears to be running as {running[0]}). "
                    f"Got error: {error.strerror}"
                )
            hint = " (sudo systemctl start meshd ?)" if os.path.isdir("/run/systemd/system") else ""
            return NotRunning(f"failed to connect to local meshd{where}; it doesn't appear to be running{hint}")
        return NotRunning(f"failed to connect to local meshd at {self.path}: {error.strerror or error}")

    def _send(
        self, sock: socket.socket, method: str, path: str, body: bytes, fields: dict[str, str] | None = None
    ) -> None:
        lines = {"Host": _HOST}
        if self.reason:
            lines["X-Tailscale-Reason"] = b64encode(self.reason.encode("utf-8", "replace")).decode()
        if fields is not None:
            lines |= fields
        else:
            lines["Connection"] = "close"
            if method not in ("GET", "HEAD"):
                lines |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        sock.sendall(head.encode() + b"\r\n" + body)

    def _read_head(self, reader: BinaryIO) -> tuple[int, str, dict[str, str]]:
        line = reader.readline(MAX_LINE).decode("latin-1")
        version, _, rest = line.strip().partition(" ")
        code, _, reason = rest.partition(" ")
        if not version.startswith("HTTP/1.") or not code.isdigit():
            raise ValueError("it did not answer in HTTP" if line else "it closed the connection")
        headers: dict[str, str] = {}
        for _ in range(_MAX_HEADER_LINES):
            line = reader.readline(MAX_LINE).decode("latin-1").strip()
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
