"""The text of flags such as `--listen`, and the names by which others find what listens."""

from __future__ import annotations

import re

from meshd.base.addr import is_address
from meshd.base.errors import MeshdError

MAX_HOST = 253
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII | re.IGNORECASE)


def parse_listen(text: str, flag: str = "--listen") -> tuple[str, int]:
    """`ADDR:PORT`, `[V6]:PORT`, `:PORT` or `*:PORT` (the last two: every address); MeshdError otherwise.

    ``flag`` is named in it.
    """
    host, separator, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        separator = ""
    if not separator or not port.isascii() or not port.isdigit() or len(port) > 5 or int(port) > 65535:
        raise MeshdError(f"{flag} {text!r} is not of the form ADDRESS:PORT", code="usage")
    return "" if host == "*" else host, int(port)


def is_host(text: str) -> bool:
    """Whether a certificate and a client can have it as a host: a DNS name in its ASCII form, or an address."""
    if is_address(text):
        return "%" not in text
    labels = text.split(".")
    # What ends in a number is an address, or nothing (URL standard, "ends in a number").
    return len(text) <= MAX_HOST and not labels[-1].isdigit() and all(map(_LABEL.fullmatch, labels))
