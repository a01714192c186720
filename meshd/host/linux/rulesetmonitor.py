"""Notices that somebody changed the host's packet filter in a way that concerns our rules."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from meshd.base.errors import WireError
from meshd.base.log import get_logger, kv
from meshd.host.linux.iptables import HOOKS
from meshd.wire.nfevents import NETLINK_NETFILTER, NFNLGRP_NFTABLES, RulesetEvent, events

log = get_logger(__name__)

_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_BYTES = 1 << 16
_OURS = "meshd-"


def concerns_us(event: RulesetEvent) -> bool:
    """Whether our rules may be gone by this, or there is a new chain that may drop what we let pass."""
    if not event.gone:
        return not event.table.startswith(_OURS)
    if event.table.startswith(_OURS) or event.chain.startswith(_OURS):
        return True
    # Of iptables' tables: all of it, or what leads to our chains.
    in_iptables = event.family in ("ip", "ip6") and event.table in ("filter", "nat", "mangle")
    return in_iptables and (not event.chain or event.chain in HOOKS)


class RulesetMonitor:
    """Calls ``changed()`` once when something happened, then is deaf until ``listen``. Raises OSError where the
    kernel does not tell (no nftables, no CAP_NET_ADMIN)."""

    def __init__(self, loop: asyncio.AbstractEventLoop, changed: Callable[[], None]) -> None:
        self._loop = loop
        self._changed = changed
        self._listening = False
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, NETLINK_NETFILTER
        )
        try:
            self._socket.bind((0, 0))
            self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, NFNLGRP_NFTABLES)
        except OSError:
            self._socket.close()
            raise

    def listen(self) -> None:
        """Hear of what happens from now on, and of what happened since ``forget``."""
        if not self._listening:
            self._loop.add_reader(self._socket.fileno(), self._readable)
            self._listening = True

    def rest(self) -> None:
        """Hear nothing until ``listen``: a program that loads thousands of rules costs us nothing more."""
        if self._listening:
            self._loop.remove_reader(self._socket.fileno())
            self._listening = False

    def close(self) -> None:
        self.rest()
        self._socket.close()

    def forget(self) -> None:
        """What happened up to now is of no interest: somebody is about to look at the rules."""
        while self._receive() is not None:
            pass

    def _receive(self) -> bytes | None:
        """A datagram; b"" when some were lost, None when there is nothing left."""
        try:
            return self._socket.recv(_BYTES)
        except BlockingIOError:
            return None
        except OSError:  # ENOBUFS: events were lost
            return b""

    def _readable(self) -> None:
        data = self._receive()
        if data is None:
            return
        try:
            concerned = not data or any(map(concerns_us, events(data)))
        except WireError as error:
            log.warning("netfilter_event_bad", extra=kv(reason=error))
            return
        if concerned:
            self.rest()
            self._changed()
