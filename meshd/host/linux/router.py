"""Addresses, routes and policy rules on Linux.

meshd owns routing table 52, the rules of priority 5210 to 5270 (1310 to 1370 beside OpenWrt's mwan3) that lead to
it, and its interface. Traffic that carries the bypass mark, meshd's own, does not look into table 52 and so never
loops.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable
from pathlib import Path

from meshd.base.addr import IPPrefix, host_prefix
from meshd.base.errors import MeshdError
from meshd.base.log import get_logger, kv
from meshd.core.routeplan import RouteChange
from meshd.core.routes import RouterConfig
from meshd.host.linux.journal import Journal
from meshd.host.linux.rtnetlink import RtNetlink
from meshd.wire import netlink as nl

log = get_logger(__name__)

TABLE = 52
RULES_FROM, RULES_BEFORE_MWAN3 = 5200, 1300
# Sealed, the 49 packets of 1280 bytes that this makes just fit one UDP_SEGMENT send of 65507 bytes.
GSO_MAX_SIZE = 60224
BYPASS_MARK = 0x80000
MARK_MASK = 0xFF0000
_MAIN, _DEFAULT = 254, 253
_DONE = (0, errno.EEXIST)
_GONE = (0, errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENODEV, errno.EAFNOSUPPORT, errno.EOPNOTSUPP)
_UNSUPPORTED = (errno.EAFNOSUPPORT, errno.EOPNOTSUPP)
_NO_RIGHT = "meshd needs CAP_NET_ADMIN; run it as root or with --tun=userspace-networking"
_HINTS = {
    errno.EPERM: _NO_RIGHT,
    errno.EACCES: _NO_RIGHT,
    errno.ENETDOWN: "somebody set the interface down, so nothing passes through the mesh: ip link set {} up",
}
_IPV6_SETTINGS = Path("/proc/sys/net/ipv6/conf")


def policy_rules(family: int, base: int = RULES_FROM) -> list[nl.Rule]:
    """Our four rules, in order."""
    return [
        nl.Rule(family, base + 10, nl.FR_ACT_TO_TBL, _MAIN, BYPASS_MARK, MARK_MASK),
        nl.Rule(family, base + 30, nl.FR_ACT_TO_TBL, _DEFAULT, BYPASS_MARK, MARK_MASK),
        nl.Rule(family, base + 50, nl.FR_ACT_UNREACHABLE, 0, BYPASS_MARK, MARK_MASK),
        nl.Rule(family, base + 70, nl.FR_ACT_TO_TBL, TABLE),
    ]


def rules_from(netlink: RtNetlink, root: Path = Path("/")) -> int:
    """Where our priorities begin. OpenWrt's mwan3 decides on everything from 2001 on, so there we come first."""
    if not (root / "etc/config/mwan3").exists():
        return RULES_FROM
    theirs = [rule for rule in netlink.rules(nl.AF_INET) if 2001 <= rule.priority <= 2004 and rule.mark]
    return RULES_BEFORE_MWAN3 if theirs else RULES_FROM


