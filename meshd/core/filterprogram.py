"""From the filter rules of the control server to a packet filter program.

Rules arrive as text: addresses, prefixes, ranges, ``*`` and ``cap:<capability>``. What cannot be understood is
dropped item by item with a reason, which never lets more in than the rest of the rule does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from meshd._fast.filter import Filter
from meshd._fast.ipprefix import Prefix, parse_address
from meshd._fast.ipset import IPSet
from meshd.base.addr import IPAddress, IPPrefix
from meshd.base.ranges import CGNAT, ULA, is_tailscale_ip

if TYPE_CHECKING:
    from collections.abc import Iterator

TCP, UDP, ICMP4, ICMP6 = 6, 17, 1, 58

# What a rule without protocols stands for.
DEFAULT_PROTOCOLS = (TCP, UDP, ICMP4, ICMP6)

_EVERYTHING = ((bytes(4), b"\xff" * 4), (bytes(16), b"\xff" * 16))

# Never part of an advertised default route: private, link-local and multicast ranges, and the mesh itself.
_NEVER_ROUTED = IPSet(
    prefixes=[
        *map(
            Prefix.parse,
            (
                "10.0.0.0/8",
                "172.16.0.0/12",
                "192.168.0.0/16",
                "169.254.0.0/16",
                "224.0.0.0/4",
                "fe80::/10",
                "ff00::/8",
            ),
        ),
        Prefix(CGNAT.network_address.packed, CGNAT.prefixlen),
        Prefix(ULA.network_address.packed, ULA.prefixlen),
    ]
)

AddressRange = tuple[bytes, bytes]
"""First and last packed address, of one family."""

CompiledRule = tuple[tuple[AddressRange, ...], tuple[tuple[bytes, bytes, int, int], ...], tuple[int, ...]]
"""Sources, destinations with first and last port, protocols: what ``_fast.filter.Filter`` takes."""


class Ports(Protocol):
    """Ports of a rule's destination; ``meshd.wire.control.PortRange`` is one."""

    @property
    def first(self) -> int: ...
    @property
    def last(self) -> int: ...


class Destination(Protocol):
    """Destination of a rule; ``meshd.wire.control.NetPortRange`` is one."""

    @property
    def ip(self) -> str: ...
    @property
    def bits(self) -> int | None: ...
    @property
    def ports(self) -> Ports: ...


class Rule(Protocol):
    """What is needed of a rule; ``meshd.wire.control.FilterRule`` is one."""

    @property
    def src_ips(self) -> Sequence[str]: ...
    @property
    def src_bits(self) -> Sequence[int]: ...
    @property
    def dst_ports(self) -> Sequence[Destination]: ...
    @property
    def ip_proto(self) -> Sequence[int]: ...


@dataclass(frozen=True, slots=True)
class FilterProgram:
    """A filter as plain values: equal programs filter alike, so a caller can tell whether anything changed."""

    rules: tuple[CompiledRule, ...] = ()
    local: tuple[tuple[bytes, int], ...] = ()
    """Prefixes this node serves, as (packed address, length)."""
    refused: tuple[str, ...] = ()
    """Why items of the rules were left out, for the log."""

    def compile(self) -> Filter:
        """The program that the packet path runs. Its cost grows with the number of distinct addresses."""
        return Filter(self.rules, self.local)


def _no_holders(capability: str) -> Iterable[IPPrefix]:
    return ()


def plan_filter(
    rules: Iterable[Rule],
    local: Iterable[IPPrefix],
    *,
    shields_up: bool = False,
    attached: Iterable[IPPrefix] = (),
    host_addresses: Iterable[IPAddress] = (),
    cap_sources: Callable[[str], Iterable[IPPrefix]] = _no_holders,
) -> FilterProgram:
    """The filter for these rules (PF-02, PF-06, PF-07).

    ``local`` are the node's own prefixes and the routes it advertises; ``attached`` and ``host_addresses`` are the
    host's networks and addresses, see ``local_networks``. ``shields_up`` leaves no rules, so that only replies come
    in. ``cap_sources`` gives the addresses of the peers that hold a node capability (PF-10).
    """
    networks = tuple((prefix.address, prefix.bits) for prefix in local_networks(local, attached, host_addresses))
    if shields_up:
        return FilterProgram(local=networks)
    compiled: list[CompiledRule] = []
    refused: list[str] = []
    # Rules name the same groups of hosts over and over.
    known: dict[tuple[str, ...], tuple[AddressRange, ...]] = {}
    for number, rule in enumerate(rules):
        if rule.src_bits or any(destination.bits is not None for destination in rule.dst_ports):
            # Fields of a form this capability version does not have: their meaning is unknown, so nothing is let in.
            return FilterProgram(local=networks, refused=(f"rule {number}: SrcBits or Bits, whole filter refused",))
        names = tuple(rule.src_ips)
        sources = known.get(names)
        if sources is None:
            sources = known[names] = tuple(_sources(names, number, cap_sources, refused))
        destinations = tuple(_destinations(rule, number, refused))
        if sources and destinations:
            protocols = tuple(n for n in rule.ip_proto if 0 <= n <= 255) if rule.ip_proto else DEFAULT_PROTOCOLS
            compiled.append((sources, destinations, protocols))
    return FilterProgram(tuple(compiled), networks, tuple(refused))


