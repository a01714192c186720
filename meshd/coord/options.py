"""How the operator wants the server."""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from meshd.base.errors import MeshdError
from meshd.io.listenaddress import is_host

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)


class PublicAddress(msgspec.Struct, frozen=True):
    """Where clients find the server, taken from its URL."""

    url: str
    """Without a slash at the end."""
    scheme: str
    host: str
    """Without brackets."""
    port: int

    @classmethod
    def parse(cls, text: str) -> PublicAddress:
        """MeshdError when the text is not an http:// or https:// URL of a host."""
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise MeshdError(f"--url {text!r}: {error}", code="usage") from None
        if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment or "@" in parts.netloc:
            raise MeshdError(
                f"--url {text!r} is not an address of the form http://HOST:PORT or https://HOST", code="usage"
            )
        if parts.path.strip("/"):
            raise MeshdError(f"--url {text!r}: clients ask at the top of a host, leave the path out", code="usage")
        if not is_host(host) or port == 0:
            raise MeshdError(
                f"--url {text!r}: clients cannot reach {parts.netloc!r}",
                code="usage",
                hint="Give a host name or an address, and a name with other letters in its form xn--….",
            )
        return cls(
            f"{parts.scheme}://{parts.netloc}",
            parts.scheme,
            host,
            port or (443 if parts.scheme == "https" else 80),
        )

    @property
    def is_v4(self) -> bool:
        return self._version == 4

    @property
    def is_v6(self) -> bool:
        return self._version == 6

    @property
    def _version(self) -> int:
        try:
            return ip_address(self.host).version
        except ValueError:
            return 0


class ServeOptions(msgspec.Struct, frozen=True):
    """Everything `serve` can be told."""

    state_dir: Path
    listen_host: str
    listen_port: int
    address: PublicAddress
    stun_port: int = 3478
    """0 = any free port, -1 = no STUN."""
    derp: bool = True
    policy_file: Path | None = None
    base_domain: str = "mesh.internal"
    node_key_lifetime_s: float = 0.0
    """0 = node keys do not expire."""
    ephemeral_timeout_s: float = 1800.0
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    user: str = "default"
    """Made at the first start."""


def check_domain(text: str) -> str:
    """A DNS suffix in lower case without dots at its ends; MeshdError when it is not one."""
    domain = text.strip(".").lower()
    if len(domain) > 190 or not all(_LABEL.fullmatch(part) for part in domain.split(".")):
        raise MeshdError(f"--base-domain {text!r} is not a domain name", code="usage")
    return domain
