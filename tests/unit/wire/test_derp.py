from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.base import crypto
from meshd.base.addr import AddrPort
from meshd.base.errors import WireError
from meshd.wire import derp
from meshd.wire.derpinfo import ClientInfo, ServerInfo, decode_info, encode_info

OTHER = bytes.fromhex("ad438bfae31f6c093d61d4339255ea798092c9fadd07b97827f4b0ae9dee7c1c")
CLIENT = bytes.fromhex("5869aff450549732cbaaed5e5df9b30a6da31cb0e5742bad5ad4a1a768f1a67b")
PRESENT = derp.PeerPresent(OTHER, AddrPort.parse("192.0.2.1:4444"), 1)

PLAIN_FRAMES = {
    "note_preferred": (derp.encode_note_preferred(True), derp.decode_note_preferred, True),
    "send_packet": (
        derp.encode_send_packet(OTHER, b"hello"),
        derp.decode_send_packet,
        derp.SendPacket(OTHER, b"hello"),
    ),
    "recv_packet": (
        derp.encode_recv_packet(OTHER, b"hello"),
        derp.decode_recv_packet,
        derp.RecvPacket(OTHER, b"hello"),
    ),
    "forward_packet": (
        derp.encode_forward_packet(CLIENT, OTHER, b"hello"),
        derp.decode_forward_packet,
        derp.ForwardPacket(CLIENT, OTHER, b"hello"),
    ),
    "peer_gone_disconnected": (
        derp.encode_peer_gone(OTHER, derp.PeerGoneReason.DISCONNECTED),
        derp.decode_peer_gone,
        derp.PeerGone(OTHER, 0),
    ),
    "peer_gone_not_here": (
        derp.encode_peer_gone(OTHER, derp.PeerGoneReason.NOT_HERE),
        derp.decode_peer_gone,
        derp.PeerGone(OTHER, 1),
    ),
    "close_peer": (derp.encode_close_peer(OTHER), derp.decode_close_peer, OTHER),
    "ping": (derp.encode_ping(bytes(range(8))), derp.decode_ping, bytes(range(8))),
    "pong": (derp.encode_pong(bytes(range(8))), derp.decode_ping, bytes(range(8))),
    "health": (derp.encode_health("duplicate connection"), derp.decode_health, "duplicate connection"),
    "restarting": (
        derp.encode_restarting(derp.Restarting(500, 3000)),
        derp.decode_restarting,
        derp.Restarting(500, 3000),
    ),
}


@pytest.mark.parametrize("name", PLAIN_FRAMES)
def test_frame_vector_both_ways(vectors, name):
    encoded, decode, value = PLAIN_FRAMES[name]
    wanted = bytes.fromhex(vectors("derp")["frames"][name])
    assert encoded == wanted
    [(kind, payload)] = derp.FrameReader().feed(wanted)
    assert kind == wanted[0]
    assert decode(payload) == value


def test_empty_frame_vectors(vectors):
    frames = vectors("derp")["frames"]
    assert derp.encode_keep_alive().hex() == frames["keepalive"]
    assert derp.encode_watch_conns().hex() == frames["watch_conns"]


def test_peer_present_vector_and_older_forms(vectors):
    wanted = bytes.fromhex(vectors("derp")["frames"]["peer_present"])
    [(kind, payload)] = derp.FrameReader().feed(wanted)
    assert kind == derp.FrameType.PEER_PRESENT
    present = derp.decode_peer_present(payload)
    assert present.peer == OTHER
    assert present.address == AddrPort.parse("192.0.2.1:4444")
    assert derp.decode_peer_present(payload[:50]) == present._replace(flags=0)
    assert derp.decode_peer_present(payload[:32]) == derp.PeerPresent(OTHER)
    assert derp.encode_peer_present(derp.PeerPresent(OTHER))[5:] == OTHER
    round_trip = derp.encode_peer_present(PRESENT)[5:]
    assert derp.decode_peer_present(round_trip) == PRESENT


