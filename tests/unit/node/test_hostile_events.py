"""Whatever peers, relays and strangers say: engine and paths count it, and no exception comes of it."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from meshd._fast.derpframes import split_frames
from meshd.core.cookie import CookieJar
from meshd.core.derpclient import PacketsReceived, PeerGone
from meshd.node import dataplane as ev
from meshd.wire import disco, stun
from meshd.wire.derp import encode_recv_packet
from tests.fuzz.hostile import Hostile
from tests.unit.node.pathhost import PathHost

ROUNDS = 4000


class Adversary:
    """Peer b with everything it knows: its keys, those of a, the shared disco secret."""

    def __init__(self, random: Random, victim: PathHost, peer: PathHost) -> None:
        self.random, self.victim, self.peer = random, victim, peer
        self.hostile = Hostile(random)
        self.jar = CookieJar(victim.key.raw)
        channel = peer.magic._paths.disco
        self.disco_key = channel.public.raw
        self.shared = channel.peers.shared(victim.magic.disco_public.raw)
        assert self.shared is not None
        self.index = victim.engine.peer_index(peer.key)

    def datagram(self) -> bytes:
        random = self.random
        match random.randrange(5):
            case 0:
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

    def act(self) -> None:
        random, victim = self.random, self.victim
        match random.randrange(4):
            case 0:
                address = random.choice((bytes((127, 0, 0, 1)), bytes((127, 3, 3, 40)), random.randbytes(16)))
                victim.engine.on_event((ev.EV_DATAGRAM, address, random.randrange(65536), self.datagram()))
            case 1:
                kind = random.choice((ev.EV_TSMP, ev.EV_ECHO, ev.EV_LOCAL, ev.EV_DENIED, ev.EV_STAGED))
                packet = self.hostile.packet(inward=random.random() < 0.8)
                victim.engine.on_event((kind, self.index, bytes(10) + packet if kind == ev.EV_STAGED else packet))
            case 2:
                victim.engine.on_event((ev.EV_SERVICE, self.hostile.packet(inward=False)))
            case 3:
                source = random.choice((self.peer.key.raw, self.peer.key.raw, random.randbytes(32), bytes(32)))
                region = random.choice((1, 7, 900, 65535))
                found = split_frames(encode_recv_packet(source, self.datagram()))
                packets = PacketsReceived(found.transport, found.others, found.sources)
                victim.magic.relay_packets(region, packets)
                victim.magic.relay_peer_gone(region, PeerGone(source, random.randrange(256)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_hostile_events_raise_nothing(seed: int) -> None:
    faults: list[object] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
        victim, peer = PathHost(1), PathHost(2)
        try:
            victim.know(peer, home=0)
            peer.know(victim, home=0)
            adversary = Adversary(Random(seed), victim, peer)
            for turn in range(ROUNDS):
                adversary.act()
                if turn % 64 == 0:
                    await asyncio.sleep(0)
            counters = {**victim.engine.counters(), **victim.magic.disco_drops()}
            assert len(counters) > 5, counters
            path = victim.magic._paths.by_raw(peer.key.raw).path
            assert len(path.candidates) <= 100
        finally:
            victim.close()
            peer.close()

    asyncio.run(main())
    assert faults == []