class LinuxRouter:
    """Makes the host match a RouterConfig by the smallest change, and undoes everything on close.

    While the host has IPv6 switched off, for all or for our interface alone, its addresses, routes and rules wait:
    they come with the first call after it was switched on again. A kernel without policy rules for IPv6 gets none.
    """

    def __init__(self, netlink: RtNetlink, interface: str, journal: Journal, root: Path = Path("/")) -> None:
        self._netlink = netlink
        self._interface = interface
        self._index = netlink.interface_index(interface)
        self._journal = journal
        self._root = root
        self._addresses: set[IPPrefix] = set()
        self._routes: dict[IPPrefix, int | None] = {}  # the interface, None for a throw route
        self._doubtful: set[IPPrefix] = set()  # of a change that failed half-way
        self._mtu = 0
        self._rules: list[nl.Rule] = []
        self._rules_stand = False
        self._ipv6 = True
        self._ipv6_rules = True  # until the kernel says that it has none

    def apply(self, config: RouterConfig) -> None:
        """Bring the host to ``config``. Raises MeshdError naming the first change the kernel refused."""
        if self._mtu != config.mtu:
            self._do([("set up", self._interface, nl.set_link(self._index, up=True, mtu=config.mtu))])
            self._limit_segmentation()
            self._mtu = config.mtu
        came_back = self._look_at_ipv6()
        addresses = set(config.addresses)
        routes: dict[IPPrefix, int | None] = dict.fromkeys(config.routes, self._index)
        routes.update(dict.fromkeys(config.throws))
        if addresses and not self._rules_stand:
            self._add_rules()
        gone = self._addresses - addresses
        self._set_addresses(addresses)
        # New ones first: where one route takes the place of many or the other way round, packets find a way meanwhile.
        self._set_routes(routes)
        self._drop_routes([p for p in self._routes if p not in routes])
        if gone or came_back:  # with its last IPv4 address an interface loses all IPv4 routes
            self.restore()
        if not addresses and self._rules:
            self._remove_rules()

    def change(self, change: RouteChange) -> None:
        """Bring some routes up to date; costs nothing for all others. Raises as ``apply`` does."""
        # Asked only where it matters: most changes are of one IPv4 address, and a look costs as much as the change.
        came_back = any(p.version == 6 for p in (*change.routes, *change.throws)) and self._look_at_ipv6()
        routes: dict[IPPrefix, int | None] = dict.fromkeys(change.routes, self._index)
        routes.update(dict.fromkeys(change.throws))
        self._set_routes(routes)
        self._drop_routes([p for p in change.gone if p in self._routes])
        if came_back:
            self.restore()

    def _limit_segmentation(self) -> None:
        """Saves a system call per super packet; kernels that cannot are as right without."""
        (number,) = self._netlink.execute([nl.limit_segmentation(self._index, GSO_MAX_SIZE)])
        if number:
            log.debug("gso_limit_refused", extra=kv(reason=os.strerror(number)))

    def _look_at_ipv6(self) -> bool:
        """Whether IPv6 came back; anybody may switch it at any time."""
        before, self._ipv6 = self._ipv6, self._ipv6_rules and _ipv6_usable(self._index)
        if before and not self._ipv6:
            log.info("ipv6_unavailable", extra=kv(interface=self._interface))
        return self._ipv6 and not before

    def _usable(self, prefix: IPPrefix) -> bool:
        return self._ipv6 or prefix.version == 4

    def _usable_rules(self, rules: list[nl.Rule]) -> list[nl.Rule]:
        return [rule for rule in rules if self._ipv6 or rule.family == nl.AF_INET]

    def _set_addresses(self, addresses: set[IPPrefix]) -> None:
        # Added first: with its last IPv4 address an interface loses all IPv4 routes.
        added = [a for a in addresses - self._addresses if self._usable(a)]
        self._do(("add the address", a, nl.add_address(self._index, a)) for a in added)
        self._netlink.execute([nl.delete_address(self._index, a) for a in self._addresses - addresses])
        self._addresses = addresses

    def _set_routes(self, routes: dict[IPPrefix, int | None]) -> None:
        held, doubtful = self._routes, self._doubtful
        changed = [(p, i) for p, i in routes.items() if held.get(p, 0) != i or (doubtful and p in doubtful)]
        # Noted first: what the kernel may hold must be taken back in the end.
        self._routes.update(changed)
        self._doubtful.update(p for p, _ in changed)
        self._do(("add a route to", p, nl.replace_route(p, TABLE, i)) for p, i in changed if self._usable(p))
        self._doubtful.clear()

    def _drop_routes(self, prefixes: list[IPPrefix]) -> None:
        requests = [nl.delete_route(p, TABLE, self._routes.pop(p)) for p in prefixes]
        self._doubtful.difference_update(prefixes)
        for number in self._netlink.execute(requests):
            if number not in _GONE:
                log.warning("route_not_removed", extra=kv(reason=os.strerror(number)))

    def _add_rules(self) -> None:
        if not self._rules:
            base = rules_from(self._netlink, self._root)
            # Noted first: what the kernel may hold must be taken back in the end.
            self._rules = [rule for family in (nl.AF_INET, nl.AF_INET6) for rule in policy_rules(family, base)]
            self._journal.record(self._rules, TABLE, self._interface)
        self._put_rules("add the policy rule", self._usable_rules(self._rules))
        self._rules_stand = True

    def _put_rules(self, what: str, rules: list[nl.Rule]) -> int:
        """How many there were for this kernel. Without rules for IPv6 nothing leads to its routes, and IPv4 goes on
        alone."""
        results = dict(zip(rules, self._netlink.execute([nl.add_rule(rule) for rule in rules]), strict=True))
        if any(rule.family == nl.AF_INET6 and number in _UNSUPPORTED for rule, number in results.items()):
            self._ipv6 = self._ipv6_rules = False
            log.warning("ipv6_rules_unsupported", extra=kv(interface=self._interface, action="IPv4 only"))
        usable = self._usable_rules(rules)
        for rule in usable:
            self._check(what, rule.priority, results[rule])
        return len(usable)

    def holds(self, route: nl.Route) -> bool:
        """Whether a route of our table is one that should be there."""
        return _prefix(route) in self._routes

    def restore(self) -> int:
        """Put back rules, addresses and routes that somebody else removed (RT-14); how many there were. Services
        that manage the network take what they do not know for left-overs, and a link that goes down loses all.
        Raises MeshdError as ``apply`` does."""
        self._look_at_ipv6()
        ours = self._usable_rules(self._rules)
        present = {rule for family in {r.family for r in ours} for rule in self._netlink.rules(family)}
        # Before the others: it shows whether they are for IPv6 too.
        count = self._put_rules("restore the policy rule", [rule for rule in ours if rule not in present])
        held = {host_prefix(a.local) for a in self._netlink.addresses() if a.interface == self._index}
        addresses = [address for address in self._addresses if address not in held and self._usable(address)]
        listed = {_prefix(route) for route in self._netlink.routes(TABLE)}
        routes = [(p, interface) for p, interface in self._routes.items() if p not in listed and self._usable(p)]
        self._do(("restore the address", a, nl.add_address(self._index, a)) for a in addresses)
        self._do(("restore the route to", p, nl.replace_route(p, TABLE, i)) for p, i in routes)
        return count + len(addresses) + len(routes)

    def rename(self, interface: str) -> None:
        """Somebody gave our interface another name."""
        self._interface = interface
        if self._rules:
            self._journal.record(self._rules, TABLE, interface)

    def _remove_rules(self) -> None:
        remove_rules(self._netlink, self._rules)
        self._rules, self._rules_stand = [], False
        self._journal.clear()

    def _do(self, changes: Iterable[tuple[str, object, nl.Request]]) -> None:
        todo = list(changes)
        results = self._netlink.execute([request for _, _, request in todo])
        for (what, which, _), number in zip(todo, results, strict=True):
            self._check(what, which, number)

    def _check(self, what: str, which: object, number: int) -> None:
        if number not in _DONE:
            raise MeshdError(
                f"cannot {what} {which} on {self._interface}: {os.strerror(number)}",
                code="host",
                hint=_HINTS.get(number, "").format(self._interface) or None,
            )

    def close(self) -> None:
        """Take back everything; the interface itself belongs to its opener."""
        self._drop_routes(list(self._routes))
        self._netlink.execute([nl.delete_address(self._index, a) for a in self._addresses])
        self._addresses = set()
        if self._rules:
            self._remove_rules()