def test_greeting_vectors_both_ways(vectors):
    wanted = vectors("derp")
    client, server = bytes.fromhex(wanted["client_priv"]), bytes.fromhex(wanted["server_priv"])
    client_pub, server_pub = bytes.fromhex(wanted["client_pub"]), bytes.fromhex(wanted["server_pub"])
    frames = {name: bytes.fromhex(text) for name, text in wanted["frames"].items()}
    shared = crypto.box_shared(client, server_pub)

    assert derp.encode_server_key(server_pub) == frames["server_key"]
    assert derp.decode_server_key(frames["server_key"][5:] + b"later") == server_pub

    public, nonce, boxed = derp.split_client_info(frames["client_info"][5:])
    assert public == client_pub
    info = derp.open_client_info(crypto.box_shared(server, client_pub), nonce, boxed)
    assert info == ClientInfo(version=2, can_ack_pings=True)
    assert encode_info(info).decode() == wanted["client_info_json"]
    assert derp.encode_client_info(client_pub, shared, nonce, info) == frames["client_info"]

    payload = frames["server_info"][5:]
    assert derp.decode_server_info(shared, payload) == ServerInfo(version=2)
    assert derp.encode_server_info(shared, payload[:24], ServerInfo(version=2)) == frames["server_info"]
    with pytest.raises(WireError, match="authenticate"):
        derp.decode_server_info(bytes(32), payload)
    with pytest.raises(WireError, match="authenticate"):
        derp.open_client_info(bytes(32), nonce, boxed)


def test_info_names_match_in_any_case():
    """Pitfall 4 of the data plane: the JSON names are of mixed case."""
    info = decode_info(ClientInfo, b'{"MESHKEY":"s3cret","Version":2,"canAckPings":true,"unknown":1}')
    assert (info.mesh_key, info.version, info.can_ack_pings) == ("s3cret", 2, True)
    assert "s3cret" not in repr(info)
    assert encode_info(ClientInfo(version=2)) == b'{"version":2,"CanAckPings":false}'
    bucket = decode_info(ServerInfo, b'{"TokenBucketBytesPerSecond":1000,"TokenBucketBytesBurst":2000}')
    assert bucket.token_bucket_bytes_per_second == 1000
    assert bucket.token_bucket_bytes_burst == 2000


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=300)), max_size=8), st.integers(1, 400))
def test_frame_reader_any_cut_gives_the_same_frames(frames, cut):
    stream = b"".join(derp.encode_frame(kind, payload) for kind, payload in frames)
    reader = derp.FrameReader()
    found = [frame for i in range(0, len(stream), cut) for frame in reader.feed(stream[i : i + cut])]
    assert found == frames


def test_frame_reader_oversized_frame_rejected_at_its_header():
    with pytest.raises(WireError, match="expected <= 100"):
        derp.FrameReader(limit=100).feed(b"\x05\x00\x00\x00\x65")
    with pytest.raises(WireError):
        derp.FrameReader().feed(b"\x05\x00\x10\x00\x01")


@pytest.mark.parametrize(
    ("decode", "payload"),
    [
        (derp.decode_server_key, b"DERP" + bytes(36)),
        (derp.decode_server_key, derp.MAGIC + bytes(31)),
        (derp.split_client_info, bytes(55)),
        (derp.split_client_info, bytes(derp.MAX_CLIENT_INFO + 1)),
        (derp.decode_recv_packet, bytes(31)),
        (derp.decode_recv_packet, bytes(32 + derp.MAX_PACKET + 1)),
        (derp.decode_forward_packet, bytes(63)),
        (derp.decode_peer_gone, bytes(31)),
        (derp.decode_close_peer, bytes(33)),
        (derp.decode_ping, bytes(7)),
        (derp.decode_restarting, bytes(7)),
        (derp.decode_note_preferred, b""),
    ],
)
def test_payload_malformed_rejected(decode, payload):
    with pytest.raises(WireError):
        decode(payload)


def test_peer_gone_without_or_with_new_reason_accepted():
    assert derp.decode_peer_gone(OTHER) == derp.PeerGone(OTHER, derp.PeerGoneReason.DISCONNECTED)
    assert derp.decode_peer_gone(OTHER + b"\x77").reason == 0x77
