"""The handshake against byte vectors, and its refusals."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from meshd.base.crypto import aead_seal, clamp
from meshd.core.cookie import CookieJar
from meshd.core.handshake import (
    Counterpart,
    Identity,
    accept_initiation,
    accept_response,
    create_initiation,
    create_response,
    open_initiation,
)
from meshd.wire.wireguard import decode_initiation, decode_response, encode_initiation, encode_response

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "wireguard.json").read_text())
KEYS = {name: bytes.fromhex(text) for name, text in VECTORS["keys"].items()}
STATES = {name: bytes.fromhex(text) for name, text in VECTORS["states"].items()}
INITIATOR = Identity.of(KEYS["initiator_static_priv"])
RESPONDER = Identity.of(KEYS["responder_static_priv"])
TO_RESPONDER = Counterpart.between(INITIATOR, RESPONDER.public)
TO_INITIATOR = Counterpart.between(RESPONDER, INITIATOR.public)
STAMP = bytes.fromhex(VECTORS["tai64n"]["wire"])


def _initiation(timestamp=STAMP):
    return create_initiation(
        INITIATOR,
        TO_RESPONDER,
        local_index=VECTORS["initiator_index"],
        timestamp=timestamp,
        ephemeral_private=KEYS["initiator_ephemeral_priv"],
    )


def _response(message):
    opened = open_initiation(RESPONDER, message)
    accepted = accept_initiation(TO_INITIATOR, opened)
    return create_response(
        TO_INITIATOR,
        accepted,
        local_index=VECTORS["responder_index"],
        ephemeral_private=KEYS["responder_ephemeral_priv"],
    )


def test_create_initiation_matches_vector():
    message, pending = _initiation()
    signed = CookieJar(RESPONDER.public).sign(encode_initiation(message), 0.0)
    assert signed == bytes.fromhex(VECTORS["initiation"])
    assert pending.chaining_key == STATES["ck_after_ss"]
    assert pending.hash == STATES["h_after_enc_timestamp"]


def test_open_initiation_vector_names_the_sender():
    message = decode_initiation(bytes.fromhex(VECTORS["initiation"]))
    opened = open_initiation(RESPONDER, message)
    assert opened.sender_public == INITIATOR.public
    assert opened.hash == STATES["h_after_enc_static"]
    accepted = accept_initiation(TO_INITIATOR, opened)
    assert accepted.timestamp == STAMP
    assert accepted.remote_index == VECTORS["initiator_index"]
    assert accepted.hash == STATES["h_after_enc_timestamp"]


def test_create_response_matches_vector_and_both_sides_derive_the_keys():
    initiation, pending = _initiation()
    response, theirs = _response(initiation)
    signed = CookieJar(INITIATOR.public).sign(encode_response(response), 0.0)
    assert signed == bytes.fromhex(VECTORS["response"])
    ours = accept_response(INITIATOR, TO_RESPONDER, pending, decode_response(signed))
    assert ours.send_key == theirs.receive_key == bytes.fromhex(VECTORS["transport_key_initiator_send"])
    assert ours.receive_key == theirs.send_key == bytes.fromhex(VECTORS["transport_key_responder_send"])
    assert (ours.local_index, ours.remote_index) == (theirs.remote_index, theirs.local_index)
    assert ours.initiator
    assert not theirs.initiator


def test_transport_vectors_open_with_the_derived_keys():
    initiation, _ = _initiation()
    _, theirs = _response(initiation)
    for name, counter, plain in (
        ("keepalive_counter0", 0, b""),
        ("data_counter1", 1, bytes.fromhex(VECTORS["ipv4_udp_packet"])),
    ):
        datagram = bytes.fromhex(VECTORS[name])
        padded = plain.ljust(-(-len(plain) // 16) * 16, b"\0")
        nonce = bytes(4) + counter.to_bytes(8, "little")
        assert aead_seal(theirs.receive_key, nonce, padded) == datagram[16:]


@pytest.mark.parametrize("position", range(8, 116, 7))
def test_initiation_one_bit_wrong_is_refused(position):
    datagram = bytearray.fromhex(VECTORS["initiation"])
    datagram[position] ^= 1
    opened = open_initiation(RESPONDER, decode_initiation(bytes(datagram)))
    assert opened is None or accept_initiation(TO_INITIATOR, opened) is None


@pytest.mark.parametrize("position", range(12, 60, 5))
def test_response_one_bit_wrong_is_refused(position):
    _, pending = _initiation()
    datagram = bytearray.fromhex(VECTORS["response"])
    datagram[position] ^= 1
    assert accept_response(INITIATOR, TO_RESPONDER, pending, decode_response(bytes(datagram))) is None


def test_initiation_from_another_static_key_does_not_authenticate_as_the_peer():
    thief = Identity.of(clamp(os.urandom(32)))
    message, _ = create_initiation(
        replace(thief, public=INITIATOR.public),
        Counterpart.between(thief, RESPONDER.public),
        local_index=1,
        timestamp=STAMP,
        ephemeral_private=clamp(os.urandom(32)),
    )
    opened = open_initiation(RESPONDER, message)
    assert opened.sender_public == INITIATOR.public
    assert accept_initiation(TO_INITIATOR, opened) is None


def test_low_order_points_are_refused():
    with pytest.raises(ValueError, match="low-order"):
        Counterpart.between(INITIATOR, bytes(32))
    message = decode_initiation(bytes.fromhex(VECTORS["initiation"]))
    assert open_initiation(RESPONDER, replace(message, ephemeral=bytes(32))) is None
    _, pending = _initiation()
    response = decode_response(bytes.fromhex(VECTORS["response"]))
    assert accept_response(INITIATOR, TO_RESPONDER, pending, replace(response, ephemeral=bytes(32))) is None


def test_psk_on_one_side_only_does_not_authenticate():
    initiation, pending = _initiation()
    response, _ = _response(initiation)
    with_psk = Counterpart.between(INITIATOR, RESPONDER.public, psk=b"\1" * 32)
    assert accept_response(INITIATOR, with_psk, pending, response) is None
    assert accept_response(INITIATOR, TO_RESPONDER, pending, response) is not None


def test_secrets_do_not_appear_in_repr():
    """No key may reach a log line."""
    initiation, pending = _initiation()
    _, keys = _response(initiation)
    shown = repr((INITIATOR, TO_RESPONDER, pending, keys, open_initiation(RESPONDER, initiation)))
    secrets = (INITIATOR.private, TO_RESPONDER.static_shared, pending.ephemeral_private, keys.send_key)
    assert not any(repr(secret) in shown or secret.hex() in shown for secret in secrets)
