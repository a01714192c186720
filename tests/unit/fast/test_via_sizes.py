"""Via addresses: what grows on the way back, super packets, fragments."""

from __future__ import annotations

import struct

import pytest

from tests.reference import via as twin
from tests.reference.packet import checksum
from tests.unit.fast import offload
from tests.unit.fast.viapackets import (
    ACK,
    DF,
    HOST,
    MF,
    NEEDS_CSUM,
    PEER4,
    PEER6,
    PLAIN,
    SYN,
    address,
    check_in,
    check_out,
    echo,
    enter,
    fragment6,
    good,
    icmp,
    leave,
    reference,
    super_answer,
    tcp,
    told,
    translator,
    udp,
    v4,
    v6,
)

# -- sizes


@pytest.mark.parametrize(
    ("options", "clamped"),
    [
        (b"\2\4\5\xb4", b"\2\4\4\xc4"),
        (b"\1\2\4\5\xb4\0\0\0", b"\1\2\4\4\xc4\0\0\0"),
        (b"\2\4\2\0", b"\2\4\2\0"),
        (b"\3\3\7\1\2\4\xff\xff", b"\3\3\7\1\2\4\4\xc4"),
        (b"\0\2\4\xff", b"\0\2\4\xff"),
        (b"\3\0\2\4", b"\3\0\2\4"),
        (b"\2\3\xff\xff", b"\2\3\xff\xff"),
    ],
)
def test_via_segments_are_no_larger_than_what_fits_the_tunnel_afterwards(options: bytes, clamped: bytes) -> None:
    """RT-08: 1280 bytes less two headers, on both sides' SYN."""
    via = translator()
    sent = enter(via, v6(6, tcp(4000, 80, SYN, options=options)))
    assert (sent[40:], good(sent)) == (clamped, True)
    back = leave(via, v4(6, tcp(80, 4000, SYN | ACK, options=options)))
    assert (back[60:], good(back)) == (clamped, True)
    assert enter(via, v6(6, tcp(4000, 80, ACK, options=options)))[40:] == options


def test_via_answer_that_grows_too_large_is_told_when_it_must_stay_whole() -> None:
    """RT-08: 1260 bytes are what fits."""
    via = translator()
    enter(via, v6(17, udp(4000, 53)))
    assert len(leave(via, v4(17, udp(53, 4000, bytes(1232)), bits=DF))) == 1280
    packet = v4(17, udp(53, 4000, bytes(1233)), bits=DF)
    result, made = via.outbound(packet)
    assert result == "too_big"
    assert made == [(PLAIN, v4(1, icmp(3, 1260, packet[:28], code=4), PEER4, HOST, ident=0, ttl=64, tos=0xC0))]
    with_options = v4(17, udp(53, 4000, bytes(1233)), bits=DF, options=bytes(4))
    assert via.outbound(with_options)[1][0][1][28:] == with_options[:32]


@pytest.mark.parametrize("size", [1233, 2000, 8000])
def test_via_answer_that_grows_too_large_is_divided_when_it_may_be(size: int) -> None:
    """RT-08."""
    via, slow = translator(), reference()
    check_in(via, slow, v6(17, udp(4000, 53)))
    body = udp(53, 4000, bytes(range(250)) * 40)[: size + 8]
    body = body[:4] + len(body).to_bytes(2, "big") + body[6:]
    result, parts = check_out(via, slow, v4(17, body))
    assert result == "parts"
    assert all(len(part) <= 1280 for part in parts)
    whole = v6(17, body, address(7), PEER6)
    assert b"".join(part[48:] for part in parts) == whole[40:]
    offsets = [int.from_bytes(part[42:44], "big") for part in parts]
    assert [offset & 1 for offset in offsets] == [1] * (len(parts) - 1) + [0]
    assert [offset & ~7 for offset in offsets] == [number * 1232 for number in range(len(parts))]


