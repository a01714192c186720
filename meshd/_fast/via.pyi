"""Via addresses (4via6): IPv6 addresses that stand for the IPv4 networks of a site behind this node."""

from collections.abc import Iterable
from typing import final

from meshd._fast.viaflow import ViaFlows

PREFIX: bytes
"""The first 8 bytes of every via address."""

@final
class Via:
    """What this node translates. What the methods do, packet threads do; they may share the flows.

    now: monotonic seconds. mtu: the tunnel's; at least 1280 is taken.
    """

    flows: ViaFlows

    def __init__(
        self,
        prefixes: Iterable[tuple[bytes, int]],
        *,
        own: Iterable[bytes] = (),
        flows: ViaFlows | None = None,
    ) -> None:
        """prefixes: address and length of routes that this node offers; those without via addresses are ignored.

        own: our addresses, of which the first of a family counts. flows: those of the time before. ValueError for
        what is no prefix or address.
        """

    def __bool__(self) -> bool:
        """Whether there is anything to translate."""

    def inbound(
        self, packet: bytes, ipv4: bytes, *, peer: int = 0, mtu: int = 1280, now: float = 0.0, ident: int = 0
    ) -> tuple[str, bytes]:
        """A packet from the peer, whose IPv4 address may be empty.

        "done" with the IPv4 packet for the host, or the packet as it is with "other" (nothing to do with us),
        "no_ipv4", "refused", "no_port" or "no_flow". ValueError: no IP packet.
        """

    def clashes(self, packet: bytes, *, now: float = 0.0) -> bool:
        """Whether answers to this IPv4 packet of a peer would be taken for those of a via flow."""

    def outbound(
        self, packet: bytes, vnet: bytes = ..., *, mtu: int = 1280, now: float = 0.0
    ) -> tuple[str, list[tuple[bytes, bytes]]]:
        """A packet from the TUN with its virtio-net header, and what goes to the peer: such pairs.

        "whole" with one and "parts" with fragments; "plain" and "refused" with none; "cut": give its pieces one by one;
        "too_big" with the answer for the TUN. ValueError: no IP packet.
        """
