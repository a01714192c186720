"""Candidate UDP addresses of a peer and how two of them compare."""

from __future__ import annotations

from collections import deque
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import NamedTuple

from meshd.base.addr import AddrPort, IPAddress
from meshd.base.ranges import is_tailscale_ip

CANDIDATE_MEMORY_S = 45.0  # a candidate known only from a received ping is forgotten after this
MAX_CANDIDATES = 100  # per peer; beyond it nothing but the netmap adds one
PONG_HISTORY = 64  # pongs remembered per candidate
DEFAULT_WIRE_MTU = 1280

_PRIVATE_V4 = (IPv4Network("10.0.0.0/8"), IPv4Network("172.16.0.0/12"), IPv4Network("192.168.0.0/16"))
_PRIVATE_V6 = IPv6Network("fc00::/7")


class PongReceived(NamedTuple):
    """One answered ping: round trip in seconds, when (monotonic), where from, what source the peer saw."""

    latency_s: float
    at: float
    source: AddrPort | None
    seen_as: AddrPort | None


class Candidate:
    """What is known about one address at which a peer may be reachable. Times are monotonic, 0 = never."""

    __slots__ = ("call_me_maybe_at", "in_netmap", "last_got_ping", "last_got_txid", "last_ping", "last_return", "pongs")

    def __init__(self, *, in_netmap: bool = False) -> None:
        self.in_netmap = in_netmap
        self.call_me_maybe_at = 0.0
        self.last_got_ping = 0.0
        self.last_got_txid = b""
        self.last_ping = 0.0
        self.last_return = 0.0
        self.pongs: deque[PongReceived] | None = None

    def deletable(self, now: float) -> bool:
        """Neither the netmap, nor the peer's last CallMeMaybe, nor a ping of the last 45 s names it."""
        if self.in_netmap or self.call_me_maybe_at:
            return False
        return not self.last_got_ping or now - self.last_got_ping > CANDIDATE_MEMORY_S

    @property
    def only_heard(self) -> bool:
        """A ping came from there, which anybody can replay, and nothing else speaks for it."""
        return not self.in_netmap and not self.call_me_maybe_at and not self.pongs

    def remember(self, pong: PongReceived) -> None:
        """Keep the last 64 pongs for the debug view."""
        if self.pongs is None:
            self.pongs = deque(maxlen=PONG_HISTORY)
        self.pongs.append(pong)


class Quality(NamedTuple):
    """A proven address: its round trip and the largest datagram known to pass (bytes on the wire)."""

    address: AddrPort
    latency_s: float
    wire_mtu: int = DEFAULT_WIRE_MTU


def usable(address: AddrPort) -> bool:
    """Whether it makes sense to send a ping there: no port 0, multicast, link-local IPv6 or mesh address."""
    ip = address.ip
    if not address.port or ip.is_multicast or ip.is_unspecified or is_tailscale_ip(ip):
        return False
    return isinstance(ip, IPv4Address) or not ip.is_link_local


def better(a: Quality | None, b: Quality | None) -> bool:
    """Whether ``a`` should replace ``b``.

    The lower latency earns ``100 - 100 * low / high`` points, loopback 50, link-local 30, a private address
    20, IPv6 10. One point is not enough against none, so that two equal paths do not take turns. Of the
    same address, the one with the larger proven MTU wins.
    """
    if b is None:
        return a is not None
    if a is None:
        return False
    if a.address == b.address:
        return a.wire_mtu > b.wire_mtu
    points_a, points_b = _address_points(a.address.ip), _address_points(b.address.ip)
    latency_a, latency_b = round(a.latency_s * 1e9), round(b.latency_s * 1e9)
    if latency_a < latency_b:
        points_a += 100 - 100 * latency_a // latency_b
    elif latency_b < latency_a:
        points_b += 100 - 100 * latency_b // latency_a
    if points_a <= 1 and points_b == 0:
        return False
    return points_a > points_b


def _address_points(ip: IPAddress) -> int:
    points = 0
    if ip.is_loopback:
        points = 50
    elif ip.is_link_local:
        points = 30
    elif isinstance(ip, IPv4Address):
        points = 20 if any(ip in network for network in _PRIVATE_V4) else 0
    elif ip in _PRIVATE_V6:
        points = 20
    return points if isinstance(ip, IPv4Address) else points + 10
