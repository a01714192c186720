"""Notices that the host's network changed.

One netlink socket; events are collected for a quarter of a second, since one change of a network brings
dozens of messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from array import array
from collections.abc import Callable, Iterable

from meshd.base.addr import IPAddress
from meshd.base.errors import MeshdError, WireError
from meshd.base.log import get_logger, kv
from meshd.core.tokenbucket import TokenBucket
from meshd.wire import netlink as nl

log = get_logger(__name__)

_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400  # link, IPv4 address, IPv4 route, IPv6 address, IPv6 route
# Numbers (not bits) of the groups for IPv4 and IPv6 rules, and settings such as ip_forward.
_MORE_GROUPS = (8, 19, 24, 25)
_LINK_STATE = nl.IFF_UP | nl.IFF_RUNNING | nl.IFF_LOWER_UP
_OUR_RULES = frozenset((*range(1300, 1400), *range(5200, 5300)))
_SETTLE_S = 0.25
_ASIDE_AT_ONCE = 6  # changes beside the way out that are told as they come, and how long the others wait to be told
_ASIDE_PAUSE_S = 10.0  # together: there are hosts where the bridges of containers come and go every second
_MAX_REST_S = 8.0  # while more happens than can be read, as when a router learns a table of the Internet
_BUFFER_BYTES = 1 << 20
_SO_RCVBUFFORCE = 33
_WAY_OUT_BITS = 8  # at most, of the prefix of a default route, or of what stands for one: a VPN's two halves, 2000::/3
_NETLINK_ADD_MEMBERSHIP = 1
_SOL_NETLINK = 270
_SO_ATTACH_FILTER = 26
_LOAD_WORD, _LOAD_HALF, _EQUAL, _RETURN = 0x20, 0x28, 0x15, 0x06  # of the kernel's socket filters


Networks = frozenset[tuple[int, IPAddress, int]]


def networks_of(addresses: Iterable[nl.InterfaceAddress], own_interface: int) -> Networks:
    """What other interfaces than ours have of addresses that can be used and lead anywhere."""
    others = (a for a in addresses if a.interface != own_interface and not a.tentative)
    return frozenset(
        (a.interface, a.local, a.bits) for a in others if not (a.local.is_link_local or a.local.is_loopback)
    )


def _interfaces_with(networks: Networks, sources: frozenset[IPAddress]) -> frozenset[int]:
    return frozenset(interface for interface, address, _ in networks if address in sources)


def _leave_out_routes(sock: socket.socket, port: int) -> None:
    """Have the kernel keep to itself the news of routes that were changed by requests from a netlink port."""
    kinds = [int.from_bytes(struct.pack("=H", kind), "big") for kind in (nl.RTM_NEWROUTE, nl.RTM_DELROUTE)]
    program = [
        (_LOAD_HALF, 0, 0, 4),  # the kind of message, as if it were in network byte order
        (_EQUAL, 1, 0, kinds[0]),
        (_EQUAL, 0, 3, kinds[1]),
        (_LOAD_WORD, 0, 0, 12),  # who asked for the change
        (_EQUAL, 0, 1, int.from_bytes(struct.pack("=I", port), "big")),
        (_RETURN, 0, 0, 0),
        (_RETURN, 0, 0, 0xFFFFFFFF),
    ]
    code = array("B", b"".join(struct.pack("=HBBI", *step) for step in program))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program), code.buffer_info()[0]))


class NetworkMonitor:
    """Calls ``changed()`` after addresses, ways out, or links that have addresses, other than our own changed (many
    changes that leave alone the way out, from the addresses of ``way_out``, are told together every ten seconds),
    ``routing_lost()`` after somebody deleted policy rules, addresses or routes of ours (``holds`` tells which routes
    should be there) or our interface was down for a while, ``interface_lost()`` after our interface itself went away,
    ``renamed(name)`` after somebody gave it another name, and ``settings_changed()`` after somebody set forwarding or
    path checks of the kernel."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        own_interface: int,
        own_name: str,
        own_table: int,
        changed: Callable[[], None],
        holds: Callable[[nl.Route], bool],
        routing_lost: Callable[[], None],
        interface_lost: Callable[[], None],
        renamed: Callable[[str], None],
        settings_changed: Callable[[], None],
        addresses: Callable[[], Iterable[nl.InterfaceAddress]],
        way_out: Callable[[], frozenset[IPAddress]],
        router_port: int = 0,
    ) -> None:
        """``router_port``: the netlink port by which our own router changes routes, of which nothing is heard then. A
        network of ten thousand peers brings more of them at once than the socket holds."""
        self._loop = loop
        self._addresses = addresses
        self._way_out = way_out
        self._sources = way_out()
        self._aside = TokenBucket(1 / _ASIDE_PAUSE_S, _ASIDE_AT_ONCE, loop.time())
        self._aside_timer: asyncio.TimerHandle | None = None
        self._networks = networks_of(addresses(), own_interface)
        self._out = _interfaces_with(self._networks, self._sources)
        self._link_states: dict[int, int] = {}
        self._moved: set[int] = set()  # links that went up, down or away
        self._certain = False  # something else changed, which counts in any case
        self._own_interface = own_interface
        self._own_name = own_name
        self._own_table = own_table
        self._changed = changed
        self._holds = holds
        self._routing_lost = routing_lost
        self._down = False
        self._interface_lost = interface_lost
        self._renamed = renamed
        self._settings_changed = settings_changed
        self._timer: asyncio.TimerHandle | None = None
        self._loss_timer: asyncio.TimerHandle | None = None
        self._settings_timer: asyncio.TimerHandle | None = None
        self._rest_timer: asyncio.TimerHandle | None = None
        self._rest_s = _SETTLE_S
        self._rested_at = -_MAX_REST_S
        self._closed = False
        self._socket = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
            socket.NETLINK_ROUTE,
        )
        with contextlib.suppress(OSError):  # without CAP_NET_ADMIN: then more is lost when much happens at once
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        with contextlib.suppress(OSError):  # a sandbox; then we read them, too
            if router_port:
                _leave_out_routes(self._socket, router_port)
        try:
            self._socket.bind((0, _GROUPS))
            for group in _MORE_GROUPS:
                self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
        except OSError:
            self._socket.close()
            raise
        loop.add_reader(self._socket.fileno(), self._readable)
        loop.call_soon(self._look_at_own)  # udev may have renamed it before we listened

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        timers = (self._timer, self._aside_timer, self._loss_timer, self._settings_timer, self._rest_timer)
        for timer in timers:
            if timer is not None:
                timer.cancel()

    def _readable(self) -> None:
        for _ in range(64):
            try:
                data = self._socket.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError as error:  # ENOBUFS: messages were lost
                log.info("network_events_lost", extra=kv(reason=error))
                self._rest()
                return
            try:
                self._look(data)
            except WireError as error:
                log.warning("netlink_event_bad", extra=kv(reason=error))

    def _rest(self) -> None:
        """Hear nothing for a moment, a longer one each time it comes to this; then look at everything."""
        now = self._loop.time()
        again = now - self._rested_at < 2 * _MAX_REST_S
        self._rest_s = min(2 * self._rest_s, _MAX_REST_S) if again else _SETTLE_S
        self._rested_at = now
        # Some event loops hear no more of a descriptor that had an error, until it is given to them anew.
        self._loop.remove_reader(self._socket.fileno())
        self._rest_timer = self._loop.call_later(self._rest_s, self._listen)

    def _listen(self) -> None:
        for _ in range(_BUFFER_BYTES >> 8):  # what waits is older than what is looked at now
            try:
                self._socket.recv(1 << 16)
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS
                continue
        self._loop.add_reader(self._socket.fileno(), self._readable)
        self._look_again()

    def _look_again(self) -> None:
        """Any message may be among those that were lost."""
        self._note_change(certain=True)
        self._note_loss()
        self._note_settings()
        self._down = True  # if it was not, the next news of it only make us look once more
        self._look_at_own()

    def _look_at_own(self) -> None:
        if self._closed:
            return
        try:
            self._note_name(socket.if_indextoname(self._own_interface))
        except OSError:
            self._interface_lost()

    def _note_name(self, name: str) -> None:
        if name and name != self._own_name:
            self._own_name = name
            self._renamed(name)

    def _look(self, data: bytes) -> None:
        for message in nl.messages(data):
            if log.isEnabledFor(logging.DEBUG):
                log.debug("netlink_message", extra=kv(kind=message.kind, bytes=len(message.body)))
            if self._takes_ours(message):
                self._note_loss()
            elif message.kind == nl.RTM_DELLINK and nl.decode_link(message).interface == self._own_interface:
                self._interface_lost()
            elif message.kind == nl.RTM_NEWNETCONF:
                interface = nl.decode_netconf(message)
                # A new link has its settings told; they matter once it has an address, which is a change of its own.
                if interface <= 0 or any(interface == known for known, _, _ in self._networks):
                    self._note_settings()
            elif message.kind in (nl.RTM_NEWLINK, nl.RTM_DELLINK):
                self._note_link(nl.decode_link(message), gone=message.kind == nl.RTM_DELLINK)
            elif message.kind in (nl.RTM_NEWADDR, nl.RTM_DELADDR):
                address = nl.decode_address(message)
                if address is not None and address.interface != self._own_interface:
                    self._note_change_of(address.interface)
            elif self._foreign_way_out(message):
                self._note_change(certain=True)

    def _takes_ours(self, message: nl.Message) -> bool:
        if message.kind == nl.RTM_DELRULE:
            return nl.decode_rule(message).priority in _OUR_RULES
        if message.kind == nl.RTM_DELROUTE:
            route = nl.decode_route(message)
            return route is not None and route.table == self._own_table and self._holds(route)
        if message.kind in (nl.RTM_NEWADDR, nl.RTM_DELADDR):
            address = nl.decode_address(message)
            if address is None or address.interface != self._own_interface:
                return False
            # The kernel gives it a link-local one when IPv6 is switched on again.
            return message.kind == nl.RTM_DELADDR or address.local.is_link_local
        if message.kind == nl.RTM_NEWLINK:
            link = nl.decode_link(message)
            if link.interface == self._own_interface:
                before, self._down = self._down, not link.flags & nl.IFF_UP
                return before and not self._down
        return False

    def _foreign_way_out(self, message: nl.Message) -> bool:
        if message.kind in (nl.RTM_NEWROUTE, nl.RTM_DELROUTE):
            route = nl.decode_route(message)
            # Others come and go all the time where containers run or routers learn. Networks of the host come with an
            # address.
            return (
                route is not None
                and route.table not in (self._own_table, 255)
                and route.interface != self._own_interface
                and (route.prefix is None or route.prefix[1] <= _WAY_OUT_BITS)
            )
        return False

    def _note_link(self, link: nl.Link, *, gone: bool) -> None:
        """Most news of links are none: containers come and go with theirs, and radios tell of every beacon."""
        if link.interface == self._own_interface:
            self._note_name(link.name)
            return
        state = 0 if gone else link.flags & _LINK_STATE
        if self._link_states.get(link.interface) != state:
            self._link_states[link.interface] = state
            self._moved.add(link.interface)
            self._note_change_of(link.interface)
        if gone:
            del self._link_states[link.interface]

    def _note_change_of(self, interface: int) -> None:
        """While changes beside the way out wait, another one of them is not even looked at."""
        if self._aside_timer is None or not self._out or interface in self._out:
            self._note_change()

    def _note_change(self, *, certain: bool = False) -> None:
        self._certain = self._certain or certain
        if self._timer is None:
            self._timer = self._loop.call_later(_SETTLE_S, self._fire)

    def _fire(self) -> None:
        self._timer = None
        if self._closed:
            return
        before, sources = self._networks, self._sources
        moved, self._moved = self._moved, set()
        certain, self._certain = self._certain, False
        try:
            self._networks = networks_of(self._addresses(), self._own_interface)
        except (OSError, MeshdError, WireError) as error:
            log.warning("addresses_unknown", extra=kv(reason=error))
            certain = True
        self._sources = self._way_out()
        known = before | self._networks
        former, self._out = self._out, _interfaces_with(self._networks, self._sources)
        out = former | self._out
        touched = {interface for interface, _, _ in before ^ self._networks}
        touched |= moved.intersection(interface for interface, _, _ in known)
        if certain or sources != self._sources or (touched and (not out or not out.isdisjoint(touched))):
            self._tell()
        elif touched:
            self._tell_of_others()

    def _tell(self) -> None:
        if self._aside_timer is not None:
            self._aside_timer.cancel()
            self._aside_timer = None
        if not self._closed:
            self._changed()

    def _tell_of_others(self) -> None:
        if self._aside_timer is not None:
            return
        if self._aside.take(1, self._loop.time()):
            self._tell()
        else:
            self._aside_timer = self._loop.call_later(_ASIDE_PAUSE_S, self._look_at_waiting)

    def _look_at_waiting(self) -> None:
        self._aside_timer = None
        self._aside.take(1, self._loop.time())
        self._certain = True
        self._fire()

    def _note_settings(self) -> None:
        if self._settings_timer is None:
            self._settings_timer = self._loop.call_later(_SETTLE_S, self._fire_settings)

    def _fire_settings(self) -> None:
        self._settings_timer = None
        if not self._closed:
            self._settings_changed()

    def _note_loss(self) -> None:
        if self._loss_timer is None:
            self._loss_timer = self._loop.call_later(_SETTLE_S, self._fire_loss)

    def _fire_loss(self) -> None:
        self._loss_timer = None
        if not self._closed:
            self._routing_lost()
