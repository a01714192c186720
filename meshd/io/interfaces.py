"""The addresses of this host's interfaces, as candidates for our own endpoints."""

from __future__ import annotations

import socket
import struct
import sys

from meshd.base.addr import IPAddress, parse_ip
from meshd.base.errors import MeshdError, WireError
from meshd.base.log import get_logger, kv
from meshd.io.mark import mark_socket
from meshd.wire.netlink import IFF_UP, addresses_up

log = get_logger(__name__)

_FAR_AWAY = (parse_ip("8.8.8.8"), parse_ip("2001:4860:4860::8888"))
_SIOCGIFFLAGS = 0x8913 if sys.platform.startswith("linux") else 0xC0206911


def local_addresses() -> list[IPAddress]:
    """Every address of every interface that is up, in the system's order."""
    if sys.platform.startswith("linux"):
        try:
            return _by_netlink()
        except (OSError, MeshdError, WireError) as error:
            log.debug("netlink_unavailable", extra=kv(reason=error))
    return _one_by_one()


def _by_netlink() -> list[IPAddress]:
    """All at once: hosts of containers have hundreds of interfaces."""
    from contextlib import closing

    from meshd.host.linux.rtnetlink import RtNetlink

    with closing(RtNetlink()) as netlink:
        by_family = sorted(netlink.addresses(), key=lambda address: address.local.version)
        return [address.local for address in addresses_up(netlink.links(), by_family)]


def _one_by_one() -> list[IPAddress]:
    """Asks for everything anew for each interface."""
    import netifaces

    found: list[IPAddress] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as query:
        for name in netifaces.interfaces():
            if not _is_up(query, name):
                continue
            entries = entries_of(name)
            for family in (netifaces.AF_INET, netifaces.AF_INET6):
                for entry in entries.get(family, ()):
                    try:
                        found.append(parse_ip(str(entry["addr"]).partition("%")[0]))
                    except (KeyError, ValueError):
                        continue  # an alias without an address of its own
    return found


def addresses_out() -> frozenset[IPAddress]:
    """From which of our addresses packets to the internet leave; none where there is no way to it. Nothing is sent."""
    return frozenset(source for far in _FAR_AWAY if (source := address_towards(far)) is not None)


def address_towards(far: IPAddress) -> IPAddress | None:
    """From which of our addresses packets to ``far`` leave; None where there is no way. Nothing is sent."""
    try:
        with socket.socket(socket.AF_INET if far.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            mark_socket(probe)
            probe.connect((str(far), 9))
            return parse_ip(probe.getsockname()[0].partition("%")[0])
    except (OSError, ValueError):
        return None


def entries_of(name: str) -> dict[int, list[dict[str, str]]]:
    """What an interface has, by address family; nothing when it has gone since it was listed."""
    import netifaces

    try:
        entries: dict[int, list[dict[str, str]]] = netifaces.ifaddresses(name)
    except (ValueError, OSError):
        return {}
    return entries


def _is_up(query: socket.socket, name: str) -> bool:
    import fcntl

    try:
        answer = fcntl.ioctl(query, _SIOCGIFFLAGS, struct.pack("16s24x", name.encode()[:15]))
    except OSError:
        return False  # gone between listing and asking
    (flags,) = struct.unpack_from("=H", answer, 16)
    return bool(flags & IFF_UP)
