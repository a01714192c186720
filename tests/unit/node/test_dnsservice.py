"""Port 53 of the service addresses: packets in, packets out."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Any

import pytest

from meshd.base.addr import IPAddress
from meshd.core.dnscompile import ResolverConfig
from meshd.node import dnsservice
from meshd.node.dnsresolver import NodeResolver
from meshd.node.dnsservice import DnsService
from meshd.wire import dnsmessage as dns
from meshd.wire import dnsresponse
from meshd.wire.ippacket import (
    PROTO_ICMPV4,
    PROTO_TCP,
    UDPDatagram,
    decode_ip,
    decode_udp,
    encode_ip,
    encode_udp,
    tcp_moved,
    tcp_ports,
)
from tests.unit.core.mapworld import joined, node
from tests.unit.node.dnsworld import FakeResolver, good, silent

OWN4, OWN6, SERVICE4, SERVICE6, PEER, LAN = map(
    ip_address,
    ("100.64.0.1", "fd7a:115c:a1e0:ab12::1", "100.100.100.100", "fd7a:115c:a1e0::53", "100.64.0.2", "172.17.0.2"),
)


class World:
    def __init__(self) -> None:
        netmap = joined(node(2), DNSConfig={"Proxied": True}).netmap
        self.resolver = NodeResolver(lambda: netmap, lambda _: None, {})
        self.resolver.configure(ResolverConfig(local_domains=("mesh.test",)))
        self.sent: list[bytes] = []
        self.arrived = asyncio.Event()
        self.service = DnsService(self.resolver, self.deliver, lambda: (OWN4, OWN6))

    def deliver(self, packet: bytes) -> None:
        self.sent.append(packet)
        self.arrived.set()

    def ask(
        self,
        message: bytes,
        source: IPAddress = OWN4,
        service: IPAddress = SERVICE4,
        *,
        port: int = 53,
        own: int = 5000,
    ) -> None:
        self.service.packet(encode_udp(source, service, UDPDatagram(own, port, message)))

    def response(self) -> tuple[IPAddress, IPAddress, int, int, bytes]:
        (packet,) = self.sent
        self.sent.clear()
        ip = decode_ip(packet)
        datagram = decode_udp(ip)
        assert datagram is not None
        return ip.source, ip.destination, datagram.source_port, datagram.destination_port, datagram.data

    def count(self, name: str) -> int:
        return self.resolver.counters[name]


def run(test: Callable[[World], Awaitable[None]]) -> None:
    async def body() -> None:
        world = World()
        try:
            await test(world)
        finally:
            world.service.close()
            world.resolver.close()

    asyncio.run(body())


QUESTION = dns.encode_query(5, "n2.mesh.test", dns.A)


def test_service_answers_over_udp() -> None:
    """DN-12: at both addresses."""

    async def test(world: World) -> None:
        for own, service in ((OWN4, SERVICE4), (OWN6, SERVICE6)):
            world.ask(QUESTION, own, service)
            source, destination, port, to, data = world.response()
            assert (source, destination, port, to) == (service, own, 53, 5000)
            assert data.endswith(bytes([100, 64, 0, 2]))

    run(test)


def test_service_answers_those_this_host_forwards_for_and_no_peers() -> None:
    """DN-12: containers ask too; peers have a resolver of their own, and ours is not open to them."""

    async def test(world: World) -> None:
        world.ask(QUESTION, LAN)
        assert world.response()[1] == LAN
        for source in (PEER, ip_address("224.0.0.1"), ip_address("0.0.0.0"), SERVICE4):
            world.ask(QUESTION, source)
        world.ask(QUESTION, ip_address("fd7a:115c:a1e0:ab12::2"), SERVICE6)
        assert world.sent == []
        assert world.count("dns_refused_source") == 5

    run(test)


def test_service_waits_for_others_without_blocking() -> None:
    """DN-12."""

    async def test(world: World) -> None:
        async with FakeResolver(silent) as fake:
            world.resolver.configure(ResolverConfig({"": (fake.resolver,)}, ("mesh.test",)))
            world.ask(dns.encode_query(6, "example.org", dns.A), own=6000)
            world.ask(QUESTION)
            assert world.response()[3] == 5000, "the answer that is ready overtakes"
            await fake.asked.wait()
            world.arrived.clear()
            for answer in good(fake.queries[0]):
                fake.transport.sendto(answer, fake.sources[0])
            await world.arrived.wait()
            *_, to, data = world.response()
            assert (to, data[:2]) == (6000, b"\0\6")

    run(test)


def test_service_flood_of_one_source_leaves_room_for_others() -> None:
    """DN-12: SERVFAIL at once beyond the limits."""

    async def test(world: World) -> None:
        async with FakeResolver(silent) as fake:
            world.resolver.configure(ResolverConfig({"": (fake.resolver,)}))
            for n in range(dnsservice.MAX_OF_SOURCE + 50):
                world.ask(dns.encode_query(n, f"n{n}.test", dns.A), LAN, own=1024 + n)
            assert len(world.sent) == 50
            codes = {dnsresponse.code_of(data.data) for p in world.sent if (data := decode_udp(decode_ip(p)))}
            assert codes == {dns.SERVER_FAILURE}
            world.sent.clear()
            for n in range(dnsservice.MAX_OF_SOURCE + 50):
                world.ask(dns.encode_query(n, f"n{n}.test", dns.A), own=1024 + n)
            assert world.sent == [], "all programs of this host share one address"
            for n in range(dnsservice.MAX_WAITING):
                world.ask(dns.encode_query(n, "same.test", dns.A), own=10_000 + n)
            assert len(world.sent) == 2 * dnsservice.MAX_OF_SOURCE + 50
            assert world.count("dns_refused_too_many") == 2 * dnsservice.MAX_OF_SOURCE + 100

    run(test)


def test_service_packets_for_nobody_are_counted() -> None:
    async def test(world: World) -> None:
        world.ask(QUESTION, port=54)
        world.ask(QUESTION, own=0)
        world.service.packet(encode_ip(OWN4, SERVICE4, PROTO_ICMPV4, bytes(8)))
        world.service.packet(encode_ip(OWN4, SERVICE4, PROTO_TCP, segment(5000, 80)))
        world.service.packet(encode_ip(LAN, SERVICE4, PROTO_TCP, segment(5000, 53)))
        assert world.count("service_dropped") == 5
        for bad in (b"", b"\x45" + bytes(30), encode_ip(OWN4, SERVICE4, PROTO_TCP, bytes(19))):
            world.service.packet(bad)
        good_one = encode_udp(OWN4, SERVICE4, UDPDatagram(5000, 53, QUESTION))
        world.service.packet(good_one[:-1] + bytes([good_one[-1] ^ 1]))
        assert world.count("service_malformed") == 4
        assert world.sent == []

    run(test)


def segment(source: int, destination: int, data: bytes = b"") -> bytes:
    """A TCP segment without a checksum."""
    return source.to_bytes(2, "big") + destination.to_bytes(2, "big") + bytes(8) + b"\x50\x02" + bytes(6) + data


def test_tcp_segments_are_moved_with_their_checksum() -> None:
    """Against a checksum that the kernel of another machine made is the e2e test; here that it is right, and stays."""
    from meshd.wire.ippacket import checksum, pseudo_header_sum

    for own, service in ((OWN4, SERVICE4), (OWN6, SERVICE6)):
        packet = decode_ip(encode_ip(own, service, PROTO_TCP, segment(5000, 53, b"odd")))
        moved = decode_ip(tcp_moved(packet, service, own, 5000, 40000))
        assert (moved.source, moved.destination, tcp_ports(moved)) == (service, own, (5000, 40000))
        total = pseudo_header_sum(service, own, PROTO_TCP, len(moved.payload))
        assert checksum(moved.payload, total) == 0
        assert moved.payload[4:16] == packet.payload[4:16]
        assert moved.payload[18:] == packet.payload[18:]


def test_service_tcp_goes_to_a_listener_and_back(monkeypatch: Any) -> None:
    """DN-12: TCP, by the kernel's own; the addresses change places."""
    monkeypatch.setattr("meshd.node.servicetcp._SERVICES", {"127.0.0.1"})

    async def test(world: World) -> None:
        own = ip_address("127.0.0.1")
        world.service._own = lambda: (own,)
        world.service.packet(encode_ip(own, SERVICE4, PROTO_TCP, segment(5000, 53)))
        to_listener = decode_ip(world.sent.pop())
        assert (to_listener.source, to_listener.destination) == (SERVICE4, own)
        source, port = tcp_ports(to_listener)
        assert source == 5000
        world.service.packet(encode_ip(own, SERVICE4, PROTO_TCP, segment(port, 5000)))
        back = decode_ip(world.sent.pop())
        assert (back.source, back.destination, tcp_ports(back)) == (SERVICE4, own, (53, 5000))

        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in (1, 2):
            message = dns.encode_query(number, "n2.mesh.test", dns.A)
            writer.write(len(message).to_bytes(2, "big") + message)
        for number in (1, 2):
            data = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
            assert (data[:2], data[-4:]) == (bytes([0, number]), bytes([100, 64, 0, 2]))
        writer.close()

    run(test)


