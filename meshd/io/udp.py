"""The UDP sockets that carry WireGuard, disco and STUN.

IPv4 and IPv6 have sockets of their own, because they are routed, filtered and measured apart. A family may have
several on one port (SO_REUSEPORT), among which the kernel divides the senders: one for each receiving thread.
"""

from __future__ import annotations

import errno
import socket
import sys

import msgspec

from meshd.base.addr import AddrPort
from meshd.base.errors import MeshdError
from meshd.base.log import get_logger, kv
from meshd.io.mark import mark_socket

BUFFER_BYTES = 7 << 20  # what a 10 Gbit/s burst needs while a worker is descheduled
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33  # Linux
IP_MTU_DISCOVER, IP_PMTUDISC_DONT = 10, 0  # Linux

log = get_logger(__name__)


class UdpSockets(msgspec.Struct):
    """Non-blocking sockets bound to their ports; a family the host lacks is None.

    ``more_v4`` and ``more_v6`` share the ports of the first ones, which alone are used by ``send``.
    """

    v4: socket.socket | None
    v6: socket.socket | None
    more_v4: tuple[socket.socket, ...] = ()
    more_v6: tuple[socket.socket, ...] = ()

    @property
    def port_v4(self) -> int:
        return _port(self.v4)

    @property
    def port_v6(self) -> int:
        return _port(self.v6)

    @property
    def fds_v4(self) -> tuple[int, ...]:
        return _descriptors(self.v4, self.more_v4)

    @property
    def fds_v6(self) -> tuple[int, ...]:
        return _descriptors(self.v6, self.more_v6)

    @property
    def per_port(self) -> int:
        """How many sockets the family with the most of them has, at least 1."""
        return 1 + max(len(self.more_v4), len(self.more_v6))

    def send(self, data: bytes, to: AddrPort) -> int:
        """Send one datagram. 0 on success, else the errno; a full buffer is a lost packet, not an error,
        and so is EPERM, with which Linux reports a firewall rule on the way out."""
        sock = self.v4 if to.ip.version == 4 else self.v6
        if sock is None:
            return errno.EAFNOSUPPORT
        try:
            sock.sendto(data, (str(to.ip), to.port))
        except (BlockingIOError, InterruptedError, PermissionError):
            return 0
        except OSError as error:
            return error.errno or errno.EIO
        return 0

    def close(self) -> None:
        for sock in (self.v4, self.v6, *self.more_v4, *self.more_v6):
            if sock is not None:
                sock.close()


def open_udp_sockets(
    port: int, *, mark: bool = True, host_v4: str = "", host_v6: str = "::", per_port: int = 1
) -> UdpSockets:
    """Bind both families to ``port`` (0: any; IPv6 then takes IPv4's port when it is free).

    per_port: sockets of each family on its port; fewer where the system refuses to share ports.
    MeshdError when neither family can be bound, with the port in use named in the hint.
    """
    v4, v4_error = _open(socket.AF_INET, host_v4, port, mark)
    wanted = port or _port(v4)
    v6, v6_error = _open(socket.AF_INET6, host_v6, wanted, mark)
    if v6 is None and port == 0 and wanted and v6_error is not None and v6_error.errno == errno.EADDRINUSE:
        v6, v6_error = _open(socket.AF_INET6, host_v6, 0, mark)
    if v4 is None and (v6 is None or _in_use(v4_error)):
        if v6 is not None:
            v6.close()
        in_use = _in_use(v4_error)
        raise MeshdError(
            f"cannot open UDP port {port}: {v4_error}",
            code="port_in_use" if in_use else "network",
            hint=f"Another program uses port {port}; choose one with --port, or --port=0 for any." if in_use else None,
        )
    return UdpSockets(v4, v6, _more(v4, host_v4, per_port - 1, mark=mark), _more(v6, host_v6, per_port - 1, mark=mark))


def _more(first: socket.socket | None, host: str, count: int, *, mark: bool) -> tuple[socket.socket, ...]:
    """Others on the port of the first. That was bound alone, so nobody else shares it; only now it lets others in."""
    if first is None or count < 1:
        return ()
    made: list[socket.socket] = []
    try:
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError as error:
        log.info("udp_port_not_shared", extra=kv(port=_port(first), reason=error))
        return ()
    while len(made) < count:
        sock, refusal = _open(first.family, host, _port(first), mark, share=True)
        if sock is None:
            log.info("udp_port_not_shared", extra=kv(port=_port(first), reason=refusal))
            break
        made.append(sock)
    return tuple(made)


def _open(
    family: int, host: str, port: int, mark: bool, *, share: bool = False
) -> tuple[socket.socket | None, OSError | None]:
    sock: socket.socket | None = None
    try:
        sock = socket.socket(family, socket.SOCK_DGRAM | getattr(socket, "SOCK_CLOEXEC", 0))
        sock.setblocking(False)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        elif sys.platform.startswith("linux"):
            # Routers may cut what does not fit, which saves paths whose ICMP errors somebody drops.
            sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
        _grow(sock, SO_RCVBUFFORCE, socket.SO_RCVBUF)
        _grow(sock, SO_SNDBUFFORCE, socket.SO_SNDBUF)
        if mark:
            mark_socket(sock)
        if share:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((host, port))
    except OSError as error:
        log.debug("udp_socket_refused", extra=kv(family=family, port=port, reason=error))
        if sock is not None:
            sock.close()
        return None, error
    log.debug("udp_socket_bound", extra=kv(address=sock.getsockname()[0], port=_port(sock)))
    return sock, None


def _grow(sock: socket.socket, force: int, plain: int) -> None:
    if sys.platform.startswith("linux"):
        try:
            sock.setsockopt(socket.SOL_SOCKET, force, BUFFER_BYTES)
            return
        except OSError:
            pass  # needs CAP_NET_ADMIN; the plain option is capped by the system's limit
    size = BUFFER_BYTES
    while size >= 1 << 18:
        try:
            sock.setsockopt(socket.SOL_SOCKET, plain, size)
            return
        except OSError:
            size //= 2  # BSD refuses more than its limit instead of capping


def _in_use(error: OSError | None) -> bool:
    return error is not None and error.errno == errno.EADDRINUSE


def _descriptors(first: socket.socket | None, more: tuple[socket.socket, ...]) -> tuple[int, ...]:
    return tuple(sock.fileno() for sock in (first, *more) if sock is not None)


def _port(sock: socket.socket | None) -> int:
    return int(sock.getsockname()[1]) if sock is not None else 0
