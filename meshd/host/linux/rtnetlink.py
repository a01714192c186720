"""A socket to the kernel's routing tables.

Calls block for the few microseconds that the kernel needs to answer, so they are made from the event loop
directly; a batch of requests goes out in one system call.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterable

from meshd.base.errors import MeshdError
from meshd.wire import netlink as nl

_BATCH = 128  # requests per datagram; the errors of all of them fit the receive buffer
_RECEIVE_BYTES = 1 << 17
_TIMEOUT_S = 5.0
_SOL_NETLINK, _NETLINK_GET_STRICT_CHK = 270, 12
_SO_RCVBUFFORCE = 33
_BUFFER_BYTES = 1 << 18  # for the errors of a whole batch, whatever net.core.rmem_default says


class RtNetlink:
    """Requests with acknowledgement, and dumps. ``close()`` when done."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        self._socket.settimeout(_TIMEOUT_S)
        with contextlib.suppress(OSError):  # without CAP_NET_ADMIN: then nothing can be changed either
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        with contextlib.suppress(OSError):  # before Linux 4.20: then we sort out ourselves what we are sent
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
        self._sequence = 0

    @property
    def port(self) -> int:
        """By which the kernel names us as the author of a change."""
        port: int = self._socket.getsockname()[0]
        return port

    def close(self) -> None:
        self._socket.close()

    def execute(self, requests: Iterable[nl.Request]) -> list[int]:
        """Send all requests; returns an errno for each, 0 where it was done."""
        todo = list(requests)
        results: list[int] = []
        for start in range(0, len(todo), _BATCH):
            results += self._batch(todo[start : start + _BATCH])
        return results

    def _batch(self, requests: list[nl.Request]) -> list[int]:
        first = self._sequence + 1
        self._sequence = last = self._sequence + len(requests)
        # The kernel does one after the other: when the last is acknowledged, all errors of the others have come.
        packed = [request.pack(first + i, only_errors=True) for i, request in enumerate(requests[:-1])]
        self._send(b"".join([*packed, requests[-1].pack(last)]))
        errors: dict[int, int] = {}
        while last not in errors:
            for message in nl.messages(self._receive()):
                if message.kind == nl.NLMSG_ERROR and first <= message.sequence <= last:
                    errors[message.sequence] = nl.error_number(message)
        return [errors.get(first + i, 0) for i in range(len(requests))]

    def dump(self, request: nl.Request) -> list[nl.Message]:
        """All answers to a dump request."""
        self._sequence += 1
        sequence = self._sequence
        self._send(request.pack(sequence))
        answers: list[nl.Message] = []
        while True:
            for message in nl.messages(self._receive()):
                if message.sequence != sequence:
                    continue
                if message.kind == nl.NLMSG_DONE:
                    return answers
                if message.kind == nl.NLMSG_ERROR:
                    number = nl.error_number(message)
                    raise OSError(number, os.strerror(number))
                answers.append(message)

    def _send(self, data: bytes) -> None:
        try:
            self._socket.send(data)
        except OSError as error:
            raise MeshdError(f"cannot send the kernel a routing request: {error.strerror}", code="host") from None

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(_RECEIVE_BYTES)
        except TimeoutError:
            raise MeshdError(
                "the kernel did not answer a routing request",
                hint="look at the kernel log (dmesg)",
                code="host",
            ) from None
        except OSError as error:
            raise MeshdError(f"cannot read the kernel's answer about routing: {error.strerror}", code="host") from None

    def interface_index(self, name: str) -> int:
        """The index of an interface; OSError when there is none of that name."""
        return socket.if_nametoindex(name)

    def links(self) -> list[nl.Link]:
        return [nl.decode_link(m) for m in self.dump(nl.get_links()) if m.kind == nl.RTM_NEWLINK]

    def tun_queues(self, index: int) -> int:
        """How many queues of a TUN interface are open, by whomever; 0 where the kernel does not say."""
        found = (m for m in self.dump(nl.get_links()) if m.kind == nl.RTM_NEWLINK)
        return next((nl.decode_tun_queues(m) for m in found if nl.decode_link(m).interface == index), 0)

    def addresses(self) -> list[nl.InterfaceAddress]:
        found = (nl.decode_address(m) for m in self.dump(nl.get_addresses()) if m.kind == nl.RTM_NEWADDR)
        return [address for address in found if address is not None]

    def rules(self, family: int) -> list[nl.Rule]:
        """The policy rules of a family; empty when the kernel has no policy routing for it."""
        try:
            answers = self.dump(nl.get_rules(family))
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.EAFNOSUPPORT):
                return []
            raise
        return [nl.decode_rule(m) for m in answers if m.kind == nl.RTM_NEWRULE]

    def routes(self, table: int) -> list[nl.Route]:
        """The routes of a table. A router of the Internet has a million in the others, which are not asked for."""
        return [route for family in (nl.AF_INET, nl.AF_INET6) for route in self._routes(family, table)]

    def _routes(self, family: int, table: int) -> list[nl.Route]:
        try:
            answers = self.dump(nl.get_routes(family, table))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EOPNOTSUPP, errno.EAFNOSUPPORT):  # no such table, or family
                return []
            raise
        found = (nl.decode_route(m) for m in answers if m.kind == nl.RTM_NEWROUTE)
        # A kernel without the family answers for all of them.
        return [route for route in found if route is not None and (route.table, route.family) == (table, family)]
