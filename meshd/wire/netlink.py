"""rtnetlink messages: links, addresses, routes and policy rules (Linux, rtnetlink(7)).

Requests are bytes ready to send except for the sequence number, which ``pack`` takes; answers are walked
with ``messages`` and ``attributes``. Integers are in host byte order, addresses in network order.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from typing import NamedTuple

from meshd.base.addr import IPAddress, IPPrefix, unpack_ip
from meshd.base.errors import WireError

NLMSG_ERROR, NLMSG_DONE = 2, 3
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34
RTM_NEWNETCONF = 80

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400

AF_UNSPEC, AF_INET, AF_INET6 = 0, 2, 10
IFF_UP, IFF_LOOPBACK, IFF_RUNNING, IFF_LOWER_UP = 0x1, 0x8, 0x40, 0x10000
IFLA_IFNAME, IFLA_MTU, IFLA_LINKINFO, IFLA_GSO_MAX_SIZE, IFLA_GSO_IPV4_MAX_SIZE = 3, 4, 18, 41, 63
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_TUN_NUM_QUEUES, IFLA_TUN_NUM_DISABLED_QUEUES = 1, 2, 8, 9
IFA_ADDRESS, IFA_LOCAL, IFA_F_TENTATIVE = 1, 2, 0x40
NETCONFA_IFINDEX = 1
RTA_DST, RTA_OIF, RTA_PRIORITY, RTA_GATEWAY, RTA_TABLE = 1, 4, 6, 5, 15
RTN_UNICAST, RTN_UNREACHABLE, RTN_THROW = 1, 7, 9
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK = 0, 253
FRA_PRIORITY, FRA_FWMARK, FRA_TABLE, FRA_FWMASK, FRA_PROTOCOL = 6, 10, 15, 16, 21
FR_ACT_TO_TBL, FR_ACT_UNREACHABLE = 1, 7
RTPROT_STATIC = 4

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBi")
_ROUTE = struct.Struct("=BBBBBBBBI")
_NETCONF = struct.Struct("=B3x")
_U32 = struct.Struct("=I")
_ROUTE_V4 = struct.Struct("=BBBBBBBBI HHI HH4s HHI")  # with the attributes table, destination, interface


class Request(NamedTuple):
    """One request: message type, flags besides REQUEST, and the body."""

    kind: int
    flags: int
    body: bytes

    def pack(self, sequence: int, *, only_errors: bool = False) -> bytes:
        """``only_errors``: success is not to be acknowledged."""
        flags = (self.flags & ~NLM_F_ACK if only_errors else self.flags) | NLM_F_REQUEST
        return _HEADER.pack(_HEADER.size + len(self.body), self.kind, flags, sequence, 0) + self.body


class Message(NamedTuple):
    """One answer or notification."""

    kind: int
    sequence: int
    body: bytes


class Link(NamedTuple):
    interface: int
    name: str
    flags: int
    mtu: int


class InterfaceAddress(NamedTuple):
    """``local`` is the host's own address, ``bits`` the length of the attached prefix, which is that of ``far`` where
    an IPv4 link has an address at each end; with IPv6 it stays that of ``local``. A ``tentative`` one cannot be used
    yet: the kernel still asks whether somebody else has it."""

    interface: int
    local: IPAddress
    bits: int
    tentative: bool = False
    far: IPAddress | None = None


class Route(NamedTuple):
    """``prefix`` None stands for the default route."""

    family: int
    table: int
    prefix: tuple[IPAddress, int] | None
    interface: int
    kind: int


class Rule(NamedTuple):
    """A policy routing rule; ``table`` 0 with an action other than lookup."""

    family: int
    priority: int
    action: int
    table: int = 0
    mark: int = 0
    mask: int = 0


def _family(version: int) -> int:
    return AF_INET if version == 4 else AF_INET6


def _attribute(kind: int, payload: bytes) -> bytes:
    size = _ATTRIBUTE.size + len(payload)
    return _ATTRIBUTE.pack(size, kind) + payload + bytes(-size % 4)


def _u32(kind: int, value: int) -> bytes:
    return _attribute(kind, _U32.pack(value))


def set_link(index: int, *, up: bool, mtu: int) -> Request:
    """Bring an interface up or down and set its MTU."""
    body = _LINK.pack(AF_UNSPEC, 0, index, IFF_UP if up else 0, IFF_UP) + _u32(IFLA_MTU, mtu)
    return Request(RTM_NEWLINK, NLM_F_ACK, body)


def limit_segmentation(index: int, size: int) -> Request:
    """The largest packet, in bytes, that the kernel hands to the interface for cutting up."""
    body = _LINK.pack(AF_UNSPEC, 0, index, 0, 0)
    return Request(RTM_NEWLINK, NLM_F_ACK, body + _u32(IFLA_GSO_MAX_SIZE, size) + _u32(IFLA_GSO_IPV4_MAX_SIZE, size))


def get_links() -> Request:
    return Request(RTM_GETLINK, NLM_F_DUMP, _LINK.pack(AF_UNSPEC, 0, 0, 0, 0))


def _address(kind: int, flags: int, index: int, prefix: IPPrefix) -> Request:
    packed = prefix.network_address.packed
    body = _ADDRESS.pack(_family(prefix.version), prefix.prefixlen, 0, RT_SCOPE_UNIVERSE, index)
    if prefix.version == 4:
        body += _attribute(IFA_LOCAL, packed)
    return Request(kind, flags | NLM_F_ACK, body + _attribute(IFA_ADDRESS, packed))


def add_address(index: int, prefix: IPPrefix) -> Request:
    """Give the interface an address; one that it has already is no error."""
    return _address(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, index, prefix)


def delete_address(index: int, prefix: IPPrefix) -> Request:
    return _address(RTM_DELADDR, 0, index, prefix)


def get_addresses() -> Request:
    return Request(RTM_GETADDR, NLM_F_DUMP, _ADDRESS.pack(AF_UNSPEC, 0, 0, 0, 0))


def _route(kind: int, flags: int, prefix: IPPrefix, table: int, interface: int | None) -> Request:
    if interface is not None and prefix.prefixlen and prefix.version == 4:  # a map may bring thousands of these
        fixed = (AF_INET, prefix.prefixlen, 0, 0, min(table, 252), RTPROT_STATIC, RT_SCOPE_LINK, RTN_UNICAST, 0)
        to = (8, RTA_DST, prefix.network_address.packed)
        return Request(kind, flags | NLM_F_ACK, _ROUTE_V4.pack(*fixed, 8, RTA_TABLE, table, *to, 8, RTA_OIF, interface))
    action = RTN_UNICAST if interface is not None else RTN_THROW
    scope = RT_SCOPE_LINK if interface is not None and prefix.version == 4 else RT_SCOPE_UNIVERSE
    body = _ROUTE.pack(
        _family(prefix.version), prefix.prefixlen, 0, 0, min(table, 252), RTPROT_STATIC, scope, action, 0
    )
    body += _u32(RTA_TABLE, table)
    if prefix.prefixlen:
        body += _attribute(RTA_DST, prefix.network_address.packed)
    if interface is not None:
        body += _u32(RTA_OIF, interface)
    return Request(kind, flags | NLM_F_ACK, body)


def replace_route(prefix: IPPrefix, table: int, interface: int | None) -> Request:
    """A route into ``interface``, or a throw route (look further in the next table) for None."""
    return _route(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, prefix, table, interface)


def delete_route(prefix: IPPrefix, table: int, interface: int | None) -> Request:
    return _route(RTM_DELROUTE, 0, prefix, table, interface)


def get_routes(family: int, table: int) -> Request:
    """The routes of a table; of all tables where the kernel, or the socket, does not look at what is asked for."""
    return Request(RTM_GETROUTE, NLM_F_DUMP, _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0) + _u32(RTA_TABLE, table))


def _rule(kind: int, flags: int, rule: Rule) -> Request:
    body = _ROUTE.pack(rule.family, 0, 0, 0, min(rule.table, 252), 0, 0, rule.action, 0)
    body += _u32(FRA_PRIORITY, rule.priority)
    if rule.mask:
        body += _u32(FRA_FWMARK, rule.mark) + _u32(FRA_FWMASK, rule.mask)
    if rule.table:
        body += _u32(FRA_TABLE, rule.table)
    return Request(kind, flags | NLM_F_ACK, body)


def add_rule(rule: Rule) -> Request:
    """Fails with EEXIST when an equal rule stands already."""
    return _rule(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, rule)


def delete_rule(rule: Rule) -> Request:
    return _rule(RTM_DELRULE, 0, rule)


def get_rules(family: int) -> Request:
    return Request(RTM_GETRULE, NLM_F_DUMP, _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))


def messages(data: bytes) -> Iterator[Message]:
    """The messages of one datagram from the kernel."""
    offset = 0
    while len(data) - offset >= _HEADER.size:
        size, kind, _, sequence, _ = _HEADER.unpack_from(data, offset)
        if size < _HEADER.size or offset + size > len(data):
            raise WireError("a netlink message is longer than its datagram", offset=offset)
        yield Message(kind, sequence, data[offset + _HEADER.size : offset + size])
        offset += (size + 3) & ~3


def error_number(message: Message) -> int:
    """errno of an NLMSG_ERROR (0 for an acknowledgement)."""
    if len(message.body) < 4:
        raise WireError("a netlink error has no number")
    return -int.from_bytes(message.body[:4], sys.byteorder, signed=True)


def attributes(body: bytes, offset: int) -> dict[int, bytes]:
    """The attributes that follow the fixed part of ``offset`` bytes."""
    found: dict[int, bytes] = {}
    while len(body) - offset >= _ATTRIBUTE.size:
        size, kind = _ATTRIBUTE.unpack_from(body, offset)
        if size < _ATTRIBUTE.size or offset + size > len(body):
            raise WireError("a netlink attribute is longer than its message", offset=offset)
        found[kind & 0x3FFF] = body[offset + _ATTRIBUTE.size : offset + size]
        offset += (size + 3) & ~3
    return found


def _number(raw: bytes | None, default: int = 0) -> int:
    return int.from_bytes(raw, sys.byteorder) if raw else default


def _fixed(layout: struct.Struct, body: bytes) -> tuple[int, ...]:
    if len(body) < layout.size:
        raise WireError("a netlink message is too short", expected=f"{layout.size} bytes")
    return layout.unpack_from(body)


def decode_link(message: Message) -> Link:
    _, _, index, flags, _ = _fixed(_LINK, message.body)
    found = attributes(message.body, _LINK.size)
    name = found.get(IFLA_IFNAME, b"").rstrip(b"\0").decode("utf-8", "replace")
    return Link(index, name, flags, _number(found.get(IFLA_MTU)))


def decode_tun_queues(message: Message) -> int:
    """How many descriptors a TUN interface with several queues has, of all processes; 0 when the kernel does not say,
    as for one that can have only one."""
    _fixed(_LINK, message.body)
    info = attributes(attributes(message.body, _LINK.size).get(IFLA_LINKINFO, b""), 0)
    if info.get(IFLA_INFO_KIND, b"").rstrip(b"\0") != b"tun":
        return 0
    data = attributes(info.get(IFLA_INFO_DATA, b""), 0)
    return sum(_number(data.get(kind)) for kind in (IFLA_TUN_NUM_QUEUES, IFLA_TUN_NUM_DISABLED_QUEUES))


def addresses_up(links: Iterable[Link], addresses: Iterable[InterfaceAddress]) -> list[InterfaceAddress]:
    """Those whose interface is up, in the order of the interfaces: one that is down keeps what it was given."""
    found: dict[int, list[InterfaceAddress]] = {link.interface: [] for link in links if link.flags & IFF_UP}
    for address in addresses:
        if address.interface in found:
            found[address.interface].append(address)
    return [address for each in found.values() for address in each]


def decode_address(message: Message) -> InterfaceAddress | None:
    """None for an address of a family other than IPv4 and IPv6."""
    family, bits, flags, _, index = _fixed(_ADDRESS, message.body)
    found = attributes(message.body, _ADDRESS.size)
    packed = found.get(IFA_LOCAL) or found.get(IFA_ADDRESS)
    if family not in (AF_INET, AF_INET6) or packed is None or len(packed) not in (4, 16):
        return None
    other = found.get(IFA_ADDRESS, packed)
    far = unpack_ip(other) if family == AF_INET and other != packed and len(other) == 4 else None
    return InterfaceAddress(index, unpack_ip(packed), bits, bool(flags & IFA_F_TENTATIVE), far)


def decode_netconf(message: Message) -> int:
    """The interface whose settings changed; negative for those of all and of new ones."""
    _fixed(_NETCONF, message.body)
    raw = attributes(message.body, _NETCONF.size).get(NETCONFA_IFINDEX, b"")
    return int.from_bytes(raw, sys.byteorder, signed=True)


def decode_route(message: Message) -> Route | None:
    """None for a route of a family other than IPv4 and IPv6. One to ``::ffff:0:0/96``, or in it, is one of IPv6."""
    family, bits, _, _, table, _, _, kind, _ = _fixed(_ROUTE, message.body)
    if family not in (AF_INET, AF_INET6):
        return None
    found = attributes(message.body, _ROUTE.size)
    target = found.get(RTA_DST)
    prefix = (ip_address(target), bits) if target is not None and len(target) in (4, 16) else None
    return Route(family, _number(found.get(RTA_TABLE), table), prefix, _number(found.get(RTA_OIF)), kind)


def decode_rule(message: Message) -> Rule:
    family, _, _, _, table, _, _, action, _ = _fixed(_ROUTE, message.body)
    found = attributes(message.body, _ROUTE.size)
    mark = _number(found.get(FRA_FWMARK))
    return Rule(
        family,
        _number(found.get(FRA_PRIORITY)),
        action,
        _number(found.get(FRA_TABLE), table),
        mark,
        _number(found.get(FRA_FWMASK), 0xFFFFFFFF if mark else 0),
    )
