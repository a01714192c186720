"""The client side of a relay connection."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from meshd.base.crypto import box_shared
from meshd.base.keys import NodePrivate
from meshd.core.derpclient import (
    DerpClient,
    Failed,
    HealthChanged,
    PacketsReceived,
    PeerGone,
    ProbeAnswered,
    Ready,
    Restarting,
    State,
)
from meshd.core.tokenbucket import TokenBucket
from meshd.wire import derp
from meshd.wire.derpinfo import ServerInfo

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "derp.json").read_text())
CLIENT = NodePrivate(bytes.fromhex(VECTORS["client_priv"]))
SERVER = NodePrivate(bytes.fromhex(VECTORS["server_priv"]))
SERVER_KEY = SERVER.public().raw
SHARED = box_shared(SERVER.raw, CLIENT.public().raw)
OTHER = bytes.fromhex(VECTORS["other_pub"])
SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n"
    b"Derp-Version: 2\r\nDerp-Public-Key: " + SERVER_KEY.hex().encode() + b"\r\n\r\n"
)
DATA = b"\x04\0\0\0" + bytes(40)
T0 = 1000.0


def fixed(size):
    return bytes(range(1, 256))[:size]


def client(**changes):
    return DerpClient(CLIENT, host="derp.example", random=fixed, **changes)


def running(**changes):
    machine = client(server_key=SERVER_KEY, **changes)
    machine.start(T0)
    machine.data_to_send()
    machine.drain()
    return machine


def frames(data):
    return derp.FrameReader().feed(data)


def test_derpclient_ordinary_start_waits_for_the_answer():
    machine = client()
    machine.start(T0)
    assert machine.data_to_send() == VECTORS["http_request_example"].encode()
    machine.receive_data(SWITCHING[:50], T0)
    assert machine.state is State.UPGRADING
    machine.receive_data(SWITCHING[50:] + derp.encode_server_key(SERVER_KEY)[:10], T0)
    assert machine.state is State.KEY_WAIT
    machine.receive_data(derp.encode_server_key(SERVER_KEY)[10:], T0)
    assert machine.state is State.RUNNING
    assert machine.drain() == [Ready()]
    ((kind, body),) = frames(machine.data_to_send())
    assert kind == derp.FrameType.CLIENT_INFO
    key, nonce, boxed = derp.split_client_info(body)
    assert key == CLIENT.public().raw
    info = derp.open_client_info(SHARED, nonce, boxed)
    assert (info.version, info.can_ack_pings) == (2, True)


def test_derpclient_fast_start_sends_everything_in_one_flight():
    """No HTTP answer comes, yet the server key does (13.4)."""
    machine = client(server_key=SERVER_KEY, preferred=True)
    machine.start(T0)
    head, _, rest = machine.data_to_send().partition(b"\r\n\r\n")
    assert b"Derp-Fast-Start: 1" in head
    assert [kind for kind, _ in frames(rest)] == [derp.FrameType.CLIENT_INFO, derp.FrameType.NOTE_PREFERRED]
    assert machine.state is State.RUNNING
    machine.receive_data(derp.encode_server_key(SERVER_KEY), T0)
    assert machine.state is State.RUNNING
    assert machine.data_to_send() == b""


def test_derpclient_fast_start_with_another_key_fails():
    machine = running()
    machine.receive_data(derp.encode_server_key(bytes(31) + b"\x09"), T0)
    assert machine.state is State.FAILED


def test_derpclient_names_the_ideal_node():
    machine = client(ideal_node="900a")
    machine.start(T0)
    assert b"\r\nIdeal-Node: 900a\r\n" in machine.data_to_send()
    machine = client(ideal_node="900a\r\nX: y")
    machine.start(T0)
    assert b"X: y" not in machine.data_to_send()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 403 Forbidden\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"x" * 20000,
        SWITCHING + b"\x01\x00\x00\x00\x28" + bytes(40),
        SWITCHING + derp.encode_keep_alive(),
        SWITCHING + b"\x05\xff\xff\xff\xff",
    ],
)
def test_derpclient_wrong_answers_fail_with_a_reason(answer):
    machine = client()
    machine.start(T0)
    machine.receive_data(answer, T0)
    assert machine.state is State.FAILED
    (failed,) = [e for e in machine.drain() if isinstance(e, Failed)]
    assert failed.reason
    machine.receive_data(answer, T0)
    assert machine.drain() == []


def test_derpclient_splits_transport_from_the_rest():
    machine = running()
    data = derp.encode_recv_packet(OTHER, DATA) + derp.encode_recv_packet(OTHER, b"TS-disco")
    data += derp.encode_frame(0x77, b"unknown") + derp.encode_keep_alive() + derp.encode_recv_packet(OTHER, DATA)
    machine.receive_data(data, T0)
    (received,) = machine.drain()
    assert isinstance(received, PacketsReceived)
    assert list(received.transport) == [DATA, DATA]
    assert (received.other, received.sources) == ([(OTHER, b"TS-disco")], {OTHER})


def test_derpclient_peer_that_leaves_after_its_packet_is_gone_after_it():
    """Of one read; told the other way round, the peer would count as heard here after it left."""
    packet, gone = derp.encode_recv_packet(OTHER, DATA), derp.encode_peer_gone(OTHER, derp.PeerGoneReason.DISCONNECTED)
    another = derp.encode_peer_gone(bytes(32), derp.PeerGoneReason.NOT_HERE)
    machine = running()
    machine.receive_data(packet + another + gone, T0)
    assert [type(effect) for effect in machine.drain()] == [PeerGone, PacketsReceived, PeerGone]
    machine.receive_data(packet + gone + packet, T0)
    assert [type(effect) for effect in machine.drain()] == [PeerGone, PacketsReceived]


@pytest.mark.parametrize("step", [1, 3, 7, 50])
def test_derpclient_frames_in_any_pieces(step):
    machine = running()
    data = b"".join(derp.encode_recv_packet(OTHER, DATA + bytes([n])) for n in range(9))
    for at in range(0, len(data), step):
        machine.receive_data(data[at : at + step], T0)
    got = [p for e in machine.drain() for p in e.transport]
    assert got == [DATA + bytes([n]) for n in range(9)]


def test_derpclient_runt_recv_packet_is_skipped():
    machine = running()
    machine.receive_data(derp.encode_frame(derp.FrameType.RECV_PACKET, b"short"), T0)
    assert machine.state is State.RUNNING
    assert machine.drain() == []


def test_derpclient_answers_ping_with_its_bytes():
    machine = running()
    machine.receive_data(derp.encode_ping(b"12345678"), T0)
    assert machine.data_to_send() == derp.encode_pong(b"12345678")


def test_derpclient_answers_no_ping_while_nothing_can_be_sent():
    machine = running()
    machine.answers_pings = False
    machine.receive_data(derp.encode_ping(b"12345678"), T0)
    assert machine.data_to_send() == b""
    machine.answers_pings = True
    machine.receive_data(derp.encode_ping(b"abcdefgh"), T0)
    assert machine.data_to_send() == derp.encode_pong(b"abcdefgh")


def test_derpclient_reports_gone_health_restart():
    machine = running()
    machine.receive_data(
        derp.encode_peer_gone(OTHER, 1)
        + derp.encode_health("duplicate connection")
        + derp.encode_health("")
        + derp.encode_restarting(derp.Restarting(1500, 60000)),
        T0,
    )
    assert machine.drain() == [
        PeerGone(OTHER, 1),
        HealthChanged("duplicate connection"),
        HealthChanged(""),
        Restarting(1.5, 60.0),
    ]


def test_derpclient_send_packet_frame():
    machine = running()
    assert machine.send_packet(OTHER, b"hello", T0)
    assert machine.data_to_send() == derp.encode_send_packet(OTHER, b"hello")
    assert not machine.send_packet(OTHER, bytes(70000), T0)


def test_derpclient_rate_limit_drops_the_excess():
    machine = running()
    info = ServerInfo(version=2, token_bucket_bytes_per_second=1000, token_bucket_bytes_burst=200)
    machine.receive_data(derp.encode_server_info(SHARED, fixed(24), info), T0)
    frame = derp.encode_send_packet(OTHER, bytes(63))
    assert len(frame) == 100
    machine.send_frames(frame * 3, T0)
    assert machine.data_to_send() == frame * 2
    assert machine.dropped_by_rate == 1
    assert machine.send_packet(OTHER, bytes(63), T0 + 0.1)
    assert not machine.send_packet(OTHER, bytes(63), T0 + 0.1)


def test_derpclient_bundle_beyond_the_burst_goes_in_pieces():
    """A relay whose burst is shorter than a bundle would otherwise never let one pass."""
    machine = running()
    info = ServerInfo(version=2, token_bucket_bytes_per_second=1000, token_bucket_bytes_burst=250)
    machine.receive_data(derp.encode_server_info(SHARED, fixed(24), info), T0)
    messages = [bytes([4, 0, 0, 0, n]) + bytes(58) for n in range(4)] + [b"\x04\0\0\0\x04"]
    singles = [derp.encode_send_packet(OTHER, message) for message in messages]
    bundle = derp.encode_send_packet(OTHER, b"\x42\0\0\x3f" + b"".join(messages))
    assert (len(singles[0]), len(bundle) > 250) == (100, True)
    machine.send_frames(bundle, T0)
    assert machine.data_to_send() == singles[0] + singles[1] + singles[4]
    assert machine.dropped_by_rate == 2


def test_derpclient_bundle_within_the_rate_stays_one_frame():
    machine = running()
    info = ServerInfo(version=2, token_bucket_bytes_per_second=1000, token_bucket_bytes_burst=1000)
    machine.receive_data(derp.encode_server_info(SHARED, fixed(24), info), T0)
    bundle = derp.encode_send_packet(OTHER, b"\x42\0\0\x3f" + bytes(63 * 4))
    machine.send_frames(bundle, T0)
    assert machine.data_to_send() == bundle


@pytest.mark.parametrize("packet", [b"\x42\0\0\0" + bytes(400), b"\x42\0\0", b"\x42", b"\x04" + bytes(400)])
def test_derpclient_frame_beyond_the_burst_that_is_no_bundle_is_dropped(packet):
    machine = running()
    info = ServerInfo(version=2, token_bucket_bytes_per_second=1, token_bucket_bytes_burst=1)
    machine.receive_data(derp.encode_server_info(SHARED, fixed(24), info), T0)
    machine.send_frames(derp.encode_send_packet(OTHER, packet), T0)
    assert machine.data_to_send() == b""
    assert machine.dropped_by_rate == 1


def test_derpclient_forged_server_info_fails():
    machine = running()
    machine.receive_data(derp.encode_server_info(bytes(32), fixed(24), ServerInfo(version=2)), T0)
    assert machine.state is State.FAILED


def test_derpclient_silence_of_120_s_fails():
    machine = running()
    machine.receive_data(derp.encode_keep_alive(), T0 + 60)
    assert machine.next_timer() == T0 + 180
    machine.handle_timer(T0 + 179)
    assert machine.state is State.RUNNING
    machine.handle_timer(T0 + 180)
    assert machine.state is State.FAILED


def test_derpclient_setup_takes_10_s_at_most():
    machine = client()
    machine.start(T0)
    assert machine.next_timer() == T0 + 10
    machine.handle_timer(T0 + 10)
    assert machine.state is State.FAILED


def test_derpclient_probe_answered_or_failed_after_3_s():
    alive, dead = running(), running()
    for machine in (alive, dead):
        machine.probe(T0 + 5)
    ((_, data),) = frames(alive.data_to_send())
    alive.receive_data(derp.encode_pong(data), T0 + 5.5)
    assert alive.drain() == [ProbeAnswered(0.5)]
    assert dead.next_timer() == T0 + 8
    dead.handle_timer(T0 + 8)
    assert dead.state is State.FAILED


def test_derpclient_notes_preferred_only_on_change():
    machine = running()
    machine.note_preferred(False)
    assert machine.data_to_send() == b""
    machine.note_preferred(True)
    assert machine.data_to_send() == derp.encode_note_preferred(True)


def test_token_bucket_refills_up_to_its_burst():
    bucket = TokenBucket(10, 20, 0.0)
    assert bucket.take(20, 0.0)
    assert not bucket.take(1, 0.0)
    assert bucket.take(10, 1.0)
    assert not bucket.take(21, 100.0)
    assert bucket.take(20, 100.0)
