"""Where the URL of a coordination server leads."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import msgspec

from meshd.base.addr import parse_ip
from meshd.base.errors import MeshdError

_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+(?:%[!-~]+)?")  # a name or an address
_TWO_MEANINGS = frozenset("\N{LATIN SMALL LETTER SHARP S}\N{GREEK SMALL LETTER FINAL SIGMA}\u200c\u200d")
"""Characters that are others by RFC 3490, by which Python goes, than by RFC 5891, by which browsers do."""


class ControlAddress(msgspec.Struct, frozen=True):
    """Where a control URL leads. ``plain_port`` and ``tls_port`` are None where that way is not to be tried."""

    https: bool
    host: str
    port: int
    plain_port: int | None
    tls_port: int | None

    @property
    def authority(self) -> str:
        """Value of Host, with the port when the URL has an unusual one."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.https else 80) else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{'https' if self.https else 'http'}://{self.authority}"


def control_address(url: str) -> ControlAddress:
    """Ports to dial for a control URL. Raises MeshdError for something that is no http(s) URL."""
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        raise _bad_url(url) from None
    host = _ascii_host(parts.hostname or "")
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise _bad_url(url)
    if parts.path not in ("", "/") or parts.username is not None:
        raise _bad_url(url)
    if parts.scheme == "https":
        return ControlAddress(True, host, port or 443, 80, port or 443)
    tls_port = None if _is_private(host) else 443
    return ControlAddress(False, host, port or 80, port or 80, tls_port)


def _ascii_host(host: str) -> str:
    """The host as DNS, TLS and HTTP want it; empty when it cannot be one, or could be two."""
    if not _TWO_MEANINGS.isdisjoint(host):
        return ""
    try:
        host = host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        return ""
    return host if _HOST.fullmatch(host) else ""


def _is_private(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        address = parse_ip(host)
    except ValueError:
        return False
    return address.is_private or address.is_loopback


def _bad_url(url: str) -> MeshdError:
    return MeshdError(
        f"{url[:200]!r} is not the URL of a coordination server",
        code="control-url",
        hint="Write it as https://host or http://host:port.",
    )
