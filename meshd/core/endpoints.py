"""Our own endpoints, in the order they are told to control and to peers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from ipaddress import IPv4Address
from typing import NamedTuple

from meshd.base.addr import AddrPort, IPAddress
from meshd.base.ranges import is_tailscale_ip

FRESH_ENOUGH_S = 27.0  # older endpoints may not go into a CallMeMaybe
REMEMBERED_S = 5 * 60 + 10.0  # how long an endpoint that is no longer seen stays in the list
MAX_PER_IP = 6
V6_PER_NETWORK = 2


class EndpointKind(IntEnum):
    """How an endpoint was found; the numbers go to control."""

    UNKNOWN = 0
    LOCAL = 1
    STUN = 2
    PORT_MAPPED = 3
    STUN_LOCAL_PORT = 4
    CONFIGURED = 5


class Endpoint(NamedTuple):
    """One address at which peers may find us."""

    addr: AddrPort
    kind: EndpointKind


class StunFindings(NamedTuple):
    """Addresses STUN servers saw, best first; others only count when seen more than once."""

    v4: tuple[AddrPort, ...] = ()
    v6: tuple[AddrPort, ...] = ()
    mapping_varies: bool = False


class EndpointList:
    """Builds the list and remembers what it contained for five minutes."""

    def __init__(self) -> None:
        self._remembered: dict[AddrPort, tuple[EndpointKind, float]] = {}

    def forget(self) -> None:
        """After a change of network: what was true elsewhere is not worth a ping."""
        self._remembered.clear()

    def build(
        self,
        now: float,
        *,
        stun: StunFindings,
        local: Sequence[IPAddress],
        port_v4: int,
        port_v6: int,
        fixed_port: int = 0,
        mapped: AddrPort | None = None,
        configured: Iterable[AddrPort] = (),
    ) -> list[Endpoint]:
        """The endpoints now. ``port_v4`` and ``port_v6`` are the bound ports (0: no such socket),
        ``fixed_port`` the port the user chose, 0 when any was fine."""
        found: dict[AddrPort, EndpointKind] = {}
        if mapped is not None:
            found.setdefault(mapped, EndpointKind.PORT_MAPPED)
        for address in (*stun.v4, *stun.v6):
            found.setdefault(address, EndpointKind.STUN)
        if stun.mapping_varies and fixed_port and stun.v4:
            found.setdefault(AddrPort(stun.v4[0].ip, fixed_port), EndpointKind.STUN_LOCAL_PORT)
        for address in configured:
            found.setdefault(address, EndpointKind.CONFIGURED)
        for address, kind in found.items():
            self._remembered[address] = (kind, now)
        self._expire(now)
        per_ip: dict[IPAddress, int] = {}
        for address in found:
            per_ip[address.ip] = per_ip.get(address.ip, 0) + 1
        for address, (kind, _) in sorted(self._remembered.items(), key=lambda item: -item[1][1]):
            if address not in found and per_ip.get(address.ip, 0) < MAX_PER_IP:
                found[address] = kind
                per_ip[address.ip] = per_ip.get(address.ip, 0) + 1
        for ip in local_candidates(local):
            port = port_v4 if isinstance(ip, IPv4Address) else port_v6
            if port:
                found.setdefault(AddrPort(ip, port), EndpointKind.LOCAL)
        return [Endpoint(address, kind) for address, kind in found.items()]

    def _expire(self, now: float) -> None:
        for address in [a for a, (_, seen) in self._remembered.items() if now - seen > REMEMBERED_S]:
            del self._remembered[address]


def thin_out(addresses: Iterable[IPAddress]) -> list[IPAddress]:
    """At most two IPv6 addresses of each network of 64 bits: hosts exist that have thousands."""
    seen: dict[bytes, int] = {}
    kept = []
    for ip in addresses:
        if ip.version == 6:
            network = ip.packed[:8]
            seen[network] = seen.get(network, 0) + 1
            if seen[network] > V6_PER_NETWORK:
                continue
        kept.append(ip)
    return kept


def local_candidates(addresses: Iterable[IPAddress]) -> list[IPAddress]:
    """Interface addresses worth telling others, sorted: never mesh addresses nor link-local IPv6; ULA and
    169.254/16 only when there is no better one; loopback only when there is nothing else."""
    regular: list[IPAddress] = []
    second: list[IPAddress] = []
    loopback: list[IPAddress] = []
    for ip in dict.fromkeys(addresses):
        if is_tailscale_ip(ip) or ip.is_unspecified or ip.is_multicast:
            continue
        if ip.is_loopback:
            loopback.append(ip)
        elif isinstance(ip, IPv4Address):
            (second if ip.is_link_local else regular).append(ip)
        elif not ip.is_link_local:
            (second if ip.packed[0] & 0xFE == 0xFC else regular).append(ip)
    chosen = regular or second or loopback
    return sorted(chosen, key=lambda ip: (ip.version, int(ip)))
