"""What the kernel tells about changed packet filters."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.base.errors import WireError
from meshd.host.linux.rulesetmonitor import concerns_us
from meshd.wire.nfevents import RulesetEvent, events

INET, IP = 1, 2
NEWCHAIN, NEWRULE, DELTABLE, DELCHAIN, DELRULE = 3, 6, 2, 5, 8


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def message(kind: int, family: int, *attributes: bytes, subsystem: int = 10) -> bytes:
    body = bytes([family, 0, 0, 0]) + b"".join(attributes)
    return struct.pack("=IHHII", 16 + len(body), subsystem << 8 | kind, 0, 0, 0) + body


@pytest.mark.parametrize(
    ("data", "event"),
    [
        (message(DELTABLE, INET, attribute(1, b"meshd-x\0")), RulesetEvent("inet", "meshd-x", "", True)),
        (message(DELCHAIN, IP, attribute(1, b"nat\0"), attribute(3, b"c\0")), RulesetEvent("ip", "nat", "c", True)),
        (message(DELRULE, IP, attribute(1, b"nat\0"), attribute(2, b"c\0")), RulesetEvent("ip", "nat", "c", True)),
        (
            message(NEWCHAIN, INET, attribute(1, b"fw\0"), attribute(3, b"c\0"), attribute(4, b"")),
            RulesetEvent("inet", "fw", "c", False),
        ),
        (message(NEWCHAIN, INET, attribute(1, b"fw\0"), attribute(3, b"c\0")), None),
        (message(NEWRULE, INET, attribute(1, b"fw\0"), attribute(2, b"c\0")), None),
        (message(DELTABLE, INET, attribute(1, b"fw\0"), subsystem=1), None),
        (message(DELTABLE, 7, attribute(1, b"bridge\0")), None),
    ],
)
def test_nfevents_are_what_goes_and_the_chains_that_come(data: bytes, event: RulesetEvent | None) -> None:
    assert list(events(data)) == ([event] if event is not None else [])


@given(st.binary(max_size=200))
def test_nfevents_hostile_bytes_are_refused_or_read(data: bytes) -> None:
    try:
        found = list(events(data))
    except WireError:
        return
    assert all(isinstance(event, RulesetEvent) for event in found)


@pytest.mark.parametrize(
    ("event", "concerned"),
    [
        (RulesetEvent("inet", "meshd-mesh0", "", True), True),
        (RulesetEvent("inet", "firewalld", "filter_INPUT", True), False),
        (RulesetEvent("inet", "firewalld", "filter_FORWARD", False), True),
        (RulesetEvent("inet", "meshd-mesh0", "forward", False), False),
        (RulesetEvent("ip", "filter", "INPUT", True), True),
        (RulesetEvent("ip", "filter", "DOCKER", True), False),
        (RulesetEvent("ip", "filter", "", True), True),
        (RulesetEvent("ip6", "nat", "meshd-post-mesh0", True), True),
        (RulesetEvent("inet", "filter", "", True), False),
    ],
)
def test_ruleset_monitor_looks_only_when_our_rules_may_be_gone(event: RulesetEvent, concerned: bool) -> None:
    """RT-12."""
    assert concerns_us(event) is concerned
