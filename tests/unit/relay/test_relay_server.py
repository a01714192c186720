"""The relay over real sockets, spoken to in frames."""

from __future__ import annotations

import asyncio
import os
import ssl
from dataclasses import dataclass, field

import pytest
import uvloop

from meshd.base.crypto import box_shared
from meshd.base.keys import NodePrivate
from meshd.io.http.front import FrontConnection, Response
from meshd.io.listener import SniffingListener
from meshd.relay.certificate import self_signed
from meshd.relay.pages import RelayPages
from meshd.relay.server import RelayServer
from meshd.relay.session import MAX_SENT_TO, RelaySession
from meshd.wire import derp
from meshd.wire.derp import FrameType
from meshd.wire.derpinfo import ClientInfo
from meshd.wire.disco import MAGIC as DISCO_MAGIC

FAST = b"GET /derp HTTP/1.1\r\nHost: r\r\nUpgrade: DERP\r\nConnection: Upgrade\r\nDerp-Fast-Start: 1\r\n\r\n"
SLOW = FAST.replace(b"Derp-Fast-Start: 1\r\n", b"")


@dataclass
class Rig:
    relay: RelayServer
    listener: SniffingListener
    tmp: object
    writers: list = field(default_factory=list)


class Client:
    def __init__(self, rig, private=None):
        self.rig = rig
        self.private = private or NodePrivate.generate()
        self.key = self.private.public().raw
        self.frames = derp.FrameReader()
        self.waiting = []

    async def open(self, *, fast=True, tls=None):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.rig.listener.port, ssl=tls)
        self.rig.writers.append(self.writer)
        self.writer.write(FAST if fast else SLOW)
        if not fast:
            head = await self.reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101 ")
            assert b"Derp-Public-Key: " + self.rig.relay.public.raw.hex().encode() in head
        kind, payload = await self.next()
        assert kind == FrameType.SERVER_KEY
        server = derp.decode_server_key(payload)
        self.shared = box_shared(self.private.raw, server)
        return self

    async def hello(self):
        info = ClientInfo(version=2, can_ack_pings=True)
        self.writer.write(derp.encode_client_info(self.key, self.shared, os.urandom(24), info))
        kind, payload = await self.next()
        assert kind == FrameType.SERVER_INFO
        assert derp.decode_server_info(self.shared, payload).version == 2
        return self

    async def next(self):
        while not self.waiting:
            data = await self.reader.read(65536)
            if not data:
                return None
            self.waiting = self.frames.feed(data)
        return self.waiting.pop(0)

    def send(self, to, packet):
        self.writer.write(derp.encode_send_packet(to.key, packet))


@pytest.fixture(params=["asyncio", "uvloop"])
def play(request, tmp_path):
    def run(scenario, **options):
        async def whole():
            relay = RelayServer(NodePrivate.generate(), **options)
            tls = self_signed(tmp_path, ["127.0.0.1"], relay.public)
            pages = RelayPages(relay)

            async def handle(request):
                return await pages.handle(request) or Response(404)

            listener = SniffingListener(
                lambda encrypted, released: FrontConnection(handle, encrypted, released),
                tls=tls.context,
                max_connections=100,
            )
            listener.listen("127.0.0.1", 0)
            rig = Rig(relay, listener, tls)
            try:
                async with asyncio.timeout(15):
                    await scenario(rig)
            finally:
                for writer in rig.writers:  # a transport must not outlive its loop
                    writer.transport.abort()
                listener.close()
                relay.close()
                await listener.close_connections(0.1)

        factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(whole())

    return run


async def two(rig):
    return [await (await Client(rig).open()).hello() for _ in range(2)]


@pytest.mark.parametrize("fast", [True, False])
def test_relay_packet_reaches_its_destination(play, fast):
    async def scenario(rig):
        a = await (await Client(rig).open(fast=fast)).hello()
        b = await (await Client(rig).open(fast=fast)).hello()
        a.send(b, b"hello")
        kind, payload = await b.next()
        assert (kind, derp.decode_recv_packet(payload)) == (FrameType.RECV_PACKET, (a.key, b"hello"))

    play(scenario)


def test_relay_tls_shows_pinned_leaf_and_meta_certificate(play):
    async def scenario(rig):
        import hashlib

        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        a = await (await Client(rig).open(tls=context)).hello()
        leaf = a.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        assert hashlib.sha256(leaf).hexdigest() == rig.tmp.pin
        b = await (await Client(rig).open()).hello()
        b.send(a, b"x" * 65536)
        assert derp.decode_recv_packet((await a.next())[1]).packet == b"x" * 65536

    play(scenario)


