"""From the filter rules of the control server to a packet filter program.

Rules arrive as text: addresses, prefixes, ranges, ``*`` and ``cap:<capability>``. What cannot be understood is
dropped item by item with a reason, which never lets more in than the rest of the rule does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from meshd._fast.filter import Filter
from meshd._fast.ipprefix import Prefix, parse_address
from meshd._fast.ipset import IPSet
from meshd.base.addr import IPAddress, IPPrefix
from meshd.base.ranges import CGNAT, SERVICE_V4, SERVICE_V6, ULA, is_tailscale_ip

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

_SERVICES = IPSet(ranges=[(ip.packed, ip.packed) for ip in (SERVICE_V4, SERVICE_V6)])

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


class FilterProgram(msgspec.Struct, frozen=True):
    """A filter as plain values: equal programs filter alike, so a caller can tell whether anything changed."""

    rules: tuple[CompiledRule, ...] = ()
    local: tuple[tuple[bytes, int], ...] = ()
    """Prefixes this node serves, as (packed address, length)."""
    refused: tuple[str, ...] = ()
    """Why items of the rules were left out, for the log."""

    def compile(self) -> Filter:
        """The program that the packet path runs. Its cost grows with the number of distinct addresses."""
        return Filter(self.rules, self.local)


def has_bits(rule: Rule) -> bool:
    """Whether it has fields of a form that this capability version does not have. Nobody knows what they let in, so a
    filter with such a rule lets nothing in and grants nothing."""
    return bool(rule.src_bits) or any(destination.bits is not None for destination in rule.dst_ports)


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
    return FilterPlanner().plan(
        rules,
        local,
        shields_up=shields_up,
        attached=attached,
        host_addresses=host_addresses,
        cap_sources=cap_sources,
    )


class _Sources(NamedTuple):
    """A list of sources, worked out."""

    names: tuple[str, ...]
    ranges: tuple[AddressRange, ...]
    refused: tuple[str, ...]
    paired: bool
    """Every name stands for one range."""
    fixed: bool
    """No name is a capability: those stand for something else when a peer gets or loses one."""


class _Planned(NamedTuple):
    """A rule, worked out; None where nothing is left of it."""

    rule: Rule
    sources: _Sources
    compiled: CompiledRule | None
    refused: tuple[str, ...]


class _Holders:
    """The addresses that capabilities stand for. Each is asked for once, since all peers must be looked at, and what
    is as ``before`` is the same object, which makes it quick to compare."""

    def __init__(
        self,
        cap_sources: Callable[[str], Iterable[IPPrefix]],
        before: Mapping[str, tuple[AddressRange, ...]] | None = None,
    ) -> None:
        self.known: dict[str, tuple[AddressRange, ...]] = {}
        self._cap_sources = cap_sources
        self._before = before or {}

    def __call__(self, capability: str) -> tuple[AddressRange, ...]:
        found = self.known.get(capability)
        if found is None:
            prefixes = self._cap_sources(capability)
            found = tuple((p.network_address.packed, p.broadcast_address.packed) for p in prefixes)
            before = self._before.get(capability)
            found = self.known[capability] = before if before == found else found
        return found


class FilterPlanner:
    """`plan_filter` for rules that come again and again: its cost is that of what changed.

    A rule that is the same object as at the last call is taken as it was, one with capabilities where these stand for
    the same addresses. Where a rule differs from the one that was in its place by some sources, only these are read.
    Equal lists of sources become the same object.
    """

    def __init__(self) -> None:
        self.capabilities: frozenset[str] = frozenset()
        """Those that are sources of some rule."""
        self._planned: dict[int, _Planned] = {}  # by id of the rule
        self._order: list[_Planned] = []
        self._held: dict[str, tuple[AddressRange, ...]] = {}  # the holders of capabilities
        self._lists: dict[tuple[str, ...], _Sources] = {}

    def plan(
        self,
        rules: Iterable[Rule],
        local: Iterable[IPPrefix],
        *,
        shields_up: bool = False,
        attached: Iterable[IPPrefix] = (),
        host_addresses: Iterable[IPAddress] = (),
        cap_sources: Callable[[str], Iterable[IPPrefix]] = _no_holders,
    ) -> FilterProgram:
        """The arguments are those of ``plan_filter``."""
        networks = tuple((prefix.address, prefix.bits) for prefix in local_networks(local, attached, host_addresses))
        rules = () if shields_up else tuple(rules)
        order: list[_Planned] = []
        refused: list[str] = []
        self.capabilities = frozenset()
        holders = _Holders(cap_sources, self._held)
        for number, rule in enumerate(rules):
            one = self._planned.get(id(rule))
            if one is None or one.rule is not rule:
                if has_bits(rule):
                    return FilterProgram(
                        local=networks, refused=(f"rule {number}: SrcBits or Bits, whole filter refused",)
                    )
                one = self._work_out(rule, self._similar(rule, number, len(rules)), holders)
            elif not one.sources.fixed:
                again = self._work_out(rule, None, holders)
                one = one if one == again else again
            order.append(one)
            refused += (f"rule {number}: {text}" for text in one.refused)
        self.capabilities = frozenset(
            name[4:] for one in order if not one.sources.fixed for name in one.sources.names if name.startswith("cap:")
        )
        self._order, self._held = order, holders.known
        self._planned = {id(one.rule): one for one in order}
        if len(self._lists) > 2 * len(order) + 16:
            self._lists = {}
            for one in order:
                self._remember(one.sources)
        return FilterProgram(tuple(one.compiled for one in order if one.compiled is not None), networks, tuple(refused))

    def _similar(self, rule: Rule, number: int, count: int) -> _Sources | None:
        """The sources of the rule that was in this place, counted from the first or from the last."""
        for place in (number, number - count + len(self._order)):
            if 0 <= place < len(self._order) and self._order[place].rule.dst_ports == rule.dst_ports:
                return self._order[place].sources
        return None

    def _work_out(
        self, rule: Rule, similar: _Sources | None, holders: Callable[[str], tuple[AddressRange, ...]]
    ) -> _Planned:
        names = tuple(rule.src_ips)
        sources = self._lists.get(names)
        if sources is None:
            sources = _changed_sources(names, similar) if similar is not None and similar.paired else None
            if sources is None:
                sources = _read_sources(names, holders)
            self._remember(sources)
        refused: list[str] = []
        destinations = tuple(_destinations(rule, refused))
        compiled: CompiledRule | None = None
        if sources.ranges and destinations:
            protocols = tuple(n for n in rule.ip_proto if 0 <= n <= 255) if rule.ip_proto else DEFAULT_PROTOCOLS
            compiled = (sources.ranges, destinations, protocols)
        return _Planned(rule, sources, compiled, (*sources.refused, *refused))

    def _remember(self, sources: _Sources) -> None:
        if sources.fixed:
            self._lists[sources.names] = sources


def local_networks(
    local: Iterable[IPPrefix], attached: Iterable[IPPrefix] = (), host_addresses: Iterable[IPAddress] = ()
) -> list[Prefix]:
    """The destinations this node serves (PF-02).

    A default route is offered like a guest network: the networks the host is attached to are left out, the host's
    own addresses stay in, private and mesh ranges are always left out (PF-04). A prefix listed on its own counts
    whatever the default route leaves out. What this daemon does for its own host is never served to others.
    """
    served = IPSet()
    for prefix in local:
        whole = Prefix(prefix.network_address.packed, prefix.prefixlen)
        served |= _guest_network(whole, attached, host_addresses) if whole.bits == 0 else IPSet(prefixes=[whole])
    return (served - _SERVICES).prefixes()


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


def _read_sources(names: tuple[str, ...], holders: Callable[[str], tuple[AddressRange, ...]]) -> _Sources:
    found: list[AddressRange] = []
    refused: list[str] = []
    paired = fixed = True
    for text in names:
        before = len(found)
        if text == "cap:":
            refused.append("source without capability name")
        elif text.startswith("cap:"):
            fixed = False
            found += holders(text[4:])
        else:
            try:
                found += parse_addresses(text)
            except ValueError as error:
                refused.append(f"source {error}")
        paired = paired and len(found) == before + 1
    return _Sources(names, tuple(found), tuple(refused), paired and fixed, fixed)


def _changed_sources(names: tuple[str, ...], before: _Sources) -> _Sources | None:
    """A list that is much like another one; None when what is new in it is no plain addresses."""
    old = before.names
    head = _common(old, names)
    tail = _common(old[head:][::-1], names[head:][::-1])
    if head + tail < len(names) // 2:
        return None
    fresh = _read_sources(names[head : len(names) - tail], _Holders(_no_holders))
    if not fresh.paired:
        return None
    ranges = (*before.ranges[:head], *fresh.ranges, *before.ranges[len(old) - tail :])
    return _Sources(names, ranges, (), paired=True, fixed=True)


def _common(a: tuple[str, ...], b: tuple[str, ...]) -> int:
    """With how many equal items the two begin; slices are compared, which is quick for long lists."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _destinations(rule: Rule, refused: list[str]) -> Iterator[tuple[bytes, bytes, int, int]]:
    for destination in rule.dst_ports:
        first, last = destination.ports.first, destination.ports.last
        if not 0 <= first <= last <= 0xFFFF:
            refused.append(f"destination ports {first}-{last} are not a range")
            continue
        try:
            ranges = parse_addresses(destination.ip)
        except ValueError as error:
            refused.append(f"destination {error}")
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