def test_service_tcp_refuses_whoever_finds_the_listener() -> None:
    """DN-12: peers and the local networks could, and are none of those it is for."""

    async def test(world: World) -> None:
        own = ip_address("127.0.0.1")
        world.service._own = lambda: (own,)
        world.service.packet(encode_ip(own, SERVICE4, PROTO_TCP, segment(5000, 53)))
        port = tcp_ports(decode_ip(world.sent.pop()))[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.read() == b""
        writer.close()
        assert world.count("dns_refused_source") == 1

    run(test)


def test_service_tcp_rests_while_the_process_has_no_descriptor_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """DN-12: a connection that cannot be accepted stays in the queue and wakes the loop again and again."""
    monkeypatch.setattr("meshd.node.servicetcp._SERVICES", {"127.0.0.1"})
    tries = 0

    def accept(_: socket.socket) -> None:
        nonlocal tries
        tries += 1
        raise OSError(errno.EMFILE, "Too many open files")

    async def test(world: World) -> None:
        own = ip_address("127.0.0.1")
        world.service._own = lambda: (own,)
        world.service.packet(encode_ip(own, SERVICE4, PROTO_TCP, segment(5000, 53)))
        port = tcp_ports(decode_ip(world.sent.pop()))[1]
        with monkeypatch.context() as full:
            full.setattr(socket.socket, "accept", accept)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.sleep(0.05)
        assert 1 <= tries <= 3
        writer.write(len(QUESTION).to_bytes(2, "big") + QUESTION)
        data = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        assert data[-4:] == bytes([100, 64, 0, 2])
        writer.close()

    run(test)


def test_service_tcp_without_a_descriptor_for_the_listener_drops_the_packet(monkeypatch: pytest.MonkeyPatch) -> None:
    """DN-12."""

    def no_socket(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    async def test(world: World) -> None:
        with monkeypatch.context() as full:
            full.setattr(socket, "socket", no_socket)
            world.service.packet(encode_ip(OWN4, SERVICE4, PROTO_TCP, segment(5000, 53)))
        assert world.count("service_dropped") == 1
        assert world.sent == []

    run(test)