def filter_program(
    rules: Iterable[Rule],
    local: Iterable[IPPrefix],
    *,
    shields_up: bool = False,
    attached: Iterable[IPPrefix] = (),
    host_addresses: Iterable[IPAddress] = (),
    cap_sources: Callable[[str], Iterable[IPPrefix]] = _no_holders,
) -> Filter:
    """``plan_filter``, compiled."""
    return plan_filter(
        rules,
        local,
        shields_up=shields_up,
        attached=attached,
        host_addresses=host_addresses,
        cap_sources=cap_sources,
    ).compile()


def local_networks(
    local: Iterable[IPPrefix], attached: Iterable[IPPrefix] = (), host_addresses: Iterable[IPAddress] = ()
) -> list[Prefix]:
    """The destinations this node serves (PF-02).

    A default route is offered like a guest network: the networks the host is attached to are left out, the host's
    own addresses stay in, private and mesh ranges are always left out (PF-04). A prefix listed on its own counts
    whatever the default route leaves out.
    """
    served = IPSet()
    for prefix in local:
        whole = Prefix(prefix.network_address.packed, prefix.prefixlen)
        served |= _guest_network(whole, attached, host_addresses) if whole.bits == 0 else IPSet(prefixes=[whole])
    return served.prefixes()


def _guest_network(default: Prefix, attached: Iterable[IPPrefix], host_addresses: Iterable[IPAddress]) -> IPSet:
    networks = IPSet(
        prefixes=[
            Prefix(prefix.network_address.packed, prefix.prefixlen)
            for prefix in attached
            if prefix.prefixlen not in (0, prefix.max_prefixlen) and not is_tailscale_ip(prefix.network_address)
        ]
    )
    own = IPSet(ranges=[(ip.packed, ip.packed) for ip in host_addresses if ip.packed in default])
    return ((IPSet(prefixes=[default]) - networks) | own) - _NEVER_ROUTED


def _sources(
    names: Iterable[str], number: int, cap_sources: Callable[[str], Iterable[IPPrefix]], refused: list[str]
) -> Iterator[AddressRange]:
    for text in names:
        if text.startswith("cap:"):
            if text == "cap:":
                refused.append(f"rule {number}: source without capability name")
                continue
            for prefix in cap_sources(text[4:]):
                yield prefix.network_address.packed, prefix.broadcast_address.packed
            continue
        try:
            yield from parse_addresses(text)
        except ValueError as error:
            refused.append(f"rule {number}: source {error}")


def _destinations(rule: Rule, number: int, refused: list[str]) -> Iterator[tuple[bytes, bytes, int, int]]:
    for destination in rule.dst_ports:
        first, last = destination.ports.first, destination.ports.last
        if not 0 <= first <= last <= 0xFFFF:
            refused.append(f"rule {number}: destination ports {first}-{last} are not a range")
            continue
        try:
            ranges = parse_addresses(destination.ip)
        except ValueError as error:
            refused.append(f"rule {number}: destination {error}")
            continue
        for low, high in ranges:
            yield low, high, first, last


def parse_addresses(text: str) -> tuple[AddressRange, ...]:
    """The ranges meant by ``*``, an address, a prefix without host bits, or ``first-last``; ValueError otherwise."""
    if text == "*":
        return _EVERYTHING
    if "/" in text:
        prefix = Prefix.parse(text)
        return ((prefix.address, prefix.last),)
    first, dash, last = text.partition("-")
    low = parse_address(first)
    high = parse_address(last) if dash else low
    if len(low) != len(high) or low > high:
        raise ValueError(f"{text!r} is not a range of addresses")
    return ((low, high),)
