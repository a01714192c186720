"""Via addresses: ICMP errors both ways, with what they quote."""

from __future__ import annotations

import struct

import pytest

from tests.unit.fast.viapackets import (
    ACK,
    ELSEWHERE,
    HOST,
    OWN4,
    OWN6,
    PEER4,
    PEER6,
    ROUTER,
    address,
    check_in,
    check_out,
    echo,
    enter,
    good,
    icmp,
    leave,
    reference,
    tcp,
    told,
    translator,
    udp,
    v4,
    v6,
)

QUOTED = {
    6: (tcp(4000, 80, ACK, b"x" * 30), tcp(80, 4000, ACK, b"x" * 30)),
    17: (udp(4000, 80, b"x" * 30), udp(80, 4000, b"x" * 30)),
    58: (echo(128, 4000), echo(129, 4000)),
}


@pytest.mark.parametrize("proto", QUOTED)
@pytest.mark.parametrize("site", [7, 8])
def test_via_error_of_the_host_reaches_the_peer_about_its_own_packet(proto: int, site: int) -> None:
    """RT-08: what is quoted is translated, too, with its checksum and the port it had."""
    via, slow = translator(), reference()
    check_in(via, slow, v6(proto, QUOTED[proto][0]))
    for reporter, source in ((HOST, address(site)), (ROUTER, address(site, ROUTER)), (ELSEWHERE, OWN6)):
        sent = check_in(via, slow, v6(proto, QUOTED[proto][0], dst=address(site)))[1]
        result, made = check_out(via, slow, v4(1, icmp(3, 0, sent, code=1), src=reporter))
        assert result == "whole"
        assert good(made[0])
        assert made[0][8:40] == source + PEER6
        assert made[0][48:] == v6(proto, QUOTED[proto][0], dst=address(site))
        assert check_out(via, slow, v4(1, icmp(11, 0, sent[:28]), src=reporter))[1][0][48:] == made[0][48:96]


@pytest.mark.parametrize("proto", QUOTED)
@pytest.mark.parametrize("site", [7, 8])
def test_via_error_of_the_peer_reaches_the_host_about_its_own_packet(proto: int, site: int) -> None:
    """RT-08."""
    via, slow = translator(), reference()
    check_in(via, slow, v6(proto, QUOTED[proto][0]))
    sent = check_in(via, slow, v6(proto, QUOTED[proto][0], dst=address(site)))[1]
    body = bytearray(QUOTED[proto][1])
    port_at = 4 if proto == 58 else 2
    body[port_at : port_at + 2] = sent[24:26] if proto == 58 else sent[20:22]
    if proto == 58:
        body[0] = 0
    answer = v4(1 if proto == 58 else proto, bytes(body), ident=0)
    back = leave(via, answer)
    result, made = check_in(via, slow, v6(58, icmp(1, 0, back, code=4), dst=address(site)))
    assert result == "done"
    assert good(made)
    assert made[12:20] == PEER4 + HOST
    assert made[20:22] == bytes((3, 3))
    assert made[28:] == answer
    result, made = check_in(via, slow, v6(58, icmp(3, 0, back[:48]), dst=address(site)))
    assert made[28:] == answer[:28]


