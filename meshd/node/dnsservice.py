"""Port 53 of the service addresses 100.100.100.100 and fd7a:115c:a1e0::53.

Packets to them reach the tunnel interface by a route, and never a socket of the host: no port is held that another
name server of this host might want, before us or after, and nobody but this host, and those it forwards for, can
send us one. UDP is answered packet by packet; TCP by `meshd.node.servicetcp`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection

from meshd.base.addr import IPAddress
from meshd.base.errors import WireError
from meshd.base.log import get_logger, kv
from meshd.base.ranges import SERVICE_V4, SERVICE_V6, is_tailscale_ip
from meshd.node.dnsresolver import Asking, NodeResolver
from meshd.node.servicetcp import ServiceTcp
from meshd.wire import dnsmessage as dns
from meshd.wire.ippacket import (
    PROTO_TCP,
    PROTO_UDP,
    IPPacket,
    UDPDatagram,
    decode_ip,
    decode_udp,
    encode_udp,
)

log = get_logger(__name__)

PORT = 53
MAX_WAITING = 1024
"""Questions over UDP that wait for others: each holds a task."""
MAX_OF_SOURCE = 128
"""Of these, those of one address that is not ours. All programs of this host share one address."""
SERVICE_ADDRESSES: tuple[IPAddress, ...] = (SERVICE_V4, SERVICE_V6)


class DnsService:
    """Takes the packets that the host sends to a service address; ``deliver`` gives it packets. ``own`` are our
    addresses in the network."""

    def __init__(
        self, resolver: NodeResolver, deliver: Callable[[bytes], object], own: Callable[[], Collection[IPAddress]]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._resolver = resolver
        self._deliver = deliver
        self._own = own
        self._counters = resolver.counters
        self._waiting: set[asyncio.Task[None]] = set()
        self._sources: Counter[IPAddress] = Counter()
        self._tcp = ServiceTcp(resolver, deliver)

    def packet(self, packet: bytes) -> None:
        """One IP packet, whatever is in it."""
        try:
            ip = decode_ip(packet)
            if not self._may_ask(ip.source):
                self._counters["dns_refused_source"] += 1
            elif ip.protocol == PROTO_UDP:
                self._udp(ip)
            elif ip.protocol != PROTO_TCP or not self._tcp.packet(ip, own=ip.source in self._own()):
                self._counters["service_dropped"] += 1
        except WireError:
            self._counters["service_malformed"] += 1

    def close(self) -> None:
        for task in self._waiting:
            task.cancel()
        self._tcp.close()

    def _may_ask(self, source: IPAddress) -> bool:
        """Peers whose packets this host forwards have a resolver of their own."""
        return source in self._own() or not (is_tailscale_ip(source) or source.is_multicast or source.is_unspecified)

    def _udp(self, ip: IPPacket) -> None:
        datagram = decode_udp(ip)
        if datagram is None or datagram.destination_port != PORT or not datagram.source_port:
            self._counters["service_dropped"] += 1
            return
        found = self._resolver.look(datagram.data, tcp=False)
        if isinstance(found, bytes):
            self._send(ip, datagram, found)
        elif found is not None:
            self._wait(ip, datagram, found)

    def _wait(self, ip: IPPacket, datagram: UDPDatagram, asking: Asking) -> None:
        of_source = self._sources[ip.source]
        if len(self._waiting) >= MAX_WAITING or (of_source >= MAX_OF_SOURCE and ip.source not in self._own()):
            self._counters["dns_refused_too_many"] += 1
            self._send(ip, datagram, dns.encode_response(asking.query, dns.SERVER_FAILURE))
            return
        task = self._loop.create_task(self._ask(ip, datagram, asking))
        self._waiting.add(task)
        self._sources[ip.source] += 1
        task.add_done_callback(lambda done: self._done(done, ip.source))

    async def _ask(self, ip: IPPacket, datagram: UDPDatagram, asking: Asking) -> None:
        self._send(ip, datagram, await self._resolver.ask(asking))

    def _done(self, task: asyncio.Task[None], source: IPAddress) -> None:
        self._waiting.discard(task)
        self._sources[source] -= 1
        if self._sources[source] <= 0:
            del self._sources[source]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("dns_question_failed", extra=kv(reason=repr(error)))

    def _send(self, ip: IPPacket, datagram: UDPDatagram, response: bytes) -> None:
        back = UDPDatagram(PORT, datagram.source_port, response)
        self._deliver(encode_udp(ip.destination, ip.source, back))
