"""A network check from an address or a port that a user names, beside the node's own sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

from meshd.base.addr import AddrPort, IPAddress, parse_ip
from meshd.base.clock import Clock
from meshd.base.errors import MeshdError
from meshd.core.netreport import Report
from meshd.core.relaymap import RelayMap, RelayRegion
from meshd.io.mark import mark_socket
from meshd.io.udp import UdpSockets
from meshd.node.netprobe import NetProber

_DATAGRAM_BYTES = 2048


class _Silent:
    """Nobody but the user hears of this check."""

    def region_answered(self, region: int) -> None:
        return

    def address_found(self, address: AddrPort) -> None:
        return

    def check_finished(self, report: Report, started: float) -> None:
        return

    def home_frame_at(self) -> float:
        return 0.0


async def bound_check(
    relays: RelayMap,
    address: IPAddress | None,
    port: int,
    *,
    clock: Clock,
    random: Callable[[int], bytes],
    measure: Callable[[RelayRegion], Awaitable[float]],
    mark: bool,
) -> Report:
    """A full check over sockets of its own: of the family of ``address``, or both; ``port`` 0 for any.

    Raises MeshdError: "invalid" when the address or port cannot be used, "timeout".
    """
    loop = asyncio.get_running_loop()
    sockets = UdpSockets(None, None)
    try:
        for family, anywhere in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            if address is None or (address.version == 6) == (family == socket.AF_INET6):
                made = _open(family, str(address) if address is not None else anywhere, port, mark, lenient=not address)
                if family == socket.AF_INET:
                    sockets.v4 = made
                else:
                    sockets.v6 = made
        if sockets.v4 is None and sockets.v6 is None:
            raise MeshdError(f"cannot probe from UDP port {port}: it is in use, or may not be used", code="invalid")
        prober = NetProber(loop, clock, lambda: sockets, _Silent(), random=random, measure=measure)
        prober.set_map(relays)
        for sock in (sockets.v4, sockets.v6):
            if sock is not None:
                loop.add_reader(sock.fileno(), _read, sock, prober)
        try:
            return await prober.report()
        finally:
            prober.close()
            for sock in (sockets.v4, sockets.v6):
                if sock is not None:
                    loop.remove_reader(sock.fileno())
    finally:
        sockets.close()


def _open(family: int, host: str, port: int, mark: bool, *, lenient: bool) -> socket.socket | None:
    sock: socket.socket | None = None
    try:
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if mark:
            mark_socket(sock)
        sock.bind((host, port))
    except OSError as error:
        if sock is not None:
            sock.close()
        if lenient:
            return None  # the other family may do
        text = f"cannot probe from {AddrPort(parse_ip(host), port)}: {error.strerror}"
        raise MeshdError(text, code="invalid") from None
    return sock


def _read(sock: socket.socket, prober: NetProber) -> None:
    try:
        prober.receive(sock.recv(_DATAGRAM_BYTES))
    except (BlockingIOError, InterruptedError, ConnectionError):
        return
