"""Handshake messages waiting for their turn of the event loop."""

from __future__ import annotations

import random

from meshd.base.addr import AddrPort
from meshd.base.keys import NodePrivate
from meshd.core.cookie import CookieJar
from meshd.core.handshake import Identity
from meshd.core.handshakequeue import MAX_WAITING
from meshd.core.indextable import IndexTable
from meshd.core.tunnelcontext import TunnelContext
from meshd.node.handshakedesk import HANDSHAKES_PER_TURN, HandshakeDesk
from meshd.testing.clock import FakeClock
from meshd.testing.loop import FakeTimeLoop
from meshd.wire.wireguard import decode_cookie_reply


def test_desk_flood_leaves_room_for_who_proves_his_address():
    """Whoever knows our public key can fill the queue; cheap cookie replies must empty it at once, or an honest
    peer finds it full however often it tries."""
    loop, drops, challenged, found = FakeTimeLoop(FakeClock()), {}, {}, []
    rng = random.Random(5)
    identity = Identity.of(NodePrivate.generate(rng.randbytes).raw)
    context = TunnelContext(identity, IndexTable(rng.randbytes), rng.randbytes, lambda _: bytes(12), drops)

    def challenge(source, data):
        challenged[source] = data

    desk = HandshakeDesk(loop, loop.time, drops, lambda public: found.append(public), lambda *_: None, challenge)
    desk.set_context(context)
    honest, jar = AddrPort.parse("192.0.2.1:5"), CookieJar(identity.public)
    flood = CookieJar(identity.public).sign(b"\1\0\0\0" + bytes(144), 0.0)

    def turn(*messages):
        for number in range(256):
            desk.receive(flood, AddrPort.parse(f"198.51.100.{number}:9"))
        for message in messages:
            desk.receive(message, honest)
        loop.run_for(0)

    for _ in range(20):
        turn()
    turn(jar.sign(b"\1\0\0\0" + bytes(144), 0.0))
    assert jar.accept_reply(decode_cookie_reply(challenged[honest]), 0.0)
    worked_on = drops.get("initiation_forged", 0)
    turn(jar.sign(b"\1\0\0\0" + bytes(144), 0.1))
    assert drops["initiation_forged"] == worked_on + 1, "the honest one was looked at"
    assert "queue_full" not in drops
    assert worked_on <= HANDSHAKES_PER_TURN
    assert MAX_WAITING > 256
    loop.close()
