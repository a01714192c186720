"""Which of two addresses is better (dataplane rules for choosing a path)."""

from __future__ import annotations

import pytest

from meshd.base.addr import AddrPort
from meshd.core.candidate import CANDIDATE_MEMORY_S, PONG_HISTORY, Candidate, PongReceived, Quality, better, usable


def quality(text, ms, mtu=1280):
    return Quality(AddrPort.parse(text), ms / 1000, mtu)


PUBLIC, OTHER = "192.0.2.1:1", "198.51.100.1:1"


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (None, None, False),
        (quality(PUBLIC, 1), None, True),
        (None, quality(PUBLIC, 1), False),
        (quality(PUBLIC, 10), quality(OTHER, 20), True),
        (quality(PUBLIC, 20), quality(OTHER, 10), False),
        (quality(PUBLIC, 10), quality(OTHER, 10), False),
        (quality(PUBLIC, 99), quality(OTHER, 100), False),  # one point: not worth a change
        (quality(PUBLIC, 98), quality(OTHER, 100), True),
        (quality("127.0.0.1:1", 10), quality("192.168.0.1:1", 10), True),
        (quality("169.254.1.1:1", 10), quality("10.0.0.1:1", 10), True),
        (quality("10.0.0.1:1", 10), quality(PUBLIC, 10), True),
        (quality("172.16.0.1:1", 10), quality(PUBLIC, 10), True),
        (quality("172.32.0.1:1", 10), quality(PUBLIC, 10), False),
        (quality("[2001:db8::1]:1", 10), quality(PUBLIC, 10), True),
        (quality("[fd00::1]:1", 10), quality("10.0.0.1:1", 10), True),
        (quality("10.0.0.1:1", 10), quality(PUBLIC, 5), False),  # 20 points against 50
        (quality("10.0.0.1:1", 10), quality(PUBLIC, 9), True),  # 20 points against 10
        (quality(PUBLIC, 0), quality(OTHER, 0), False),
        (quality(PUBLIC, 10, 1400), quality(PUBLIC, 5, 1280), True),
        (quality(PUBLIC, 5, 1280), quality(PUBLIC, 10, 1280), False),
    ],
)
def test_better_follows_the_points(a, b, expected):
    assert better(a, b) is expected


def test_better_never_true_both_ways():
    entries = [quality(t, ms) for t in (PUBLIC, OTHER, "10.0.0.1:1", "[fd00::1]:1") for ms in (1, 2, 50, 51)]
    assert not [(a, b) for a in entries for b in entries if better(a, b) and better(b, a)]


def test_candidate_from_netmap_is_kept():
    assert not Candidate(in_netmap=True).deletable(10**6)


def test_candidate_from_ping_lives_45_s():
    candidate = Candidate()
    candidate.last_got_ping = 100.0
    assert not candidate.deletable(100.0 + CANDIDATE_MEMORY_S)
    assert candidate.deletable(100.1 + CANDIDATE_MEMORY_S)


def test_candidate_from_call_is_kept():
    candidate = Candidate()
    candidate.call_me_maybe_at = 1.0
    assert not candidate.deletable(10**6)


def test_candidate_keeps_64_pongs():
    candidate = Candidate()
    for n in range(100):
        candidate.remember(PongReceived(0.001, float(n), None, None))
    assert len(candidate.pongs) == PONG_HISTORY == 64
    assert candidate.pongs[0].at == 36


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1:1", True), ("192.0.2.1:0", False), ("0.0.0.0:1", False), ("224.0.0.1:1", False),
        ("100.64.0.1:1", False), ("[fe80::1]:1", False), ("169.254.0.1:1", True), ("127.0.0.1:1", True),
    ],
)  # fmt: skip
def test_usable_candidate_addresses(text, expected):
    assert usable(AddrPort.parse(text)) is expected