def test_via_divided_answer_with_the_checksum_left_to_do_has_it_done() -> None:
    via = translator()
    enter(via, v6(17, udp(4000, 53)))
    body = udp(53, 4000, bytes(1240))
    packet = v4(17, body)
    partial = ~checksum(packet[12:20] + struct.pack("!HH", 17, len(body))) & 0xFFFF
    packet = packet[:26] + partial.to_bytes(2, "big") + packet[28:]
    result, made = via.outbound(packet, offload.vnet(NEEDS_CSUM, start=20, offset=6))
    assert (result, [header for header, _ in made]) == ("parts", [PLAIN, PLAIN])
    assert b"".join(part[48:] for _, part in made) == v6(17, body, address(7), PEER6)[40:]


@pytest.mark.parametrize("gso", [500, 1208, 1228, 1240])
def test_via_super_packet_of_segments_is_cut_so_that_all_fit(gso: int) -> None:
    """RT-08: TSO from the TUN."""
    via = translator()
    enter(via, v6(6, tcp(4000, 80)))
    header, packet = super_answer(6, 30000, gso, options=bytes(12))
    result, made = via.outbound(packet, header)
    assert (result, len(made)) == ("whole", 1)
    parts = twin.pieces(*made[0])
    assert all(good(part) and len(part) <= 1280 for part in parts)
    assert len(parts) == -(-30000 // min(gso, 1208))
    assert b"".join(part[72:] for part in parts) == packet[52:]
    assert {part[8:40] for part in parts} == {address(7) + PEER6}


def test_via_super_packet_of_datagrams_stays_one_or_is_cut_before() -> None:
    """RT-08: USO from the TUN; datagrams cannot be made smaller."""
    via = translator()
    enter(via, v6(17, udp(4000, 53)))
    header, packet = super_answer(17, 12000, 1200)
    result, made = via.outbound(packet, header)
    assert result == "whole"
    parts = twin.pieces(*made[0])
    assert [len(part) for part in parts] == [1248] * 10
    assert all(map(good, parts))
    header, packet = super_answer(17, 12000, 1240)
    assert via.outbound(packet, header) == ("cut", [])
    assert {told(via, piece) for piece in twin.pieces(header, packet)} == {"too_big", "whole"}


def test_via_super_packet_with_no_room_for_a_longer_header_is_cut_before() -> None:
    via = translator()
    enter(via, v6(6, tcp(4000, 80)))
    header, packet = super_answer(6, 65535 - 40, 1200)
    assert via.outbound(packet, header) == ("cut", [])


@pytest.mark.parametrize(
    "header",
    [
        offload.vnet(NEEDS_CSUM, start=24, offset=16),
        offload.vnet(NEEDS_CSUM, start=20, offset=6),
        offload.vnet(NEEDS_CSUM, 4, 54, 500, 20, 16),
        offload.vnet(NEEDS_CSUM, 5, 54, 500, 20, 16),
        offload.vnet(NEEDS_CSUM, 3, 54, 500, 20, 16),
        offload.vnet(0, 1, 54, 500, 0, 0),
    ],
)
def test_via_offload_header_that_does_not_fit_is_refused(header: bytes) -> None:
    via = translator()
    enter(via, v6(6, tcp(4000, 80)))
    assert via.outbound(v4(6, tcp(80, 4000, ACK, bytes(2000))), header) == ("refused", [])


def test_via_single_packet_with_an_ecn_mark_of_offload_is_no_super_packet() -> None:
    via = translator()
    enter(via, v6(6, tcp(4000, 80)))
    header = offload.vnet(NEEDS_CSUM, 0x80, 54, 500, 20, 16)
    assert via.outbound(v4(6, tcp(80, 4000, ACK, bytes(1230)), bits=DF), header)[0] == "too_big"


# -- fragments


def test_via_fragments_of_the_peer_are_translated() -> None:
    """RT-08: the first one's checksum is that of the whole, and stays right."""
    via, slow = translator(), reference()
    body = v6(17, udp(4000, 53, bytes(range(200)) * 10))[40:]
    parts = [fragment6(17, at, body[at : at + 1232], more=at + 1232 < len(body)) for at in range(0, len(body), 1232)]
    made = [check_in(via, slow, part)[1] for part in parts]
    assert [part[4:8] for part in made] == [b"\x23\x45\x20\0", b"\x23\x45\0\x9a"]
    whole = v4(17, body[:6] + bytes(2) + body[8:], PEER4, HOST)
    assert b"".join(part[20:] for part in made) == whole[20:]


def test_via_fragment_header_that_divides_nothing_is_left_out() -> None:
    """RFC 6946."""
    via = translator()
    packet = v6(17, udp(4000, 53, b"one"))
    single = fragment6(17, 0, packet[40:], more=False)
    assert enter(via, single, now=0.0) == v4(17, udp(4000, 53, b"one"), PEER4, HOST, ident=0, ttl=60)
    packet = v6(58, echo(128, 5))
    assert enter(via, fragment6(58, 0, packet[40:], more=False)) == v4(1, echo(8, 5), PEER4, HOST, ident=0, ttl=60)


@pytest.mark.parametrize("size", range(8))
def test_via_fragment_header_that_is_cut_off_is_refused(size: int) -> None:
    packet = fragment6(17, 0, b"", more=False)[: 40 + size]
    packet = packet[:4] + size.to_bytes(2, "big") + packet[6:]
    assert translator().inbound(packet, PEER4) == ("refused", packet)


def test_via_fragments_of_echoes_are_refused() -> None:
    """RT-08: the sum of the whole would be needed."""
    via = translator()
    assert via.inbound(fragment6(58, 0, echo(128, 5, bytes(1224)), more=True), PEER4)[0] == "refused"
    assert via.inbound(fragment6(58, 1232, bytes(100), more=False), PEER4)[0] == "refused"
    enter(via, v6(58, echo(128, 5)))
    assert told(via, v4(1, echo(0, 5, bytes(1224)), bits=MF)) == "refused"
    assert told(via, v4(1, echo(0, 5, bytes(3000)))) == "parts"


def test_via_fragments_of_the_host_are_known_by_their_first_one() -> None:
    """RT-08: ports are in the first one only; each grows and may become two."""
    via, slow = translator(), reference()
    check_in(via, slow, v6(17, udp(4000, 53), dst=address(8)))
    body = v4(17, udp(53, 4000, bytes(range(250)) * 10))[20:]
    first, last = v4(17, body[:1256], bits=MF), v4(17, body[1256:], bits=157)
    first = first[:26] + body[6:8] + first[28:]
    assert told(via, last) == "plain"
    parts = [*check_out(via, slow, first)[1], *check_out(via, slow, last)[1]]
    assert [len(part) for part in parts] == [1280, 72, 1280, 68]
    assert (
        b"".join(part[48:] for part in parts) == v6(17, udp(53, 4000, bytes(range(250)) * 10), address(8), PEER6)[40:]
    )
    assert {part[8:40] for part in parts} == {address(8) + PEER6}
    assert told(via, v4(17, body[1256:], bits=157, ident=100)) == "plain"
    assert told(via, last, now=14.0) == "parts"
    assert told(via, last, now=17.0) == "plain"


@pytest.mark.parametrize(
    ("bits", "size", "result"),
    [(MF, 1001, "refused"), (DF | MF, 1256, "too_big"), (MF, 1000, "parts"), (8191, 100, "plain")],
)
def test_via_odd_fragments_of_the_host(bits: int, size: int, result: str) -> None:
    via = translator()
    enter(via, v6(17, udp(4000, 53)))
    assert told(via, v4(17, udp(53, 4000, bytes(size - 8)), bits=bits)) == result
    if bits == MF and size == 1000:
        assert told(via, v4(17, bytes(100), bits=8191)) == "refused"
