"""Notices that the host's network changed.

One netlink socket; events are collected for a quarter of a second, since one change of a network brings
dozens of messages.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from meshd.base.errors import WireError
from meshd.base.log import get_logger, kv
from meshd.wire import netlink as nl

log = get_logger(__name__)

_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400  # link, IPv4 address, IPv4 route, IPv6 address, IPv6 route
_RULE_GROUPS = (8, 19)  # numbers (not bits) of the IPv4 and IPv6 rule groups
_OUR_RULES = range(5200, 5300)
_SETTLE_S = 0.25
_NETLINK_ADD_MEMBERSHIP = 1
_SOL_NETLINK = 270


class NetworkMonitor:
    """Calls ``changed()`` after links, addresses or routes other than our own changed,
    ``rules_lost()`` after somebody deleted one of our policy rules, and ``interface_lost()`` after our
    interface itself went away."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        own_interface: int,
        own_table: int,
        changed: Callable[[], None],
        rules_lost: Callable[[], None],
        interface_lost: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._own_interface = own_interface
        self._own_table = own_table
        self._changed = changed
        self._rules_lost = rules_lost
        self._interface_lost = interface_lost
        self._timer: asyncio.TimerHandle | None = None
        self._rule_timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._socket = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
            socket.NETLINK_ROUTE,
        )
        self._socket.bind((0, _GROUPS))
        for group in _RULE_GROUPS:
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
        loop.add_reader(self._socket.fileno(), self._readable)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        for timer in (self._timer, self._rule_timer):
            if timer is not None:
                timer.cancel()

    def _readable(self) -> None:
        for _ in range(64):
            try:
                data = self._socket.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError as error:  # ENOBUFS: messages were lost, so look at everything again
                log.info("network_events_lost", extra=kv(reason=error))
                self._note_change()
                return
            try:
                self._look(data)
            except WireError as error:
                log.warning("netlink_event_bad", extra=kv(reason=error))

    def _look(self, data: bytes) -> None:
        for message in nl.messages(data):
            if message.kind == nl.RTM_DELRULE:
                if nl.decode_rule(message).priority in _OUR_RULES:
                    self._note_rule()
            elif message.kind == nl.RTM_DELLINK and nl.decode_link(message).interface == self._own_interface:
                self._interface_lost()
            elif self._foreign(message):
                self._note_change()

    def _foreign(self, message: nl.Message) -> bool:
        if message.kind in (nl.RTM_NEWLINK, nl.RTM_DELLINK):
            return nl.decode_link(message).interface != self._own_interface
        if message.kind in (nl.RTM_NEWADDR, nl.RTM_DELADDR):
            address = nl.decode_address(message)
            return address is not None and address.interface != self._own_interface
        if message.kind in (nl.RTM_NEWROUTE, nl.RTM_DELROUTE):
            route = nl.decode_route(message)
            # Table 255 repeats every local address; the cache of learned routes is no change either.
            return (
                route is not None
                and route.table not in (self._own_table, 255)
                and (route.interface != self._own_interface)
            )
        return False

    def _note_change(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(_SETTLE_S, self._fire)

    def _fire(self) -> None:
        self._timer = None
        if not self._closed:
            self._changed()

    def _note_rule(self) -> None:
        if self._rule_timer is None:
            self._rule_timer = self._loop.call_later(_SETTLE_S, self._fire_rule)

    def _fire_rule(self) -> None:
        self._rule_timer = None
        if not self._closed:
            self._rules_lost()