def remove_rules(netlink: RtNetlink, rules: Iterable[nl.Rule]) -> None:
    """Delete rules; those that are gone already are no error."""
    todo = list(rules)
    for rule, number in zip(todo, netlink.execute([nl.delete_rule(r) for r in todo]), strict=True):
        if number not in _GONE:
            log.warning("rule_not_removed", extra=kv(priority=rule.priority, reason=os.strerror(number)))


def note_unused(netlink: RtNetlink, journal: Journal) -> None:
    """Note policy rules like ours for `clean_up` if they lead to nothing: nobody has a route in their table."""
    if any(route.kind != nl.RTN_THROW for route in netlink.routes(TABLE)):
        return
    found = [rule for family in (nl.AF_INET, nl.AF_INET6) for rule in netlink.rules(family)]
    for base in (RULES_FROM, RULES_BEFORE_MWAN3):
        ours = [rule for family in (nl.AF_INET, nl.AF_INET6) for rule in policy_rules(family, base) if rule in found]
        if ours:
            journal.record(ours, TABLE, "")


def clean_up(netlink: RtNetlink, journal: Journal) -> None:
    """Undo what a daemon that is gone left behind: its rules, throw routes in its table, and what went by its interface
    where an administrator made that one to stay (``ip tuntap add``)."""
    if journal.rules:
        present = {rule for family in (nl.AF_INET, nl.AF_INET6) for rule in netlink.rules(family)}
        remove_rules(netlink, [rule for rule in journal.rules if rule in present])
    try:
        index = netlink.interface_index(journal.interface) if journal.interface else 0
    except OSError:
        index = 0
    if journal.table:
        left = [
            nl.delete_route(_prefix(route), journal.table, None if route.kind == nl.RTN_THROW else index)
            for route in netlink.routes(journal.table)
            if route.kind == nl.RTN_THROW or (index and route.interface == index)
        ]
        netlink.execute(left)
    if index:
        ours = (a for a in netlink.addresses() if a.interface == index and a.bits == a.local.max_prefixlen)
        netlink.execute([nl.delete_address(index, host_prefix(a.local)) for a in ours])
    journal.clear()


def _prefix(route: nl.Route) -> IPPrefix:
    from ipaddress import ip_network

    if route.prefix is None:
        return ip_network("0.0.0.0/0" if route.family == nl.AF_INET else "::/0")
    address, bits = route.prefix
    return ip_network((address.packed, bits))


def _ipv6_usable(index: int) -> bool:
    """Whether the kernel takes IPv6 on an interface. It has no settings there where the MTU is too small for it."""
    try:
        names = ("all", socket.if_indextoname(index))
        return all((_IPV6_SETTINGS / name / "disable_ipv6").read_text().strip() == "0" for name in names)
    except OSError:
        return False
