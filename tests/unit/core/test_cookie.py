from __future__ import annotations

import json
from pathlib import Path

from meshd.core.cookie import CookieChecker, CookieJar, LoadGauge
from meshd.wire.wireguard import CookieReply, encode_cookie_reply

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "wireguard.json").read_text())
RESPONDER_PUBLIC = bytes.fromhex(VECTORS["keys"]["responder_static_pub"])
INITIATION = bytes.fromhex(VECTORS["initiation"])
COOKIE = VECTORS["cookie"]
SOURCE = bytes.fromhex(COOKIE["src_bytes_ip4_port_be"])


def _scripted(*outputs):
    queue = list(outputs)

    def random(count):
        value = queue.pop(0)
        assert len(value) == count
        return value

    return random


def _checker():
    return CookieChecker(
        RESPONDER_PUBLIC, _scripted(bytes.fromhex(COOKIE["checker_secret"]), bytes.fromhex(COOKIE["nonce"]))
    )


def test_mac1_vector_is_accepted_and_a_changed_message_is_not():
    checker = _checker()
    assert checker.check_mac1(INITIATION)
    assert not checker.check_mac1(INITIATION[:20] + b"\xff" + INITIATION[21:])
    assert not CookieChecker(bytes(32), _scripted()).check_mac1(INITIATION)


def test_cookie_reply_matches_vector():
    reply = _checker().create_reply(INITIATION, VECTORS["initiator_index"], SOURCE, now=5.0)
    assert encode_cookie_reply(reply) == bytes.fromhex(COOKIE["cookie_reply"])


def test_cookie_makes_the_next_mac2_valid_for_its_source_only():
    checker, jar = _checker(), CookieJar(RESPONDER_PUBLIC)
    first = jar.sign(INITIATION, 5.0)
    assert first == INITIATION
    assert not checker.check_mac2(first, SOURCE, 5.0)
    assert jar.accept_reply(checker.create_reply(first, VECTORS["initiator_index"], SOURCE, 5.0), 5.1)
    second = jar.sign(INITIATION, 5.2)
    assert second[-16:].hex() == COOKIE["mac2_of_same_initiation"]
    assert checker.check_mac2(second, SOURCE, 5.3)
    other_port = SOURCE[:-1] + bytes([SOURCE[-1] ^ 1])
    assert not checker.check_mac2(second, other_port, 5.3)


def test_cookie_secret_dies_after_120_seconds():
    checker, jar = _checker(), CookieJar(RESPONDER_PUBLIC)
    jar.accept_reply(checker.create_reply(jar.sign(INITIATION, 0.0), 1, SOURCE, 0.0), 0.0)
    signed = jar.sign(INITIATION, 119.0)
    assert checker.check_mac2(signed, SOURCE, 119.0)
    assert not checker.check_mac2(signed, SOURCE, 120.5)
    assert jar.sign(INITIATION, 120.5)[-16:] == bytes(16)


def test_cookie_reply_not_for_the_last_message_is_refused():
    checker, jar = _checker(), CookieJar(RESPONDER_PUBLIC)
    reply = checker.create_reply(INITIATION, 1, SOURCE, 0.0)
    assert not jar.accept_reply(reply, 0.0)
    jar.sign(INITIATION, 0.0)
    assert not jar.accept_reply(CookieReply(reply.receiver, reply.nonce, bytes(32)), 0.0)
    assert jar.accept_reply(reply, 0.0)
    assert not jar.accept_reply(reply, 0.0), "a replayed reply must not refresh the cookie"


def test_load_gauge_is_about_depth_now_not_about_a_total():
    """Another implementation answered every handshake after the hundredth with a cookie."""
    gauge = LoadGauge()
    assert not any(gauge.under_load(1, now * 0.01) for now in range(1000))
    assert not gauge.under_load(127, 20.0)
    assert gauge.under_load(128, 20.0)
    assert gauge.under_load(0, 20.9)
    assert not gauge.under_load(0, 21.0)
