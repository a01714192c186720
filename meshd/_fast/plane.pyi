"""The data plane: packets between TUN and UDP on threads of their own, everything else as events.

One sender thread per TUN queue and one receiver thread per UDP socket of a family route, filter, seal and open
packets without the interpreter. What they cannot decide (handshakes, path messages, packets without a session)
comes up through ``drain``. All methods are for one thread, the event loop's. Times are seconds of
CLOCK_MONOTONIC, addresses packed (4 or 16 bytes). Methods that take a peer raise KeyError when there is none.

Events are tuples that start with one of the EV_ numbers:

==============  =======================  ==========================================================================
EV_DATAGRAM     address, port, data      UDP datagram that is no WireGuard transport message
EV_STAGED       peer, data               outbound packet without usable session: virtio-net header (10 bytes) and
                                         packet; at most 128 a second per peer
EV_ACTIVE       peer                     first authenticated packet either way since add_peer or clear_active
EV_REKEY        peer, local index        the session wants a successor (age, counter); once per session
EV_CONFIRMED    peer, local index        first authenticated packet on a "next" session, which is "current" now
EV_TSMP         peer, packet             inbound packet of IP protocol 99
EV_SERVICE      packet                   outbound packet to a service address, checksums complete
EV_LOCAL        peer, packet             inbound packet while there is no TUN
EV_RELAY        relay                    take_relayed(relay) has frames; once until they are taken
EV_DENIED       peer, packet             inbound TCP SYN that the filter refused; at most 10 a second
EV_SEND_ERROR   peer, errno              EHOSTUNREACH or ENETUNREACH on sending; at most one a second per peer
EV_ECHO         peer, packet             ICMP echo reply with a watched identifier
EV_ROAMED       peer, address, port      an authenticated message of a peer with ``set_roams`` came from elsewhere
                                         than where its path leads
==============  =======================  ==========================================================================
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, final

from meshd._fast.derpframes import RelayedPackets
from meshd._fast.registry import Registry

EV_DATAGRAM: int
EV_STAGED: int
EV_ACTIVE: int
EV_REKEY: int
EV_CONFIRMED: int
EV_TSMP: int
EV_SERVICE: int
EV_LOCAL: int
EV_RELAY: int
EV_DENIED: int
EV_SEND_ERROR: int
EV_ECHO: int
EV_ROAMED: int

class PeerState(NamedTuple):
    """Traffic of one peer. Bytes and packets are those of authenticated messages, keepalives included."""

    rx_bytes: int
    tx_bytes: int
    rx_packets: int
    tx_packets: int
    last_tx_data: float
    """When the last data packet was sent; 0 = never, here and below."""
    last_rx_data: float
    last_tx: float
    last_rx: float
    owed_since: float
    """First data packet received since our last packet of any kind; 0 = we owe nothing."""
    unanswered_since: float
    """First data packet sent since the peer's last packet of any kind; 0 = all answered."""
    session_created: float
    current_local_index: int

@final
class Plane(Registry):
    """See the module; what can be configured while it runs is in the base class.

    File descriptors stay their opener's; they must outlive ``stop``.
    """

    def __init__(
        self,
        *,
        tun_fds: Sequence[int],
        udp4_fd: int | Sequence[int],
        udp6_fd: int | Sequence[int],
        mtu: int = 1280,
        vnet_header: bool = True,
        ring_bytes: int = 1048576,
    ) -> None:
        """tun_fds: one per queue, non-blocking, at most 8; empty in userspace mode, where inbound packets are EV_LOCAL.

        udp4_fd, udp6_fd: a socket, or up to 8 that share one port (SO_REUSEPORT): the kernel keeps what comes from
        one address on one of them. As many receivers run as the greater of the two has sockets.
        vnet_header: reads and writes of the TUN start with a virtio-net header. ring_bytes: events waiting
        per thread. A file descriptor of -1 means none. Until set_filter nothing inbound is accepted.
        """

    @property
    def event_fd(self) -> int:
        """eventfd, readable when drain has something."""

    def start(self) -> None:
        """Start the threads, all or none. RuntimeError when they run, or when the system has no room for threads;
        OSError when it has none for descriptors."""

    def stop(self) -> None:
        """End the threads and wait for them; start may follow."""

    def set_udp(self, udp4_fd: int | Sequence[int], udp6_fd: int | Sequence[int]) -> None:
        """Change sockets. On return nobody uses the old ones, which may then be closed.

        ValueError for more of a family than the plane was made with receivers for.
        """

    def set_offload(
        self,
        *,
        udp_gso: bool = True,
        udp_gro: bool = True,
        equal_tail: bool = True,
        tun_tcp_gro: bool = True,
        tun_udp_gro: bool = True,
    ) -> None:
        """What may be left to the kernel where it can; holds for later sockets, too.

        udp_gso False: one datagram per send. udp_gro False: one datagram per read. equal_tail False: never end a
        segmented send with a segment of the same size as the others, which Linux 7.0 to 7.1.4 corrupts.
        tun_tcp_gro, tun_udp_gro False: packets for the TUN are not merged; True again is for threads that start later.
        """

    def send_keepalive(self, peer: int) -> bool:
        """Send an empty message; False without usable session."""

    def send_staged(self, peer: int, packets: list[bytes]) -> int:
        """Send packets as EV_STAGED delivered them; how many found a usable session."""

    def send_packet(self, peer: int, packet: bytes) -> bool:
        """Send one IP packet, unfiltered; False without usable session, when it is the caller's to keep.

        ValueError when it is none and the peer knows us by other addresses (set_masquerade).
        """

    def deliver(self, packet: bytes) -> bool:
        """Give the host one IP packet, unfiltered; False when there is no TUN."""

    def open_from(self, packets: list[bytes]) -> list[bytes]:
        """Take datagrams that came through a relay; returns those that are no transport messages."""

    def open_relayed(self, packets: RelayedPackets) -> None:
        """The same for what ``split_frames`` found, without a copy; what is no transport message is counted."""

    def take_relayed(self, relay: int, limit: int = 0) -> bytes:
        """Everything that waits for a relay, as SendPacket frames (DERP protocol).

        With a limit whole frames of about so many bytes: the caller comes back until there is nothing, EV_RELAY
        does not call for the rest.
        """

    def peer_state(self, peer: int) -> PeerState: ...
    def peer_drops(self, peer: int) -> dict[str, int]:
        """The packets to and from it that were lost, by the names of ``counters``; reasons with none are left out."""
    def clear_active(self, peer: int) -> None:
        """Let the next packet raise EV_ACTIVE again."""

    def counters(self) -> dict[str, int]:
        """Dropped packets by reason (out_, in_), events_lost, system calls made, and what was carried.

        The latter are authenticated transport messages of peers by the way they took: out_ or in_, ipv4_, ipv6_ or
        derp_, packets or bytes.

        in_socket_overflow is what the system dropped because its buffer was full before we could read.
        """

    def thread_reads(self) -> dict[str, int]:
        """Reads of each thread, as reads_send_N and reads_receive_N: how the work is spread."""

    def drain(self, limit: int = 256) -> list[tuple[Any, ...]]:
        """At most limit events (more by one per relay); event_fd stays readable while there are others."""
