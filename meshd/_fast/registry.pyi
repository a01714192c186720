"""What the event loop publishes for packet threads: the configurable half of plane.Plane."""

from collections.abc import Sequence
from typing import Literal

from typing_extensions import disjoint_base

from meshd._fast.filter import Filter

@disjoint_base
class Registry:
    """Peers, paths, routes, sessions and policy of one data plane; the base of Plane and not made by itself.

    Changes take effect with the next packet. Methods that take a peer raise KeyError when there is none.
    """

    def add_peer(self, node_public: bytes) -> int:
        """A slot for a peer: a small number, used again after remove_peer."""

    def remove_peer(self, peer: int) -> None:
        """Drop the peer with its sessions and routes; its events that still wait are dropped, too."""

    def add_route(self, peer: int, address: bytes, bits: int) -> None:
        """Packets from and to this prefix belong to the peer; it is taken from whoever had it."""

    def remove_route(self, address: bytes, bits: int) -> None:
        """Forget exactly this prefix; an unknown one is ignored."""

    def set_path(self, peer: int, address: bytes | None, port: int, trusted_until: float, relay: int) -> None:
        """How datagrams reach the peer. Until trusted_until by UDP only; afterwards by UDP and the relay (0 = none).

        Without an address by the relay alone.
        """

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
        send_counter: int = 0,
    ) -> None:
        """A new keypair, rotated as WireGuard does: the initiator's becomes current at once, the responder's waits
        as next until the first packet on it. ValueError when local_index is in use. send_counter: messages already
        sent with it.
        """

    def remove_session(self, local_index: int) -> None:
        """End one session; its keys are wiped. An unknown one is ignored."""

    def clear_sessions(self, peer: int) -> None:
        """End all sessions of a peer."""

    def set_filter(self, program: Filter) -> None:
        """What peers may send us; flows that were let in by the old program go on."""

    def set_jailed(self, peer: int, jailed: bool) -> None:
        """Accept from this peer only what a node with shields up would."""

    def set_service_addresses(self, addresses: Sequence[bytes]) -> None:
        """Outbound packets to these (at most 8) become EV_SERVICE."""

    def watch_echo(self, identifier: int) -> None:
        """ICMP echo replies with this identifier (u16) become EV_ECHO."""
