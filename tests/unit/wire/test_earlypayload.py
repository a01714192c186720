from __future__ import annotations

import pytest

from meshd.base.errors import WireError
from meshd.base.keys import ChallengePublic
from meshd.wire.earlypayload import EarlyPayloadReader, encode_early_payload

CHALLENGE = ChallengePublic(bytes.fromhex("07a37cbc142093c8b755dc1b10e86cb426374ad16aa853ed0bdfc0b2b86d1c7c"))
H2_FRAME = bytes.fromhex("000000040000000000")


def test_early_payload_vector_both_ways(vectors):
    wanted = vectors("frames")["early_payload"]
    assert encode_early_payload(CHALLENGE).hex() == wanted
    assert EarlyPayloadReader().feed(bytes.fromhex(wanted)) == (CHALLENGE, b"")


@pytest.mark.parametrize("index", range(3))
def test_early_payload_of_noise_vectors_decoded(vectors, index):
    plain = bytes.fromhex(vectors("noise_ik")["handshakes"][index]["early_payload_plaintext"])
    found = EarlyPayloadReader().feed(plain + H2_FRAME)
    assert found is not None
    challenge, rest = found
    assert challenge == ChallengePublic(b"\xab" * 32)
    assert rest == H2_FRAME


def test_early_payload_bytewise_is_put_together():
    reader = EarlyPayloadReader()
    stream = encode_early_payload(CHALLENGE)
    assert [reader.feed(bytes([byte])) for byte in stream[:-1]] == [None] * (len(stream) - 1)
    assert reader.feed(stream[-1:] + b"rest") == (CHALLENGE, b"rest")


def test_early_payload_absent_hands_everything_to_http2():
    assert EarlyPayloadReader().feed(H2_FRAME) == (None, H2_FRAME)
    reader = EarlyPayloadReader()
    assert reader.feed(b"\xff\xff") is None
    assert reader.feed(b"\xffTX") == (None, b"\xff\xff\xffTX"), "decided at the first wrong byte"


def test_early_payload_empty_object_has_no_challenge():
    assert EarlyPayloadReader().feed(b"\xff\xff\xffTS\x00\x00\x00\x02{}h2") == (None, b"h2")


@pytest.mark.parametrize(
    "tail",
    [
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x02[]",
        b"\x00\x00\x00\x01{",
        b'\x00\x00\x00\x1a{"nodeKeyChallenge":"nope"}',
        b"\x00\x00\x10\x00" + b"[" * 4096,
    ],
)
def test_early_payload_malformed_rejected(tail):
    with pytest.raises(WireError, match="early payload"):
        EarlyPayloadReader().feed(b"\xff\xff\xffTS" + tail)