def test_relay_frames_cut_anywhere_are_put_together(play):
    async def scenario(rig):
        a, b = await two(rig)
        packets = [os.urandom(size) for size in (1, 1280, 3, 60000, 7)]
        block = b"".join(derp.encode_send_packet(b.key, packet) for packet in packets)
        block = derp.encode_note_preferred(True) + derp.encode_frame(0x77, b"?" * 3000) + block
        for at in range(0, len(block), 701):
            a.writer.write(block[at : at + 701])
            await asyncio.sleep(0)
        got = [derp.decode_recv_packet((await b.next())[1]).packet for _ in packets]
        assert got == packets

    play(scenario)


def test_relay_unknown_destination_is_told_for_disco_only_and_not_too_often(play):
    async def scenario(rig):
        a = await (await Client(rig).open()).hello()
        nobody = Client(rig)
        a.send(nobody, b"plain")
        for _ in range(10):
            a.send(nobody, DISCO_MAGIC + b"x" * 80)
        a.writer.write(derp.encode_ping(b"12345678"))
        kinds = []
        while True:
            kind, payload = await a.next()
            if kind == FrameType.PONG:
                assert payload == b"12345678"
                break
            assert derp.decode_peer_gone(payload) == (nobody.key, derp.PeerGoneReason.NOT_HERE)
            kinds.append(kind)
        assert len(kinds) == 3
        assert rig.relay.counters.dropped_unknown_destination == 11

    play(scenario)


def test_relay_receivers_hear_that_a_sender_left(play):
    async def scenario(rig):
        a, b = await two(rig)
        a.send(b, b"hello")
        await b.next()
        a.writer.close()
        kind, payload = await b.next()
        assert kind == FrameType.PEER_GONE
        assert derp.decode_peer_gone(payload) == (a.key, derp.PeerGoneReason.DISCONNECTED)

    play(scenario)


def test_relay_receivers_hear_that_a_sender_left_which_had_connected_again(play):
    """Else they go on sending to it until their own timers end."""

    async def scenario(rig):
        a, b = await two(rig)
        a.send(b, b"hello")
        await b.next()
        again = await (await Client(rig, a.private).open()).hello()
        a.writer.close()
        await asyncio.sleep(0.05)
        assert rig.relay.clients == 2
        again.writer.close()
        kind, payload = await b.next()
        assert kind == FrameType.PEER_GONE
        assert derp.decode_peer_gone(payload) == (a.key, derp.PeerGoneReason.DISCONNECTED)

    play(scenario)


def test_relay_inherited_receivers_are_bounded():
    async def whole():
        session = RelaySession(RelayServer(NodePrivate.generate()), None, "192.0.2.1")
        session.sent_to = set(range(MAX_SENT_TO - 2))
        session.inherit(set(range(MAX_SENT_TO, 2 * MAX_SENT_TO)))
        assert len(session.sent_to) == MAX_SENT_TO
        session.inherit({-1})
        assert len(session.sent_to) == MAX_SENT_TO

    asyncio.run(whole())


def test_relay_same_key_twice_sends_to_the_one_that_spoke_last(play):
    async def scenario(rig):
        a, b = await two(rig)
        again = await (await Client(rig, b.private).open()).hello()
        a.send(b, b"to the newer")
        assert (await again.next())[0] == FrameType.RECV_PACKET
        b.send(a, b"I speak")
        await a.next()
        a.send(b, b"to the speaker")
        assert derp.decode_recv_packet((await b.next())[1]).packet == b"to the speaker"
        b.writer.close()
        await asyncio.sleep(0.05)
        a.send(b, b"to who is left")
        assert derp.decode_recv_packet((await again.next())[1]).packet == b"to who is left"

    play(scenario)


def test_relay_refused_client_is_cut_off(play):
    async def admit(key, source_ip):
        assert source_ip == "127.0.0.1"
        return False

    async def scenario(rig):
        client = await Client(rig).open()
        client.writer.write(derp.encode_client_info(client.key, client.shared, os.urandom(24), ClientInfo(version=2)))
        assert await client.next() is None
        assert (rig.relay.clients, rig.relay.counters.refused) == (0, 1)

    play(scenario, admit=admit)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff" * 5000,
        derp.encode_frame(FrameType.SEND_PACKET, b"x" * 100),
        derp.encode_frame(FrameType.CLIENT_INFO, b"x" * 200),
        derp.encode_frame(FrameType.CLIENT_INFO, bytes(200)),
        b"\x02\xff\xff\xff\xff" + b"x" * 100,
    ],
)
def test_relay_garbage_instead_of_client_info_ends_the_connection(play, garbage):
    async def scenario(rig):
        client = await Client(rig).open()
        client.writer.write(garbage)
        try:
            assert await client.next() is None
        except ConnectionError:
            pass
        assert rig.relay.counters.protocol_errors == 1
        a, b = await two(rig)
        a.send(b, b"still here")
        assert await b.next()

    play(scenario)


