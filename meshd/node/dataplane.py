"""The data plane as the engine uses it; ``_fast.plane.Plane`` and ``testing.FakePlane`` are two of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

from meshd._fast.plane import (
    EV_ACTIVE,
    EV_CONFIRMED,
    EV_DATAGRAM,
    EV_DENIED,
    EV_ECHO,
    EV_LOCAL,
    EV_REKEY,
    EV_RELAY,
    EV_ROAMED,
    EV_SEND_ERROR,
    EV_SERVICE,
    EV_STAGED,
    EV_TSMP,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from meshd.base.addr import IPPrefix
    from meshd.core.filterprogram import CompiledRule


__all__ = [
    "EV_ACTIVE",
    "EV_CONFIRMED",
    "EV_DATAGRAM",
    "EV_DENIED",
    "EV_ECHO",
    "EV_LOCAL",
    "EV_REKEY",
    "EV_RELAY",
    "EV_ROAMED",
    "EV_SEND_ERROR",
    "EV_SERVICE",
    "EV_STAGED",
    "EV_TSMP",
    "DataPlane",
    "PeerCounters",
]


class PeerCounters(Protocol):
    """What ``DataPlane.peer_state`` tells; times are monotonic seconds, 0 = never."""

    @property
    def rx_bytes(self) -> int: ...
    @property
    def tx_bytes(self) -> int: ...
    @property
    def last_tx_data(self) -> float: ...
    @property
    def last_tx(self) -> float: ...
    @property
    def last_rx(self) -> float: ...
    @property
    def owed_since(self) -> float: ...
    @property
    def unanswered_since(self) -> float: ...
    @property
    def current_local_index(self) -> int: ...


class DataPlane(Protocol):
    """Peers are small integers handed out by ``add_peer``; see ``_fast/plane.pyi`` for the contracts."""

    @property
    def event_fd(self) -> int: ...
    def add_peer(self, node_public: bytes) -> int: ...
    def remove_peer(self, peer: int) -> None: ...
    def set_routes(self, peer: int, prefixes: Iterable[IPPrefix]) -> None: ...
    def set_rules(self, rules: Sequence[CompiledRule], local: Sequence[tuple[bytes, int]]) -> None: ...
    def forget_flows(self) -> None: ...
    def set_service_addresses(self, addresses: list[bytes]) -> None: ...
    def set_own_addresses(self, addresses: Sequence[bytes]) -> None: ...
    def set_jailed(self, peer: int, jailed: bool) -> None: ...
    def set_masquerade(self, peer: int, pairs: Sequence[tuple[bytes, bytes]]) -> None: ...
    def set_ipv4(self, peer: int, address: bytes | None) -> None: ...
    def set_via(self, prefixes: Sequence[tuple[bytes, int]], own: Sequence[bytes]) -> None: ...
    def install_session(
        self,
        peer: int,
        *,
        slot: Literal["current", "next"],
        local_index: int,
        remote_index: int,
        send_key: bytes,
        receive_key: bytes,
        created: float,
        initiator: bool,
    ) -> None: ...
    def clear_sessions(self, peer: int) -> None: ...
    def send_keepalive(self, peer: int) -> bool: ...
    def send_staged(self, peer: int, packets: list[bytes]) -> int: ...
    def send_packet(self, peer: int, packet: bytes) -> bool: ...
    def deliver(self, packet: bytes) -> bool: ...
    def watch_echo(self, identifier: int) -> None: ...
    def peer_state(self, peer: int) -> PeerCounters: ...
    def peer_drops(self, peer: int) -> dict[str, int]: ...
    def clear_active(self, peer: int) -> None: ...
    def drain(self, limit: int = 256) -> list[tuple[Any, ...]]: ...
