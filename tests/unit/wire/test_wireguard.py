from __future__ import annotations

import pytest

from meshd.base.errors import WireError
from meshd.wire import wireguard as wg


def test_initiation_vector_both_ways(vectors):
    wanted = vectors("wireguard")
    raw = bytes.fromhex(wanted["initiation"])
    message = wg.decode_initiation(raw)
    assert message.sender == wanted["initiator_index"]
    assert message.ephemeral.hex() == wanted["keys"]["initiator_ephemeral_pub"]
    assert message.mac2 == bytes(16)
    assert wg.encode_initiation(message) == raw
    assert len(raw) == wg.INITIATION_SIZE


def test_response_vector_both_ways(vectors):
    wanted = vectors("wireguard")
    raw = bytes.fromhex(wanted["response"])
    message = wg.decode_response(raw)
    assert (message.sender, message.receiver) == (wanted["responder_index"], wanted["initiator_index"])
    assert message.ephemeral.hex() == wanted["keys"]["responder_ephemeral_pub"]
    assert wg.encode_response(message) == raw
    assert len(raw) == wg.RESPONSE_SIZE


def test_cookie_reply_vector_both_ways(vectors):
    wanted = vectors("wireguard")
    raw = bytes.fromhex(wanted["cookie"]["cookie_reply"])
    message = wg.decode_cookie_reply(raw)
    assert message.receiver == wanted["initiator_index"]
    assert message.nonce.hex() == wanted["cookie"]["nonce"]
    assert wg.encode_cookie_reply(message) == raw
    assert len(raw) == wg.COOKIE_REPLY_SIZE


@pytest.mark.parametrize(("name", "counter"), [("keepalive_counter0", 0), ("data_counter1", 1)])
def test_transport_vector_both_ways(vectors, name, counter):
    wanted = vectors("wireguard")
    raw = bytes.fromhex(wanted[name])
    header = wg.decode_transport_header(raw)
    assert header == wg.TransportHeader(wanted["responder_index"], counter)
    assert wg.encode_transport_header(header) == raw[: wg.TRANSPORT_HEADER_SIZE]


def test_message_type_demands_exact_lengths():
    for kind, size in ((1, 148), (2, 92), (3, 64)):
        word = kind.to_bytes(4, "little")
        assert wg.message_type(word + bytes(size - 4)) == kind
        assert wg.message_type(word + bytes(size - 5)) == 0
        assert wg.message_type(word + bytes(size - 3)) == 0
    assert wg.message_type(b"\x04\0\0\0" + bytes(28)) == wg.MESSAGE_TRANSPORT
    assert wg.message_type(b"\x04\0\0\0" + bytes(27)) == 0


@pytest.mark.parametrize("word", ["00000000", "05000000", "06000000", "01000001", "01010000", "00000001"])
def test_message_type_unknown_word_is_zero(word):
    assert wg.message_type(bytes.fromhex(word) + bytes(144)) == 0


def test_message_type_of_almost_nothing_is_zero():
    assert wg.message_type(b"") == 0
    assert wg.message_type(b"\x04\0\0") == 0


@pytest.mark.parametrize(
    "decode", [wg.decode_initiation, wg.decode_response, wg.decode_cookie_reply, wg.decode_transport_header]
)
def test_decoders_wrong_type_rejected(decode):
    with pytest.raises(WireError, match="not a WireGuard"):
        decode(bytes(148))
