"""Requests to a LocalAPI socket by hand, so that tests see exactly what was sent."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from http.client import HTTPResponse
from typing import BinaryIO, NamedTuple

from meshd.testing.localapi import LocalApiThread


class Answer(NamedTuple):
    """Header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


def ask(api: LocalApiThread, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
    """One request on a connection of its own; paths without a slash are below ``/localapi/v0/``."""
    if not path.startswith("/"):
        path = "/localapi/v0/" + path
    lines = {"Host": "local-tailscaled.sock", "Connection": "close"} | headers
    if body is not None:
        lines["Content-Length"] = str(len(body))
    head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items())
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        sock.connect(api.path)
        sock.sendall(head.encode() + b"\r\n" + (body or b""))
        answer = HTTPResponse(sock, method=method)
        answer.begin()
        received = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, received, answer.read())


def chunks(reader: BinaryIO) -> Iterator[bytes]:
    """The parts of a chunked body, each as it was sent."""
    while size := int(reader.readline(), 16):
        yield reader.read(size)
        reader.readline()
