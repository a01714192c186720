"""A daemon that answers what it is told to: for commands whose routes no fake node has."""

from __future__ import annotations

import json
import socket
import threading
from typing import Any


class Request:
    def __init__(self, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body


class StubDaemon:
    """Answers by "METHOD route" below /localapi/v0/; a route without query answers every query of it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.requests: list[Request] = []
        self.raw: bytes | None = None
        self._answers: dict[str, tuple[int, bytes]] = {}
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def says(self, route: str, answer: Any, status: int = 200) -> None:
        """JSON, or text where the answer is bytes."""
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self._answers[route] = (status, body)

    def asked(self) -> list[str]:
        """What has been asked for since the last time."""
        asked = [f"{r.method} {r.target.removeprefix('/localapi/v0/')}" for r in self.requests]
        self.requests.clear()
        return asked

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, client.makefile("rb") as reader:
                self._answer(client, reader)

    def _answer(self, client: socket.socket, reader: Any) -> None:
        line = reader.readline().decode().split()
        if len(line) < 3:
            return
        headers: dict[str, str] = {}
        while text := reader.readline().decode().strip():
            name, _, value = text.partition(":")
            headers[name.lower()] = value.strip()
        request = Request(line[0], line[1], headers, self._body(reader, headers))
        self.requests.append(request)
        route = f"{line[0]} {line[1].removeprefix('/localapi/v0/')}"
        status, body = (
            self._answers.get(route) or self._answers.get(route.partition("?")[0]) or (404, b"404 page not found\n")
        )
        if status == 101:
            client.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: ts-dial\r\n\r\n" + body)
            while data := client.recv(4096):
                client.sendall(data.upper())
            return
        client.sendall(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body)

    def _body(self, reader: Any, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            return reader.read(int(headers.get("content-length", 0)))
        body = b""
        while size := int(reader.readline(), 16):
            body += reader.read(size)
            reader.readline()
        reader.readline()
        return body
