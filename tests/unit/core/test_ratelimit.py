from __future__ import annotations

from meshd.base.addr import parse_ip
from meshd.core.ratelimit import MAX_SOURCES, SourceLimiter, source_network


def test_limiter_allows_a_burst_of_five_then_twenty_a_second():
    limiter = SourceLimiter()
    assert [limiter.allow(b"a", 0.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert sum(limiter.allow(b"a", step / 1000) for step in range(1, 2001)) in (39, 40, 41)


def test_limiter_counts_sources_apart():
    """One flooder must not use up what others have."""
    limiter = SourceLimiter()
    for _ in range(100):
        limiter.allow(b"flooder", 0.0)
    assert limiter.allow(b"other", 0.0)


def test_limiter_joins_an_ipv6_64_and_keeps_ipv4_apart():
    assert source_network(parse_ip("2001:db8::1").packed) == source_network(parse_ip("2001:db8::2:1").packed)
    assert source_network(parse_ip("2001:db8::1").packed) != source_network(parse_ip("2001:db8:0:1::1").packed)
    assert source_network(parse_ip("192.0.2.1").packed) != source_network(parse_ip("192.0.2.2").packed)


def test_limiter_memory_is_bounded_and_idle_sources_are_forgotten():
    limiter = SourceLimiter()
    for number in range(2 * MAX_SOURCES):
        limiter.allow(number.to_bytes(4, "big"), 0.0)
    assert len(limiter) <= MAX_SOURCES + 1
    limiter.allow(b"late", 2.0)
    assert len(limiter) == 1
    assert all(limiter.allow(b"late", 2.0) for _ in range(4))
