"""The resolver configuration of the host as its file says it."""

from __future__ import annotations

import contextlib
from pathlib import Path

from meshd.base.addr import IPAddress, parse_zoned_ip
from meshd.base.errors import MeshdError, WireError
from meshd.base.ranges import SERVICE_V4, SERVICE_V6
from meshd.core.dnscompile import OSConfig
from meshd.wire.resolvconf import ResolvConf, decode_resolv_conf, is_ours, kept_original

__all__ = ["RESOLV_CONF", "ResolvConf", "base_of", "host_resolvers", "network_resolvers", "read_resolv_conf"]

RESOLV_CONF = "/etc/resolv.conf"
RESOLVED_CONF = "/run/systemd/resolve/resolv.conf"
"""The resolvers that systemd-resolved asks, of all networks together."""
_LIMIT_BYTES = 1 << 20


def read_resolv_conf(path: str = RESOLV_CONF) -> ResolvConf:
    """Read it now; OSError when that is not possible. Lines that mean nothing are passed over."""
    return decode_resolv_conf(_read(path))


def host_resolvers(path: str = RESOLV_CONF) -> OSConfig:
    """What the host has without us. Raises MeshdError when that is not known."""
    try:
        data = _read(path)
        original = kept_original(data) if is_ours(data) else None
    except OSError as error:
        raise MeshdError(f"cannot read {path}: {error.strerror}", code="host") from None
    except WireError as error:
        raise MeshdError(f"{path}: {error}", code="host") from None
    return base_of(original.data if original is not None else data)


def network_resolvers(base: OSConfig, path: str = RESOLVED_CONF) -> tuple[IPAddress, ...]:
    """The resolvers of the host's own networks: those that a resolver on this host asks, when it is the only one that
    the host knows by itself."""
    if any(not server.is_loopback for server in base.nameservers):
        return tuple(server for server in base.nameservers if not server.is_loopback)
    try:
        return base_of(_read(path)).nameservers
    except OSError:
        return base.nameservers


def base_of(data: bytes) -> OSConfig:
    """The resolvers that a file names, but for our own."""
    conf = decode_resolv_conf(data)
    servers = []
    for text in conf.nameservers:
        with contextlib.suppress(ValueError):
            servers.append(parse_zoned_ip(text))
    return OSConfig(
        tuple(server for server in servers if server not in (SERVICE_V4, SERVICE_V6)),
        tuple(filter(None, (domain.lower() for domain in conf.search))),
    )


def _read(path: str) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(_LIMIT_BYTES)