@pytest.mark.parametrize(
    ("kind", "code", "rest", "wanted"),
    [
        *((3, code, 0, (1, 0, 0)) for code in (0, 1, 5, 6, 7, 8, 11, 12)),
        *((3, code, 0, (1, 1, 0)) for code in (9, 10, 13, 15)),
        (3, 2, 0, (4, 1, 6)),
        (3, 3, 0, (1, 4, 0)),
        (3, 4, 1260, (2, 0, 1280)),
        (3, 4, 1400, (2, 0, 1280)),  # more than the tunnel has is no use
        (3, 4, 500, (2, 0, 1280)),  # less is none over IPv6
        (3, 4, 0, (2, 0, 1280)),
        (3, 14, 0, None),
        (3, 16, 0, None),
        (11, 0, 0, (3, 0, 0)),
        (11, 1, 0, (3, 1, 0)),
        (11, 2, 0, None),
        (12, 0, 8 << 24, (4, 0, 7)),
        (12, 2, 17 << 24, (4, 0, 24)),
        (12, 0, 5 << 24, None),
        (12, 1, 0, None),
    ],
)
def test_via_errors_of_the_host_by_type(kind: int, code: int, rest: int, wanted: tuple[int, int, int] | None) -> None:
    """RFC 7915 4.2."""
    via, slow = translator(), reference()
    sent = check_in(via, slow, v6(17, udp(4000, 53)))[1]
    result, made = check_out(via, slow, v4(1, icmp(kind, rest, sent, code)))
    assert (result, [struct.unpack_from("!BBxxI", packet, 40) for packet in made]) == (
        ("whole", [wanted]) if wanted else ("refused", [])
    )


@pytest.mark.parametrize(
    ("kind", "code", "rest", "wanted"),
    [
        *((1, code, 0, (3, 1, 0)) for code in (0, 2, 3)),
        (1, 1, 0, (3, 10, 0)),
        (1, 4, 0, (3, 3, 0)),
        (1, 5, 0, None),
        (2, 0, 1280, (3, 4, 1260)),
        (2, 0, 0xFFFFFFFF, (3, 4, 1260)),
        (2, 0, 0, (3, 4, 68)),
        (3, 0, 0, (11, 0, 0)),
        (3, 1, 0, (11, 1, 0)),
        (3, 2, 0, None),
        (4, 0, 7, (12, 0, 8 << 24)),
        (4, 0, 30, (12, 0, 16 << 24)),
        (4, 0, 2, None),
        (4, 0, 0x100, None),
        (4, 1, 6, (3, 2, 0)),
        (4, 2, 0, None),
    ],
)
def test_via_errors_of_the_peer_by_type(kind: int, code: int, rest: int, wanted: tuple[int, int, int] | None) -> None:
    """RFC 7915 5.2."""
    via, slow = translator(), reference()
    check_in(via, slow, v6(17, udp(4000, 53)))
    back = leave(via, v4(17, udp(53, 4000)))
    check_out(via, slow, v4(17, udp(53, 4000)))
    result, made = check_in(via, slow, v6(58, icmp(kind, rest, back, code)))
    assert result == ("done" if wanted else "refused")
    if wanted:
        assert struct.unpack_from("!BBxxI", made, 20) == wanted


def test_via_errors_about_nothing_that_was_translated() -> None:
    via = translator()
    enter(via, v6(17, udp(4000, 53)))
    back = leave(via, v4(17, udp(53, 4000)))
    stray = v6(17, udp(53, 4001), address(7), PEER6)
    assert via.inbound(v6(58, icmp(1, 0, stray)), PEER4)[0] == "no_flow"
    assert via.inbound(v6(58, icmp(1, 0, back), dst=address(8)), PEER4)[0] == "refused"
    assert via.inbound(v6(58, icmp(1, 0, back[:47])), PEER4)[0] == "refused"
    assert via.inbound(v6(58, icmp(1, 0, v4(17, udp(53, 4000)) + bytes(40))), PEER4)[0] == "refused"
    assert via.inbound(v6(58, icmp(1, 0, v6(47, bytes(8), address(7), PEER6))), PEER4)[0] == "no_flow"
    for quoted in (
        v4(17, udp(4001, 53), PEER4, HOST),
        v4(17, udp(4000, 53), OWN4, HOST),
        v4(47, bytes(8), PEER4, HOST),
    ):
        assert told(via, v4(1, icmp(3, 0, quoted))) == "plain"
    about = v4(17, udp(4000, 53), PEER4, HOST)
    assert told(via, v4(1, icmp(3, 0, about[:27]))) == "plain"
    assert told(via, v4(1, icmp(3, 0, about), dst=OWN4)) == "plain"
    assert told(via, v4(1, icmp(3, 0, about))) == "whole"
