"""The resolver configuration of the host as its file says it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from meshd.base.addr import parse_ip

RESOLV_CONF = "/etc/resolv.conf"
_LIMIT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """Name servers in order, and the domains that short names are tried in."""

    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()


def read_resolv_conf(path: str = RESOLV_CONF) -> ResolvConf:
    """Read it now; OSError when that is not possible. Lines that mean nothing are passed over."""
    with Path(path).open("rb") as file:
        text = file.read(_LIMIT_BYTES).decode("utf-8", "replace")
    servers: list[str] = []
    search: tuple[str, ...] = ()
    for line in text.splitlines():
        words = line.split("#", 1)[0].split(";", 1)[0].split()
        if words[:1] == ["nameserver"] and len(words) > 1:
            address = words[1].partition("%")[0]
            try:
                parse_ip(address)
            except ValueError:
                continue
            servers.append(words[1])
        elif words[:1] in (["search"], ["domain"]):
            search = tuple(word.rstrip(".") for word in words[1:])
    return ResolvConf(tuple(servers), search)
