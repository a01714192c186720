"""What the path layer exchanges with the rest of the node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from meshd._fast.derpframes import RelayedPackets
from meshd.base.addr import AddrPort
from meshd.base.keys import DiscoPublic, NodePublic


class PathPeer(msgspec.Struct, frozen=True, gc=False):
    """What control says about reaching a peer. ``home_relay`` 0 and ``disco_key`` None: it has none.

    ``wireguard_only``: nothing but WireGuard is to be sent to it, and straight to its endpoints.
    """

    node_key: NodePublic
    disco_key: DiscoPublic | None
    home_relay: int
    endpoints: tuple[AddrPort, ...]
    wireguard_only: bool = False


class PathStatus(msgspec.Struct, frozen=True):
    """``address`` is set while packets go there and nowhere else. ``last_write`` is unix seconds or None,
    ``latency_s`` the last round trip to the best address, 0 when there is none."""

    address: AddrPort | None
    relay: int
    active: bool
    last_write: float | None
    latency_s: float


class PingOutcome(msgspec.Struct, frozen=True):
    """A pong: round trip, and the address or else the relay region it took."""

    latency_s: float
    address: AddrPort | None
    relay: int


class TrafficTimes(Protocol):
    """The part of ``peer_state`` that keeps a session alive; monotonic seconds, 0 = never."""

    @property
    def last_tx(self) -> float: ...


class PathPlane(Protocol):
    """The part of the data plane that paths need; see ``_fast/plane.pyi``."""

    def set_udp(self, udp4_fd: Sequence[int], udp6_fd: Sequence[int]) -> None: ...

    def set_path(self, peer: int, address: bytes | None, port: int, trusted_until: float, relay: int) -> None: ...

    def set_roams(self, peer: int, roams: bool) -> None: ...

    def peer_state(self, peer: int) -> TrafficTimes: ...

    def clear_active(self, peer: int) -> None: ...

    def take_relayed(self, relay: int, limit: int = 0) -> bytes: ...

    def open_relayed(self, packets: RelayedPackets) -> None: ...

    def set_bundles(self, peer: int, bundles: bool) -> None: ...

    def takes_bundles(self, peer: int) -> bool: ...
