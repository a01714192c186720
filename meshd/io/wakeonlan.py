"""Waking hosts of the local networks: the magic packet, broadcast from every interface with an IPv4 address."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Callable, Iterable
from typing import NamedTuple

from meshd.base.addr import IPAddress, parse_ip
from meshd.base.ranges import is_tailscale_ip
from meshd.io.interfaces import entries_of

BROADCAST = ("255.255.255.255", 9)
_MAC = re.compile(r"[0-9A-Fa-f]{2}(?:([:-])[0-9A-Fa-f]{2})(?:\1[0-9A-Fa-f]{2}){4}")


class Woken(NamedTuple):
    """From which interfaces packets left, and what went wrong."""

    sent: list[str]
    errors: list[str]


def parse_mac(text: str) -> bytes:
    """Six bytes; ValueError for anything that is no Ethernet address such as ``00:11:22:33:44:55``."""
    if not _MAC.fullmatch(text):
        raise ValueError(f"{text!r} is no hardware address")
    return bytes.fromhex(re.sub("[:-]", "", text))


def magic_packet(mac: bytes) -> bytes:
    return b"\xff" * 6 + mac * 16


def wake(macs: Iterable[bytes], interfaces: Callable[[], list[tuple[str, IPAddress]]] | None = None) -> Woken:
    """Send one packet for each address and interface; loopback and mesh addresses are left out."""
    woken = Woken([], [])
    places: dict[str, IPAddress] = {}
    for name, ip in (interfaces or interface_addresses)():
        if ip.version == 4 and not ip.is_loopback and not is_tailscale_ip(ip):
            places.setdefault(name, ip)
    for mac in macs:
        for name, ip in places.items():
            try:
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                    sock.bind((str(ip), 0))
                    sock.sendto(magic_packet(mac), BROADCAST)
            except OSError as error:
                woken.errors.append(f"{name}: {error.strerror or error}")
            else:
                woken.sent.append(name)
    woken.sent.sort()
    return woken


def interface_addresses() -> list[tuple[str, IPAddress]]:
    """The IPv4 addresses of this host with their interfaces."""
    import netifaces

    found = []
    for name in netifaces.interfaces():
        for entry in entries_of(name).get(netifaces.AF_INET, ()):
            with contextlib.suppress(KeyError, ValueError):
                found.append((name, parse_ip(str(entry["addr"]))))
    return found