@pytest.mark.parametrize(
    "frame",
    [
        derp.encode_watch_conns(),
        derp.encode_close_peer(bytes(32)),
        derp.encode_frame(FrameType.SEND_PACKET, bytes(32)),
        b"\x04\x00\x02\x00\x00",
        b"\x77\x7f\xff\xff\xff",
        b"\x12\x00\x01\x00\x00",
        derp.encode_ping(b"1"),
    ],
)
def test_relay_bad_frame_of_a_known_client_ends_only_its_connection(play, frame):
    async def scenario(rig):
        a, b = await two(rig)
        a.writer.write(frame)
        try:
            assert await a.next() is None
        except ConnectionError:
            pass
        assert rig.relay.clients == 1
        b.writer.write(derp.encode_ping(b"87654321"))
        assert (await b.next())[0] == FrameType.PONG

    play(scenario)


def test_relay_slow_receiver_loses_oldest_and_memory_stays_bounded(play):
    async def scenario(rig):
        a, b = await two(rig)
        count = 6000
        for i in range(count):
            a.send(b, i.to_bytes(4, "big") + b"x" * 4000)
            if i % 100 == 0:
                await a.writer.drain()
                await asyncio.sleep(0)
        await a.writer.drain()
        last = -1
        received = 0
        while last != count - 1:
            frame = await b.next()
            assert frame is not None
            number = int.from_bytes(frame[1][32:36], "big")
            assert number > last
            last, received = number, received + 1
        assert received + rig.relay.counters.dropped_queue_full == count
        assert rig.relay.counters.packets_sent == received

    play(scenario)


def test_relay_rate_limit_pauses_reading(play):
    async def scenario(rig):
        a, b = await two(rig)
        for _ in range(40):
            a.send(b, b"x" * 1000)
        for _ in range(40):
            await b.next()
        assert rig.relay.counters.throttled > 0

    play(scenario, client_rate_bytes=20000)


@pytest.mark.parametrize("step", [700, 1448, 65536])
def test_relay_rate_limit_counts_every_byte_once(monkeypatch, step):
    counted = []
    monkeypatch.setattr(RelaySession, "_account", lambda session, received: counted.append(received))

    async def whole():
        session = RelaySession(RelayServer(NodePrivate.generate(), client_rate_bytes=1), None, "192.0.2.1")
        session.key, session._awake = bytes(32), True
        skipped = bytes([FrameType.HEALTH]) + (5000).to_bytes(4, "big") + bytes(5000)
        stream = (derp.encode_send_packet(b"\2" * 32, bytes(1300)) + skipped) * 20
        for at in range(0, len(stream), step):
            session.data_received(stream[at : at + step])
        assert sum(counted) == len(stream)

    asyncio.run(whole())


async def _http(rig, text):
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.listener.port)
    writer.write(text)
    answer = await reader.read()
    writer.close()
    return answer


def test_relay_probes_are_answered(play):
    async def scenario(rig):
        tail = b"Host: r\r\nConnection: close\r\n"
        probe = await _http(rig, b"GET /derp/latency-check HTTP/1.1\r\n" + tail + b"\r\n")
        assert probe.startswith(b"HTTP/1.1 200")
        assert b"access-control-allow-origin: *" in probe.lower()
        portal = b"GET /generate_204 HTTP/1.1\r\n" + tail + b"X-Tailscale-Challenge: ts_r\r\n\r\n"
        answer = await _http(rig, portal)
        assert answer.startswith(b"HTTP/1.1 204")
        assert b"x-tailscale-response: response ts_r" in answer.lower()
        assert (await _http(rig, b"GET /derp HTTP/1.1\r\n" + tail + b"\r\n")).startswith(b"HTTP/1.1 426")
        assert (await _http(rig, b"POST /derp/probe HTTP/1.1\r\n" + tail + b"\r\n")).startswith(b"HTTP/1.1 405")
        assert (await _http(rig, b"\x00\x01garbage\r\n\r\n")).startswith(b"HTTP/1.1 400")

    play(scenario)
