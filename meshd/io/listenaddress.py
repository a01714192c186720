"""The text of flags such as `--listen`."""

from __future__ import annotations

from meshd.base.errors import MeshdError


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
