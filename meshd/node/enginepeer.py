"""What goes into the engine about a peer, and what it tells back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from meshd.base.addr import AddrPort, IPAddress, IPPrefix
from meshd.base.keys import DiscoPublic, NodePublic
from meshd.core.handshakequeue import Source
from meshd.core.tunnel import Tunnel
from meshd.core.tunneleffects import Traffic
from meshd.node.dataplane import PeerCounters

MAX_WAITING_PACKETS = 16  # packets of our own that wait for a session, per peer


class PeerConfig(msgspec.Struct, frozen=True, gc=False):
    """A peer as the netmap wants it. ``keepalive_s`` 0 = no persistent keepalive.

    A changed ``disco_key`` means that the peer's process restarted and lost its sessions. ``masquerade``: pairs of
    our own address and the one by which the peer knows us instead, at most one a family. ``ipv4`` stands for the peer
    when it uses via addresses of ours.
    """

    node_key: NodePublic
    allowed_ips: tuple[IPPrefix, ...]
    disco_key: DiscoPublic | None = None
    jailed: bool = False
    keepalive_s: int = 0
    masquerade: tuple[tuple[IPAddress, IPAddress], ...] = ()
    ipv4: IPAddress | None = None


class EnginePeerStatus(msgspec.Struct, frozen=True):
    """Counters include handshake messages; ``last_handshake`` is unix seconds or None.

    ``in_engine`` says that the peer has, or is working on, WireGuard state.
    """

    rx_bytes: int
    tx_bytes: int
    last_handshake: float | None
    in_engine: bool


def _ignore(*_: Any) -> None:
    """The default of every hook: nobody wants to know."""


class EngineHooks(msgspec.Struct):
    """Whom the engine tells what it does not handle itself. Every hook runs in the event loop."""

    # UDP datagrams that are not WireGuard: address bytes, port, data
    datagram: Callable[[bytes, int, bytes], None] = _ignore
    # take_relayed(relay) of the data plane has frames
    relay: Callable[[int], None] = _ignore
    # UDP sending to a peer failed hard: errno
    send_error: Callable[[NodePublic, int], None] = _ignore
    # outbound packet to a service address, other than a ping of it
    service: Callable[[bytes], None] = _ignore
    # inbound packet in userspace mode, other than a ping of us
    local: Callable[[NodePublic, bytes], None] = _ignore
    # traffic with a peer that was idle, in either direction
    active: Callable[[NodePublic], None] = _ignore
    # a session with the peer is in use
    session: Callable[[NodePublic], None] = _ignore
    # a handshake message from this source proved to be the peer's, or data did of one with `set_roams`
    authenticated: Callable[[NodePublic, Source], None] = _ignore
    # send a cookie reply straight back to a UDP source
    answer: Callable[[AddrPort, bytes], None] = _ignore


class EnginePeer(msgspec.Struct, eq=False):
    """The engine's record of a peer. ``tunnel`` exists from the first use on, ``waiting`` while packets wait."""

    config: PeerConfig
    index: int
    tunnel: Tunnel | None = None
    last_handshake: float | None = None
    handshake_rx_bytes: int = 0
    handshake_tx_bytes: int = 0
    waiting: list[bytes] | None = None
    polled: tuple[float, float] | None = None  # last_tx, last_rx that the tunnel was last told

    @property
    def key(self) -> NodePublic:
        return self.config.node_key


def traffic_of(state: PeerCounters) -> Traffic:
    """The part of a peer's counters that timers are about."""
    return Traffic(state.last_tx, state.last_rx, state.last_tx_data, state.owed_since, state.unanswered_since)
