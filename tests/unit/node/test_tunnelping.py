from __future__ import annotations

import random

import pytest

from meshd.base.addr import parse_ip
from meshd.node.tunnelping import MAX_WAITING, TunnelPings, reject
from meshd.testing.clock import FakeClock
from meshd.testing.loop import FakeTimeLoop
from meshd.wire.ippacket import PROTO_TCP, Echo, decode_echo, decode_ip, encode_echo, encode_ip
from meshd.wire.tsmp import RejectReason, TsmpPing, TsmpPong, TsmpReject, decode_tsmp, encode_tsmp_packet

A, B = parse_ip("100.64.0.1"), parse_ip("100.64.0.2")
A6, B6 = parse_ip("fd7a:115c:a1e0::1"), parse_ip("fd7a:115c:a1e0::2")


class Fixture:
    def __init__(self):
        self.clock = FakeClock()
        self.loop = FakeTimeLoop(self.clock)
        self.sent = []
        self.pings = TunnelPings(
            self.loop, self.clock.monotonic, random.Random(1).randbytes, lambda peer, packet: self.sent.append(packet)
        )
        self.pings.own_addresses = (A, A6)

    def start(self, coroutine):
        task = self.loop.create_task(coroutine)
        self.loop.run_for(0.05)
        return task


@pytest.fixture
def fixture():
    made = Fixture()
    yield made
    made.loop.close()


def test_tsmp_ping_is_answered_with_the_peerapi_port(fixture):
    fixture.pings.peerapi_port = 33000
    reply = fixture.pings.tsmp_received(0, encode_tsmp_packet(B, A, TsmpPing(b"12345678")))
    packet = decode_ip(reply)
    assert (packet.source, packet.destination) == (A, B)
    assert decode_tsmp(packet.payload) == TsmpPong(b"12345678", 33000)


def test_tsmp_pong_completes_the_ping_of_that_peer_only(fixture):
    task = fixture.start(fixture.pings.tsmp(4, B))
    ping = decode_tsmp(decode_ip(fixture.sent[0]).payload)
    pong = encode_tsmp_packet(B, A, TsmpPong(ping.data, 8080))
    fixture.pings.tsmp_received(5, pong)
    assert not task.done()
    fixture.pings.tsmp_received(4, pong)
    result = fixture.loop.run(task)
    assert result.peerapi_port == 8080
    assert result.latency_s == pytest.approx(0.05)
    assert fixture.pings.tsmp_received(4, pong) is None


@pytest.mark.parametrize(("ours", "theirs"), [(A, B), (A6, B6)])
def test_icmp_reply_completes_the_ping_and_others_are_left_to_the_host(fixture, ours, theirs):
    task = fixture.start(fixture.pings.icmp(4, theirs))
    request = decode_echo(decode_ip(fixture.sent[0]))
    assert request.identifier == fixture.pings.echo_identifier
    foreign = Echo(True, request.identifier, request.sequence, b"the host's own ping")
    assert not fixture.pings.echo_received(4, encode_echo(theirs, ours, foreign))
    assert not fixture.pings.echo_received(4, fixture.sent[0])
    reply = encode_echo(theirs, ours, Echo(True, request.identifier, request.sequence, request.data))
    assert fixture.pings.echo_received(4, reply)
    assert fixture.loop.run(task).peerapi_port == 0
    assert not fixture.pings.echo_received(4, reply)


def test_ping_without_answer_is_none_and_forgotten(fixture):
    assert fixture.loop.run(fixture.pings.tsmp(4, B, timeout_s=2)) is None
    assert not fixture.pings._waiting


def test_cancelled_ping_is_forgotten(fixture):
    task = fixture.start(fixture.pings.icmp(4, B))
    task.cancel()
    fixture.loop.run_for(0.1)
    assert not fixture.pings._waiting


def test_pings_under_way_are_bounded(fixture):
    tasks = [fixture.start(fixture.pings.tsmp(4, B)) for _ in range(MAX_WAITING)]
    assert fixture.loop.run(fixture.pings.tsmp(4, B)) is None
    fixture.loop.run_for(20)
    assert all(task.result() is None for task in tasks)


@pytest.mark.parametrize(
    "packet", [b"", b"\x45", bytes(40), b"\x60" + bytes(30), encode_ip(A, B, 99, b""), encode_ip(A, B, 99, b"p")]
)
def test_malformed_tsmp_is_ignored(fixture, packet):
    assert fixture.pings.tsmp_received(0, packet) is None
    assert not fixture.pings.echo_received(0, packet)


def _tcp(source, destination, flags):
    header = (1234).to_bytes(2, "big") + (443).to_bytes(2, "big") + bytes(9) + bytes([flags]) + bytes(6)
    return encode_ip(source, destination, PROTO_TCP, header)


def test_reject_answers_the_opening_of_an_ipv4_connection():
    packet = decode_ip(reject(_tcp(A, B, 0x02), RejectReason.ACL))
    assert (packet.source, packet.destination) == (B, A)
    assert decode_tsmp(packet.payload) == TsmpReject(PROTO_TCP, "A", 1234, 443)
    assert packet.payload == bytes.fromhex("21064104d201bb")


@pytest.mark.parametrize(
    "packet",
    [
        _tcp(A, B, 0x12),
        _tcp(A, B, 0x10),
        _tcp(A6, B6, 0x02),
        encode_ip(A, B, 17, bytes(20)),
        b"\x45\0",
        encode_ip(A, B, 6, b""),
    ],
)
def test_reject_is_silent_to_everything_else(packet):
    assert reject(packet, RejectReason.SHIELDS_UP) is None


def test_ping_without_an_own_address_of_that_family_is_none(fixture):
    fixture.pings.own_addresses = (A,)
    assert fixture.loop.run(fixture.pings.icmp(4, B6)) is None
    assert fixture.sent == []
