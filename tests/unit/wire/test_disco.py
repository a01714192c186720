from __future__ import annotations

import pytest

from meshd.base import crypto
from meshd.base.addr import AddrPort
from meshd.base.errors import WireError
from meshd.wire import disco

TXID = bytes(range(1, 13))
NODE_KEY = bytes.fromhex("000102" + "00" * 27 + "1e1f")
MESSAGES = {
    "ping": disco.Ping(TXID),
    "ping_nodekey": disco.Ping(TXID, NODE_KEY),
    "ping_nodekey_pad3": disco.Ping(TXID, NODE_KEY, 3),
    "pong_v4": disco.Pong(TXID, AddrPort.parse("2.3.4.5:1234")),
    "pong_v6": disco.Pong(TXID, AddrPort.parse("[fed0::12]:6666")),
    "call_me_maybe_empty": disco.CallMeMaybe(),
    "call_me_maybe": disco.CallMeMaybe((AddrPort.parse("1.2.3.4:567"), AddrPort.parse("[2001::3456]:789"))),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_message_vector_both_ways(vectors, name):
    plaintext = bytes.fromhex(vectors("disco")["messages"][name]["plaintext"])
    assert disco.decode_message(plaintext) == MESSAGES[name]
    assert disco.encode_message(MESSAGES[name]) == plaintext


def test_packet_vectors_sealed_and_opened(vectors):
    wanted = vectors("disco")
    alice, bob = bytes.fromhex(wanted["alice_priv"]), bytes.fromhex(wanted["bob_priv"])
    alice_pub, bob_pub = bytes.fromhex(wanted["alice_pub"]), bytes.fromhex(wanted["bob_pub"])
    shared = crypto.box_shared(alice, bob_pub)
    assert shared.hex() == wanted["precomputed_shared"]
    assert crypto.box_shared(bob, alice_pub) == shared
    for message in wanted["messages"].values():
        packet, nonce = bytes.fromhex(message["packet"]), bytes.fromhex(message["nonce"])
        plaintext = bytes.fromhex(message["plaintext"])
        assert disco.seal(alice_pub, shared, nonce, plaintext) == packet
        assert disco.is_disco(packet)
        sender, seen_nonce, boxed = disco.split(packet)
        assert (sender, seen_nonce) == (alice_pub, nonce)
        assert crypto.box_open(shared, seen_nonce, boxed) == plaintext
        assert disco.encode_message(disco.decode_message(plaintext)) == plaintext


def test_unspoken_types_are_kept_opaque(vectors):
    plaintext = bytes.fromhex(vectors("disco")["messages"]["bind_challenge"]["plaintext"])
    assert disco.decode_message(plaintext) == disco.Unknown(5, 0, plaintext[2:])


def test_call_me_maybe_of_odd_length_or_other_version_is_empty():
    whole = disco.encode_message(MESSAGES["call_me_maybe"])
    assert disco.decode_message(whole[:-1]) == disco.CallMeMaybe()
    assert disco.decode_message(whole[:1] + b"\x01" + whole[2:]) == disco.CallMeMaybe()


@pytest.mark.parametrize("question", [False, True])
def test_takes_bundles_both_ways_and_only_as_we_write_it(question):
    plaintext = disco.encode_message(disco.TakesBundles(question))
    assert plaintext == b"\x6d\0meshd" + bytes([question])
    assert disco.decode_message(plaintext) == disco.TakesBundles(question)
    for other in (plaintext[:-1], plaintext[:-1] + b"\x02", b"\x6d\x01" + plaintext[2:], b"\x6d\0other\0", b"\x6d\0"):
        assert disco.decode_message(other) == disco.Unknown(other[0], other[1], other[2:])


def test_trailing_bytes_of_a_pong_are_ignored():
    plaintext = disco.encode_message(MESSAGES["pong_v4"])
    assert disco.decode_message(plaintext + b"later") == MESSAGES["pong_v4"]


@pytest.mark.parametrize("plaintext", [b"", b"\x01", b"\x01\x00" + bytes(11), b"\x02\x00" + bytes(29)])
def test_message_cut_short_rejected(plaintext):
    with pytest.raises(WireError):
        disco.decode_message(plaintext)


def test_padded_ping_without_node_key_refused():
    with pytest.raises(ValueError, match="node key"):
        disco.encode_message(disco.Ping(TXID, None, 100))


@pytest.mark.parametrize("packet", [b"", disco.MAGIC, disco.MAGIC + bytes(71), b"\x01" + bytes(147)])
def test_split_other_datagrams_rejected(packet):
    assert not disco.is_disco(packet)
    with pytest.raises(WireError):
        disco.split(packet)
