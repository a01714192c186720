from __future__ import annotations

import random

from meshd.base.addr import AddrPort
from meshd.base.keys import NodePublic
from meshd.core.cookie import CookieJar
from meshd.core.handshakequeue import MAX_SUSPECTS, MAX_WAITING, Admitted, Challenge, HandshakeQueue
from meshd.wire.wireguard import decode_cookie_reply

OWN = random.Random(1).randbytes(32)
SOURCE = AddrPort.parse("192.0.2.1:5")


def _queue():
    return HandshakeQueue(OWN, random.Random(2).randbytes)


def _initiation(jar=None, now=0.0):
    return (jar or CookieJar(OWN)).sign(b"\1\0\0\0" + bytes(144), now)


def test_offer_only_valid_mac1_takes_a_place():
    queue = _queue()
    assert queue.offer(_initiation(), SOURCE)
    assert not queue.offer(CookieJar(bytes(32)).sign(b"\1\0\0\0" + bytes(144), 0.0), SOURCE)
    assert not queue.offer(b"\1\0\0\0", SOURCE)
    assert not queue.offer(b"\3\0\0\0" + bytes(60), SOURCE)
    assert len(queue) == 1
    assert queue.drops == {"mac1": 1, "not_a_handshake": 2}


def test_queue_is_bounded():
    queue = _queue()
    assert sum(queue.offer(_initiation(), SOURCE) for _ in range(MAX_WAITING + 10)) == MAX_WAITING
    assert queue.drops == {"queue_full": 10}


def test_take_below_the_load_limit_admits_everything():
    queue = _queue()
    for _ in range(127):
        queue.offer(_initiation(), SOURCE)
    taken = [queue.take(0.0) for _ in range(127)]
    assert all(isinstance(item, Admitted) for item in taken)
    assert queue.take(0.0) is None


def test_take_under_load_asks_for_a_cookie_and_admits_who_returns_it():
    queue, jar = _queue(), CookieJar(OWN)
    queue.offer(_initiation(jar), SOURCE)
    for _ in range(127):
        queue.offer(_initiation(), SOURCE)
    challenge = queue.take(0.0)
    assert isinstance(challenge, Challenge)
    assert challenge.source == SOURCE
    assert len(challenge.data) == 64
    assert jar.accept_reply(decode_cookie_reply(challenge.data), 0.0)
    while isinstance(queue.take(0.1), Challenge):
        pass
    queue.offer(_initiation(jar, 0.2), SOURCE)
    assert isinstance(queue.take(0.2), Admitted)
    queue.offer(_initiation(jar, 0.3), AddrPort.parse("192.0.2.1:6"))
    assert isinstance(queue.take(0.3), Challenge)
    queue.offer(_initiation(), SOURCE)
    assert isinstance(queue.take(1.2), Admitted)


def test_take_under_load_limits_the_rate_of_each_source():
    queue = _queue()
    relayed = NodePublic(random.Random(3).randbytes(32))
    jars = {SOURCE: CookieJar(OWN), relayed: CookieJar(OWN)}
    for source, jar in jars.items():
        queue.offer(_initiation(jar), source)
    for _ in range(126):
        queue.offer(_initiation(), SOURCE)
    for source, jar in jars.items():
        challenge = queue.take(0.0)
        assert challenge.source == source
        jar.accept_reply(decode_cookie_reply(challenge.data), 0.0)
    while queue.take(0.0):
        pass
    for source, jar in jars.items():
        for _ in range(20):
            queue.offer(_initiation(jar, 0.0), source)
    admitted = []
    while (item := queue.take(0.0)) is not None:
        admitted.append(item.source)
    assert admitted == [SOURCE] * 5 + [relayed] * 5
    assert queue.drops["rate"] == 30


def test_source_whose_messages_fail_has_to_show_a_cookie_and_no_other_has():
    queue, jar, other = _queue(), CookieJar(OWN), AddrPort.parse("192.0.2.2:5")
    for _ in range(6):
        queue.offer(_initiation(), SOURCE)
        assert isinstance(queue.take(0.0), Admitted)
        queue.failed(SOURCE, 0.0)
    queue.offer(_initiation(jar), SOURCE)
    challenge = queue.take(0.1)
    assert isinstance(challenge, Challenge)
    queue.offer(_initiation(), other)
    assert isinstance(queue.take(0.1), Admitted)
    assert jar.accept_reply(decode_cookie_reply(challenge.data), 0.2)
    queue.offer(_initiation(jar, 0.2), SOURCE)
    assert isinstance(queue.take(0.2), Admitted)


def test_source_that_stops_failing_is_trusted_again():
    queue = _queue()
    for _ in range(10):
        queue.failed(SOURCE, 0.0)
    queue.offer(_initiation(), SOURCE)
    assert queue.take(3.0 + 0.1) == Admitted(1, _initiation(), SOURCE)


def test_failing_sources_are_remembered_in_bounded_number():
    queue = _queue()
    sources = [AddrPort.parse(f"10.0.{n >> 8}.{n & 255}:5") for n in range(2000)]
    for source in sources:
        for _ in range(6):
            queue.failed(source, 0.0)
    waiting = 0
    for source in sources:
        queue.offer(_initiation(), source)
        waiting += isinstance(queue.take(0.0), Challenge)
    assert waiting == MAX_SUSPECTS
