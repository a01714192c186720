"""Via addresses: how long flows are remembered, and how many."""

from __future__ import annotations

import pytest

from meshd._fast.via import Via
from tests.unit.fast.viapackets import (
    ACK,
    FIN,
    ROUTES,
    RST,
    SYN,
    address,
    echo,
    enter,
    leave,
    tcp,
    told,
    translator,
    udp,
    v4,
    v6,
)


@pytest.mark.parametrize(
    ("there", "back", "lives_s", "gone_s"),
    [
        (v6(17, udp(4000, 53)), v4(17, udp(53, 4000)), 299, 303),
        (v6(58, echo(128, 4000)), v4(1, echo(0, 4000)), 59, 63),
        (v6(6, tcp(4000, 53, SYN)), v4(6, tcp(53, 4000, SYN | ACK)), 239, 243),
    ],
)
def test_via_flows_are_forgotten_after_their_idle_time(there: bytes, back: bytes, lives_s: int, gone_s: int) -> None:
    """RT-08: RFC 4787, 5508, 5382."""
    for after, result in ((lives_s, "whole"), (gone_s, "plain")):
        via = translator()
        enter(via, there, now=1000.0)
        assert told(via, back, now=1000.0 + after) == result
    via = translator()
    enter(via, there, now=1000.0)
    enter(via, there, now=1000.0 + lives_s)
    assert told(via, back, now=1000.0 + 2 * lives_s - 2) == "whole"
    assert told(via, back, now=1000.0 + 3 * lives_s - 5) == "whole", "answers are use, too"


@pytest.mark.parametrize(
    ("peer", "host", "lives_s"),
    [(ACK, ACK, 7400), (FIN | ACK, ACK, 7400), (FIN | ACK, FIN | ACK, 235), (RST, ACK, 235)],
)
def test_via_connection_lives_for_hours_until_it_is_closed(peer: int, host: int, lives_s: int) -> None:
    """RT-08: RFC 5382 REQ-5."""
    via = translator()
    enter(via, v6(6, tcp(4000, 80, SYN)))
    leave(via, v4(6, tcp(80, 4000, SYN | ACK)))
    enter(via, v6(6, tcp(4000, 80, peer)))
    leave(via, v4(6, tcp(80, 4000, host)))
    assert told(via, v4(6, tcp(80, 4000, host)), now=lives_s) == "whole"
    via = translator()
    enter(via, v6(6, tcp(4000, 80, SYN)))
    leave(via, v4(6, tcp(80, 4000, RST)))
    enter(via, v6(6, tcp(4000, 80, SYN)), now=200)
    leave(via, v4(6, tcp(80, 4000, SYN | ACK)), now=201)
    assert told(via, v4(6, tcp(80, 4000, ACK)), now=7000) == "whole", "the ports were used anew"


def test_via_full_table_forgets_the_flooding_peers_own_flows_first() -> None:
    """RT-08: one peer's flood leaves those of others alone, and its newest flows are there."""
    via = translator()
    for port in range(64):
        enter(via, v6(17, udp(port, 53)), peer=1)
    hosts = [bytes([10, 1, 2, number]) for number in range(1, 255)]
    wide = Via(ROUTES, flows=via.flows)
    for host in hosts:
        for port in range(0, 60000, 200):
            wide.inbound(v6(17, udp(port, 53), dst=address(8, host)), b"\x64\x40\0\x09", peer=2, now=1.0)
    kept = sum(told(via, v4(17, udp(53, port)), now=2.0) == "whole" for port in range(64))
    assert kept >= 60
    newest = v4(17, udp(53, 59800), src=hosts[-1], dst=b"\x64\x40\0\x09")
    assert told(wide, newest, now=2.0) == "whole"
    assert enter(via, v6(17, udp(9, 53)), peer=1, now=2.0)
