"""Which pages the coordination server may have shown to a user."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from meshd.core.prefs import CONTROL_SYNONYMS

_OFFICIAL: Final = "tailscale.com"


def may_be_shown(url: str, control_url: str) -> bool:
    """Whether programs may open ``url``, which came from the server at ``control_url`` (LK-04).

    https, or http from a server that is asked by http itself. The official server shows pages of its own only;
    others may use any login service. What browsers and this parser could read differently is refused.
    """
    if not url.isascii() or not url.isprintable() or any(c in url for c in ' \\<>"'):
        return False
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".")
    except ValueError:
        return False
    if not host or "@" in parts.netloc:
        return False
    if control_url in CONTROL_SYNONYMS and host != _OFFICIAL and not host.endswith("." + _OFFICIAL):
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and control_url.startswith("http://"))
