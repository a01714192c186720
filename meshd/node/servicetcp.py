"""TCP to port 53 of a service address, with the kernel's own TCP at both ends.

A program of this host connects to 100.100.100.100. What it sends comes out of the tunnel interface and is put back
into it with other addresses: from 100.100.100.100, to a listener of ours at this node's own address. The kernel
accepts there; what it answers to 100.100.100.100 takes the same way back. So both ends are ordinary kernel sockets
and no connection is known here: ports stay what they are, only addresses change places.

    program  OWN:40000 -> 100.100.100.100:53        listener  100.100.100.100:40000 -> OWN:LISTENER
    program  100.100.100.100:53 -> OWN:40000        listener  OWN:LISTENER -> 100.100.100.100:40000
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable

from meshd.base.addr import IPAddress, parse_ip
from meshd.base.log import get_logger, kv
from meshd.base.ranges import SERVICE_V4, SERVICE_V6
from meshd.node.dnsresolver import NodeResolver
from meshd.node.dnsstream import DnsStream
from meshd.wire.ippacket import IPPacket, tcp_moved, tcp_ports

log = get_logger(__name__)

PORT = 53
MAX_LISTENERS = 4  # one for each of this node's addresses; former ones are closed
MAX_CONNECTIONS = 128
BACKLOG = 64
ACCEPT_RETRY_S = 0.2  # pause after the process ran out of file descriptors
_IP_FREEBIND, _IPV6_FREEBIND = 15, 78  # Linux
_SERVICES = {str(SERVICE_V4), str(SERVICE_V6)}


class ServiceTcp:
    """Gives TCP packets the other addresses, and answers what the listeners are asked."""

    def __init__(self, resolver: NodeResolver, deliver: Callable[[bytes], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._resolver = resolver
        self._deliver = deliver
        self._listeners: dict[IPAddress, socket.socket] = {}
        self._ports: dict[IPAddress, int] = {}
        self._streams: dict[DnsStream, None] = {}  # the longest idle first

    @property
    def connections(self) -> int:
        return len(self._streams)

    def packet(self, ip: IPPacket, *, own: bool) -> bool:
        """A packet to a service address, from one of our own addresses or not. False for one that is for nobody."""
        if not own:
            return False  # what the kernel answers would not come through the tunnel interface
        source, destination = tcp_ports(ip)
        if source == self._ports.get(ip.source):
            self._deliver(tcp_moved(ip, ip.destination, ip.source, PORT, destination))
            return True
        if destination != PORT:
            return False
        port = self._ports.get(ip.source) or self._listen(ip.source)
        if not port:
            return False
        self._deliver(tcp_moved(ip, ip.destination, ip.source, source, port))
        return True

    def close(self) -> None:
        for address in list(self._listeners):
            self._unlisten(address)
        for stream in list(self._streams):
            stream.abort()

    def _listen(self, address: IPAddress) -> int:
        while len(self._listeners) >= MAX_LISTENERS:
            self._unlisten(next(iter(self._listeners)))
        try:
            sock = _listening(address)
        except OSError as error:
            log.warning("dns_tcp_failed", extra=kv(addr=address, reason=error.strerror))
            return 0
        self._listeners[address], self._ports[address] = sock, sock.getsockname()[1]
        self._loop.add_reader(sock.fileno(), self._accept, sock)
        return self._ports[address]

    def _unlisten(self, address: IPAddress) -> None:
        sock = self._listeners.pop(address)
        del self._ports[address]
        self._loop.remove_reader(sock.fileno())
        sock.close()

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(BACKLOG):
            try:
                sock, remote = listener.accept()
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.ECONNABORTED):
                    log.warning("dns_tcp_failed", extra=kv(reason=error.strerror))
                    self._loop.remove_reader(listener.fileno())
                    self._loop.call_later(ACCEPT_RETRY_S, self._resume, listener)
                return
            # Peers and the host's networks find this port too; only the way over the tunnel interface is meant.
            if str(parse_ip(str(remote[0]).partition("%")[0])) not in _SERVICES:
                self._resolver.counters["dns_refused_source"] += 1
                sock.close()
                continue
            if len(self._streams) >= MAX_CONNECTIONS and not self._make_room():
                self._resolver.counters["dns_refused_too_many"] += 1
                sock.close()
                continue
            sock.setblocking(False)
            stream = DnsStream(self._resolver, sock, self._used, self._gone)
            self._streams[stream] = None

    def _resume(self, listener: socket.socket) -> None:
        if listener in self._listeners.values():
            self._loop.add_reader(listener.fileno(), self._accept, listener)

    def _make_room(self) -> bool:
        """End the connection that has had no question under way for the longest time."""
        idle = next((stream for stream in self._streams if not stream.waiting), None)
        if idle is not None:
            idle.abort()
        return idle is not None

    def _used(self, stream: DnsStream) -> None:
        if stream in self._streams:
            self._streams[stream] = self._streams.pop(stream)

    def _gone(self, stream: DnsStream) -> None:
        self._streams.pop(stream, None)


def _listening(address: IPAddress) -> socket.socket:
    v4 = address.version == 4
    sock = socket.socket(
        socket.AF_INET if v4 else socket.AF_INET6,
        socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC,
    )
    try:
        if v4:
            sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        sock.bind((str(address), 0))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock
