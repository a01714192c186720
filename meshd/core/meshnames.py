"""Names that this node answers for by itself: those of the network's nodes, and those it makes up.

Everything is looked up in the netmap as it is at that moment, so nothing has to be built when nodes come and go.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address

from meshd.base.addr import IPAddress, parse_ip
from meshd.base.errors import WireError
from meshd.base.ranges import SERVICE_V4, SERVICE_V6, VIA
from meshd.core.netmap import Netmap
from meshd.core.node import Node
from meshd.wire.control import DNSConfig
from meshd.wire.dnsmessage import AAAA, ANY, PTR, A, Record, encode_name

TTL_S = 5  # nodes move; nothing is gained by remembering them for long
IPV6_ANSWERS = "magicdns-aaaa"
"""Capability with which nodes that have both kinds of address are found by AAAA too."""
SUBDOMAINS = "dns-subdomain-resolve"
"""Capability of nodes that are found by every name below theirs too."""
OWN_NAME = "magicdns.localhost-tailscale-daemon"
"""The name of the resolver itself, under which existing clients know it."""
_BROWSING = ("b", "db", "r", "dr", "lb")  # RFC 6763 11
_VIA_ZONES = ("ts.net", "tailscale.net")
_TYPES = {4: A, 6: AAAA}


class MeshNames:
    """Records of names; the netmap may be another at every question."""

    def __init__(self) -> None:
        self._source: DNSConfig | None = None
        self._extra: dict[str, tuple[IPAddress, ...]] = {}

    def records(self, netmap: Netmap | None, name: str, kind: int) -> list[Record] | None:
        """The records of this kind that a normal name (`meshd.core.dnsplan.normal`) has, None when the name is none
        that we know (DN-01, DN-12)."""
        found = self._pointer(netmap, name, kind)
        if found is None:
            addresses = self._addresses(netmap, name)
            if addresses is None:
                return None
            found = [Record(_TYPES[ip.version], TTL_S, ip.packed) for ip in addresses]
            found = [record for record in found if kind in (record.type, ANY)]
        return found

    def _pointer(self, netmap: Netmap | None, name: str, kind: int) -> list[Record] | None:
        address = reverse_address(name)
        if address is None:
            return None
        if address in (SERVICE_V4, SERVICE_V6):
            owner = OWN_NAME
        else:
            node = netmap.node_by_ip(address) if netmap is not None else None
            if node is None or not node.name:
                return None
            owner = node.name
        if kind not in (PTR, ANY):
            return []
        try:
            return [Record(PTR, TTL_S, encode_name(owner))]
        except WireError:
            return None  # what the server calls it is no name in DNS

    def _addresses(self, netmap: Netmap | None, name: str) -> Sequence[IPAddress] | None:
        if name == OWN_NAME:
            return (SERVICE_V4, SERVICE_V6)
        via = via_address(name, netmap.magic_dns_suffix.lower() if netmap is not None else "")
        if via is not None:
            return (via,)
        if netmap is None:
            return None
        node, extra = self._node(netmap, name), self._extra_records(netmap.dns).get(name, ())
        if node is None and not extra:
            node = self._parent_that_takes_all(netmap, name)
            if node is None:
                return None
        return [*(shown(netmap, node) if node is not None else ()), *extra]

    def _node(self, netmap: Netmap, name: str) -> Node | None:
        """The node of this name. Short names are for networks that want names of their own resolved."""
        if "." not in name and not (netmap.dns is not None and netmap.dns.proxied):
            return None
        node = netmap.node_by_name(name)
        return node if node is not None and node.addresses else None

    def _parent_that_takes_all(self, netmap: Netmap, name: str) -> Node | None:
        for parent in parents(name):
            node = self._node(netmap, parent) if "." in parent else None
            if node is not None:
                return node if node.has_cap(SUBDOMAINS) else None
        return None

    def _extra_records(self, dns: DNSConfig | None) -> dict[str, tuple[IPAddress, ...]]:
        if dns is not self._source:
            self._source, self._extra = dns, extra_records(dns)
        return self._extra


def extra_records(dns: DNSConfig | None) -> dict[str, tuple[IPAddress, ...]]:
    """Additional names of the network: only addresses, and none that is not one (DN-01)."""
    found: dict[str, list[IPAddress]] = {}
    for record in dns.extra_records if dns is not None else ():
        address = _parsed(record.value) if record.type in ("", "A", "AAAA") else None
        name = record.name.strip(".").lower()
        if address is not None and name:
            found.setdefault(name, []).append(address)
    return {name: tuple(addresses) for name, addresses in found.items()}


def shown(netmap: Netmap, node: Node) -> Sequence[IPAddress]:
    """Programs that get both kinds try IPv6 first, which gains them nothing: it is told where there is no other, and
    alone where we have no other (DN-01)."""
    both = node.ips
    if not any(prefix.version == 4 for prefix in netmap.self_node.addresses) and netmap.self_node.addresses:
        return [ip for ip in both if ip.version == 6]
    old = [ip for ip in both if ip.version == 4]
    return old if old and not netmap.self_node.has_cap(IPV6_ANSWERS) else both


def via_address(name: str, suffix: str) -> IPv6Address | None:
    """The IPv6 address that stands for an IPv4 address behind a site number, from names like ``10-1-1-16-via-7``
    (alone, or below ``suffix``) and, as they were once written, ``10.1.1.16.via-7`` and ``via-7.10.1.1.16``."""
    if "via-" not in name:
        return None
    label, _, zone = name.partition(".")
    dashed, separator, site = label.rpartition("-via-")
    if separator:
        if zone and not any(_below(zone, known) for known in (*_VIA_ZONES, suffix) if known):
            return None
        return _via(dashed.replace("-", "."), site)
    if label.startswith("via-"):
        return _via(zone, label.removeprefix("via-"))
    dotted, separator, site = name.rpartition(".via-")
    return _via(dotted, site) if separator else None


def _via(address: str, site: str) -> IPv6Address | None:
    try:
        number = int(site, 16 if site.startswith("0x") else 10)
        inner = IPv4Address(address)
    except ValueError:
        return None
    if not site.isalnum() or not 0 <= number < 1 << 32:
        return None
    return IPv6Address(int(VIA.network_address) | number << 32 | int(inner))


def reverse_address(name: str) -> IPAddress | None:
    """The address that a name below in-addr.arpa or ip6.arpa stands for, None for any other name."""
    if not name.endswith(".arpa"):
        return None
    labels = name.split(".")
    if labels[4:] == ["in-addr", "arpa"]:
        return _parsed(".".join(reversed(labels[:4])))
    if labels[32:] == ["ip6", "arpa"] and all(len(label) == 1 for label in labels[:32]):
        digits = [*reversed(labels[:32])]
        return _parsed(":".join("".join(digits[i : i + 4]) for i in range(0, 32, 4)))
    return None


def is_service_browsing(name: str) -> bool:
    """Whether a name asks for services of a domain (RFC 6763 11): programs do it all the time, for all networks that
    the host is in, and no resolver of the network could tell."""
    first, _, rest = name.partition(".")
    return first in _BROWSING and rest.startswith("_dns-sd._udp.")


def parents(name: str) -> Iterator[str]:
    """All names above a name, the nearest first; not the root."""
    while name:
        name = name.partition(".")[2]
        if name:
            yield name


def _below(name: str, zone: str) -> bool:
    return name == zone or name.endswith("." + zone)


def _parsed(text: str) -> IPAddress | None:
    try:
        return parse_ip(text)
    except ValueError:
        return None
