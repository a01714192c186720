"""Where handshake messages are worked on: who moves a path, and what is counted when the identity goes."""

from __future__ import annotations

import asyncio
import random

from meshd.base.addr import AddrPort
from meshd.base.crypto import clamp
from meshd.core.cookie import CookieChecker, CookieJar
from meshd.core.handshake import Identity
from meshd.core.indextable import IndexTable
from meshd.core.tunnel import Tunnel
from meshd.core.tunnelcontext import TunnelContext
from meshd.core.tunneleffects import SendDatagram
from meshd.node.handshakedesk import HandshakeDesk
from meshd.wire.wireguard import encode_cookie_reply

NOW = 1000.0
STRANGER = AddrPort.parse("192.0.2.77:5000")


def identity(seed):
    return Identity.of(clamp(random.Random(seed).randbytes(32)))


def desk_of(loop, drops, accepted):
    def challenge(source, data):
        raise AssertionError("nobody asks for a cookie")

    return HandshakeDesk(loop, lambda: NOW, drops, lambda key: None, lambda *said: accepted.append(said), challenge)


def context_of(drops):
    rng = random.Random(1)
    return TunnelContext(identity("us"), IndexTable(rng.randbytes), rng.randbytes, lambda key: bytes(12), drops)


def test_cookie_reply_from_elsewhere_moves_no_path():
    """Endpoint moved on a cookie reply: it proves nothing about where the peer is."""
    drops, accepted, loop = {}, [], asyncio.new_event_loop()
    try:
        context = context_of(drops)
        desk = desk_of(loop, drops, accepted)
        desk.set_context(context)
        tunnel = Tunnel(context, identity("peer").public)
        tunnel.initiate(NOW)
        (sent,) = [effect.data for effect in tunnel.drain() if isinstance(effect, SendDatagram)]
        checker = CookieChecker(identity("peer").public, random.Random(3).randbytes)
        reply = checker.create_reply(sent, int.from_bytes(sent[4:8], "little"), b"source", NOW)
        desk.receive(encode_cookie_reply(reply), STRANGER)
        loop.run_until_complete(asyncio.sleep(0))
        assert accepted == []
        assert tunnel.drain() == []
        assert drops == {}
        desk.receive(encode_cookie_reply(reply), STRANGER)
        assert drops == {"cookie_unexpected": 1}
    finally:
        loop.close()


def test_messages_that_wait_when_the_identity_changes_are_counted():
    drops, accepted, loop = {}, [], asyncio.new_event_loop()
    try:
        desk = desk_of(loop, drops, accepted)
        desk.set_context(context_of(drops))
        message = CookieJar(identity("us").public).sign(b"\1\0\0\0" + bytes(144), NOW)
        for _ in range(3):
            desk.receive(message, STRANGER)
        desk.set_context(None)
        loop.run_until_complete(asyncio.sleep(0))
        assert drops == {"identity_changed": 3}
        desk.receive(message, STRANGER)
        assert drops == {"identity_changed": 3, "no_private_key": 1}
        assert accepted == []
    finally:
        loop.close()
