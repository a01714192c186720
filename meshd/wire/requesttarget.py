"""The target of an HTTP/1.1 request taken apart (RFC 9112, 3.2)."""

from __future__ import annotations

import msgspec


class RequestTarget(msgspec.Struct, frozen=True):
    """``path`` as sent, ``query`` without its question mark; ``authority`` is "" where Host names the server."""

    path: str
    query: str = ""
    authority: str = ""


def read_target(text: str) -> RequestTarget:
    """ValueError when ``text`` is neither a path nor a whole URL, which servers must take as well (3.2.2).

    The authority of a URL stands for the Host header, which then means nothing.
    """
    authority = ""
    if not text.startswith("/") and text != "*":
        scheme, colon, rest = text.partition("://")
        if not colon or scheme.lower() not in ("http", "https"):
            raise ValueError("neither a path nor a URL")
        authority = rest.partition("/")[0].partition("?")[0]
        text = rest[len(authority) :]
        if not authority or "@" in authority:
            raise ValueError("a URL without a server's name, or with a user's")
        if not text.startswith("/"):
            text = f"/{text}"
    path, _, query = text.partition("?")
    return RequestTarget(path, query, authority)
