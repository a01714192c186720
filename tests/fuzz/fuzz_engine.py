"""Hostile events for everything that decides about packets: engine, handshakes, paths, relays, the resolver's port.

The attacker is a peer with all its keys, a stranger who knows our public ones, a relay, and a program of this host.
Nothing it says may raise, and what is remembered of it stays small.

    python -m tests.fuzz.campaign --executions N engine
"""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from random import Random
from typing import Any

from meshd._fast.derpframes import split_frames
from meshd.base.addr import AddrPort
from meshd.core.cookie import CookieJar
from meshd.core.derpclient import PacketsReceived, PeerGone
from meshd.core.dnscompile import ResolverConfig
from meshd.core.handshake import Counterpart, Identity, create_initiation
from meshd.io.udp import UdpSockets
from meshd.node import dataplane as ev
from meshd.node.dnsresolver import NodeResolver
from meshd.node.dnsservice import DnsService
from meshd.wire import disco, stun
from meshd.wire.derp import encode_recv_packet
from meshd.wire.ippacket import UDPDatagram, encode_udp
from meshd.wire.wireguard import encode_initiation
from tests.fuzz.fuzz_wire import _dns_queries
from tests.fuzz.hostile import Hostile
from tests.fuzz.mutation import Mutator
from tests.unit.core.mapworld import joined, node
from tests.unit.fast.packets import ipv4, tcp
from tests.unit.node.pathhost import PathHost

BATCH = 64
"""Events between two turns of the event loop."""
MAX_CANDIDATES = 100
_OWN, _SERVICE = ip_address("100.64.0.1"), ip_address("100.100.100.100")
_NO_OFFLOAD = bytes(10)


class _Mute(UdpSockets):
    """Answers go to whatever address was claimed; other programs of this machine shall not get them."""

    def send(self, data: bytes, to: AddrPort) -> int:
        return 0


class EngineFuzzer:
    """Node a and its peer b, which turns against it."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.executions = 0
        self.random = Random(seed)
        self.hostile = Hostile(self.random)
        self.faults: list[dict[str, Any]] = []
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(lambda _, context: self.faults.append(context))
        self.loop.run_until_complete(self._begin())

    async def _begin(self) -> None:
        victim, peer = self.victim, self.peer = PathHost(1), PathHost(2)
        for host in (victim, peer):
            host.sockets = host.magic.sockets = _Mute(host.sockets.v4, None)
        victim.know(peer, home=0)
        peer.know(victim, home=0)
        self.key = peer.key.raw
        self.jar = CookieJar(victim.key.raw)
        self.identity = Identity.of(peer.private.raw)
        self.counterpart = Counterpart.between(self.identity, victim.key.raw)
        channel = peer.magic._paths.disco
        self.disco_key = channel.public.raw
        shared = channel.peers.shared(victim.magic.disco_public.raw)
        assert shared is not None
        self.shared = shared
        self.index = victim.engine.peer_index(peer.key)
        netmap = joined(node(2), DNSConfig={"Proxied": True}).netmap
        self.resolver = NodeResolver(lambda: netmap, lambda _: None, {})
        self.resolver.configure(ResolverConfig(local_domains=("mesh.test",)))
        self.service = DnsService(self.resolver, lambda packet: None, lambda: (_OWN,))
        victim.hooks.service = self.service.packet
        self.questions = Mutator(self.random, text=False, limit=600)
        for query in _dns_queries():
            self.questions.add(query)

    def close(self) -> None:
        self.loop.run_until_complete(self._end())
        self.loop.close()

    async def _end(self) -> None:
        self.service.close()
        self.resolver.close()
        self.victim.close()
        self.peer.close()

    def turn(self) -> None:
        """One batch."""
        self.loop.run_until_complete(self._batch())
        self.executions += BATCH
        assert not self.faults, (self.seed, self.faults)
        path = self.victim.magic._paths.by_raw(self.key).path
        assert len(path.candidates) <= MAX_CANDIDATES

    async def _batch(self) -> None:
        for _ in range(BATCH):
            self.act()
        await asyncio.sleep(0)

    def act(self) -> None:
        random, victim = self.random, self.victim
        match random.randrange(4):
            case 0:
                address = random.choice((bytes((127, 0, 0, 1)), bytes((127, 3, 3, 40)), random.randbytes(16)))
                victim.engine.on_event((ev.EV_DATAGRAM, address, random.randrange(65536), self.datagram()))
            case 1:
                kind = random.choice((ev.EV_TSMP, ev.EV_ECHO, ev.EV_LOCAL, ev.EV_DENIED, ev.EV_STAGED))
                packet = self.hostile.packet(inward=random.random() < 0.8)
                victim.engine.on_event((kind, self.index, _NO_OFFLOAD + packet if kind == ev.EV_STAGED else packet))
            case 2:
                victim.engine.on_event((ev.EV_SERVICE, self.question()))
            case 3:
                source = random.choice((self.key, self.key, random.randbytes(32), bytes(32)))
                region = random.choice((1, 7, 900, 65535))
                found = split_frames(encode_recv_packet(source, self.datagram()))
                packets = PacketsReceived(found.transport, found.others, found.sources)
                victim.magic.relay_packets(region, packets)
                victim.magic.relay_peer_gone(region, PeerGone(source, random.randrange(256)))

    def datagram(self) -> bytes:
        random = self.random
        if random.random() < 0.01:
            return self.handshake()
        match random.randrange(5):
            case 0:
                if random.random() < 0.2:
                    text = b"\1\0" + random.randbytes(12) + self.key + bytes(random.choice((0, 0, 1, 1000)))
                else:
                    body = random.choice((b"\1\0", b"\2\0", b"\3\0", b"\3\1", random.randbytes(2)))
                    text = body + random.randbytes(random.choice((0, 11, 12, 18, 30, 36, 44, 180, 18 * 300)))
                return disco.seal(self.disco_key, self.shared, random.randbytes(24), text)
            case 1:
                kind, size = random.choice(((1, 148), (2, 92)))
                return self.jar.sign(bytes((kind, 0, 0, 0)) + random.randbytes(size - 4), 0.0)
            case 2:
                return b"\3\0\0\0" + random.randbytes(60)
            case 3:
                return self.hostile.damage(b"\1\1\0\x0c" + stun.COOKIE + random.randbytes(24))
            case _:
                return self.hostile.datagram()

    def handshake(self) -> bytes:
        """A real one, at any time."""
        random = self.random
        message, _ = create_initiation(
            self.identity,
            self.counterpart,
            local_index=random.getrandbits(32),
            timestamp=random.randbytes(12),
            ephemeral_private=random.randbytes(32),
        )
        return self.jar.sign(encode_initiation(message), 0.0)

    def question(self) -> bytes:
        """For a service address, or for nobody."""
        random = self.random
        if random.random() < 0.2:
            return self.hostile.packet(inward=False)
        if random.random() < 0.2:
            packet = ipv4(6, tcp(random.choice((53, 4000)), random.choice((53, 4000))), _OWN.packed, _SERVICE.packed)
        else:
            packet = encode_udp(_OWN, _SERVICE, UDPDatagram(5000, 53, self.questions.next()))
        return self.hostile.damage(packet) if random.random() < 0.2 else packet


def run(executions: int, seed: int) -> EngineFuzzer:
    """Fuzz until so many events were handled; what is left can be asked for its counters."""
    fuzzer = EngineFuzzer(seed)
    try:
        while fuzzer.executions < executions:
            fuzzer.turn()
    finally:
        fuzzer.close()
    return fuzzer
