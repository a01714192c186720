"""What the event loop publishes for packet threads: the configurable half of plane.Plane."""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network
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

    def set_routes(self, peer: int, prefixes: Iterable[IPv4Network | IPv6Network]) -> None:
        """Packets from and to these prefixes, and no others, belong to the peer; they are taken from whoever had them.

        A prefix that another peer took meanwhile stays with that one, and comes back when that one gives it up or is
        removed. ValueError: not a prefix.
        """

    def add_route(self, peer: int, address: bytes, bits: int) -> None:
        """Packets from and to this prefix belong to the peer; it is taken from whoever had it."""

    def remove_route(self, address: bytes, bits: int) -> None:
        """Forget exactly this prefix; an unknown one is ignored."""

    def set_path(self, peer: int, address: bytes | None, port: int, trusted_until: float, relay: int) -> None:
        """How datagrams reach the peer. Until trusted_until by UDP only; afterwards by UDP and the relay (0 = none).

        Without an address by the relay alone.
        """

    def set_bundles(self, peer: int, bundles: bool) -> None:
        """Several messages to this peer may share a relay frame (see derpframes.pyi). A new session ends that."""

    def takes_bundles(self, peer: int) -> bool:
        """What set_bundles said for the session of this moment."""

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

    def set_rules(
        self,
        rules: Sequence[tuple[Sequence[tuple[bytes, bytes]], Sequence[tuple[bytes, bytes, int, int]], Sequence[int]]],
        local: Sequence[tuple[bytes, int]],
    ) -> None:
        """Like set_filter with a Filter of these arguments, at the cost of what differs from the last call.

        A rule that is a tuple of tuples and the same object as last time is not looked at. A packet that is judged
        meanwhile is accepted when the rules before or after accept it, and refused when both refuse it.
        """

    def forget_flows(self) -> None:
        """Answers to what this node sent before come in by the rules only, until it sends again. Jailed peers keep
        theirs, which never were anything but answers."""

    def set_jailed(self, peer: int, jailed: bool) -> None:
        """Accept from this peer only what a node with shields up would."""

    def set_roams(self, peer: int, roams: bool) -> None:
        """Tell where else than from its path messages of this peer come (EV_ROAMED)."""

    def set_masquerade(self, peer: int, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        """Show this peer other addresses than our own: pairs of the own and the shown one, at most one a family.

        Outbound packets from the own address leave with the shown one as source, after the filter; inbound ones for
        the shown address are for the own one, before the filter. None ends it. ValueError for other pairs.
        """

    def set_ipv4(self, peer: int, address: bytes | None) -> None:
        """The IPv4 address that stands for the peer when it uses via addresses; without one it cannot."""

    def set_via(self, prefixes: Sequence[tuple[bytes, int]], own: Sequence[bytes]) -> None:
        """Translate for the via addresses (4via6) within these prefixes, those that this node offers as routes.

        own: our addresses in the network. Flows go on as long as their address is within. Ignored without a TUN.
        """

    def set_service_addresses(self, addresses: Sequence[bytes]) -> None:
        """Outbound packets to these (at most 8) become EV_SERVICE."""

    def set_own_addresses(self, addresses: Sequence[bytes]) -> None:
        """No peer's packet comes from these, whatever routes it has: an exit node has a route to every address, and the
        host takes an IPv6 packet from its own address for its own. Nor from an IPv4-mapped one, which the host hands to
        programs as if it came from the IPv4 address.
        """

    def watch_echo(self, identifier: int) -> None:
        """ICMP echo replies with this identifier (u16) become EV_ECHO."""
