"""The packet filter: which packets from peers reach this node.

A Filter is a program; a FlowTable remembers what this node sent, so that replies come in. Rules only accept; their
order does not matter. The order of checks is that of Tailscale's filter, for a packet from a peer:

1. empty: accepted. Not an IP packet: dropped. Untrustworthy transport header: dropped. Destination multicast, or
   link-local other than 169.254.169.254: dropped. Later fragment: accepted.
2. destination outside the local networks: dropped.
3. ICMP of the packet's family: echo replies and errors are accepted, others where any rule joins source and
   destination.
4. TCP: accepted unless it is a pure SYN, which needs a rule.
5. UDP and SCTP: accepted for a known flow, else a rule is needed.
6. TSMP (99): accepted.
7. any other protocol: needs a rule that lists it and is open on all ports.

A packet to a peer passes step 1 and is accepted; UDP and SCTP are remembered.
"""

from collections.abc import Iterable
from typing import TypeAlias, final

from _typeshed import ReadableBuffer

from meshd._fast.flow import FlowTable as FlowTable

ACCEPT: int
DROP_SHORT: int
DROP_UNKNOWN: int
DROP_MULTICAST: int
DROP_LINK_LOCAL: int
DROP_NOT_LOCAL: int
DROP_RULES: int

RESULT_NAMES: tuple[str, ...]
"""Names of the results, by number."""

_Source: TypeAlias = tuple[bytes, bytes]
_Destination: TypeAlias = tuple[bytes, bytes, int, int]
_Rule: TypeAlias = tuple[Iterable[_Source], Iterable[_Destination], Iterable[int]]

@final
class Filter:
    """A filter program."""

    def __new__(cls, rules: Iterable[_Rule], local: Iterable[tuple[bytes, int]]) -> Filter:
        """Compiles rules.

        A rule is (sources, destinations, protocols): sources are inclusive address ranges (first, last), destinations
        (first, last, first port, last port), protocols numbers 0..255. Addresses are packed, 4 or 16 bytes; a rule
        joins only sources and destinations of one family. `local` lists the prefixes (address, length) this node
        serves. Raises ValueError for ranges that are reversed or mix families, and ports or protocols out of range.
        """

    def change(self, rules: Iterable[_Rule], local: Iterable[tuple[bytes, int]]) -> bool:
        """Other rules and networks from now on, at the cost of what differs; arguments and ValueError as above.

        A rule that is a tuple of tuples and the same object as before is not looked at. False when the change is
        large or the rules are too varied: make a new Filter then, this one may be in between. RuntimeError when the
        program is in use by a data plane, whose `set_rules` does the same.
        """

    def check_in(self, packet: ReadableBuffer, flows: FlowTable, /) -> int:
        """ACCEPT or the DROP_ reason for a packet from a peer."""

    def check_out(self, packet: ReadableBuffer, flows: FlowTable, /) -> int:
        """ACCEPT or the DROP_ reason for a packet to a peer; remembers its reverse flow."""

    def shape(self) -> dict[str, int]:
        """Sizes of the compiled program: source and destination classes, verdicts, bytes."""
