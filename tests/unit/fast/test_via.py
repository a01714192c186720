"""Via addresses: packets of every protocol both ways, beside a plain translation that writes them anew."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd._fast.via import Via
from tests.reference import via as twin
from tests.reference.packet import checksum, parse
from tests.unit.fast import offload
from tests.unit.fast.viapackets import (
    ACK,
    DF,
    ELSEWHERE,
    FIN,
    HOST,
    MF,
    NEEDS_CSUM,
    OWN4,
    OWN6,
    PEER4,
    PEER6,
    ROUTER,
    ROUTES,
    RST,
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
    tcp,
    told,
    translator,
    udp,
    v4,
    v6,
)

# -- every protocol both ways


def test_via_tcp_there_and_back() -> None:
    """RT-08."""
    via = translator()
    sent = enter(via, v6(6, tcp(4000, 80, ACK, b"hello"), tclass=0xB9))
    assert sent == v4(6, tcp(4000, 80, ACK, b"hello"), PEER4, HOST, ident=0, ttl=60, tos=0xB9)
    back = leave(via, v4(6, tcp(80, 4000, ACK, b"world"), tos=0xB9))
    assert back == v6(6, tcp(80, 4000, ACK, b"world"), address(7), PEER6, hops=61, tclass=0xB9)


def test_via_udp_there_and_back() -> None:
    """RT-08."""
    via = translator()
    assert enter(via, v6(17, udp(4000, 53, b"ask"))) == v4(17, udp(4000, 53, b"ask"), PEER4, HOST, ident=0, ttl=60)
    assert leave(via, v4(17, udp(53, 4000, b"say"))) == v6(17, udp(53, 4000, b"say"), address(7), PEER6, hops=61)


def test_via_echo_there_and_back() -> None:
    """RT-08: and nothing else of ICMP that is no error."""
    via = translator()
    assert enter(via, v6(58, echo(128, 77))) == v4(1, echo(8, 77), PEER4, HOST, ident=0, ttl=60)
    assert leave(via, v4(1, echo(0, 77))) == v6(58, echo(129, 77), address(7), PEER6, hops=61)
    assert told(via, v4(1, echo(0, 78))) == "plain"
    assert told(via, v4(1, echo(8, 77))) == "plain"
    assert via.inbound(v6(58, echo(129, 77)), PEER4)[0] == "no_flow"
    assert via.inbound(v6(58, icmp(135, 0, bytes(16))), PEER4)[0] == "refused"


def test_via_datagram_without_checksum_gets_one_and_may_not_lack_it_over_ipv6() -> None:
    via = translator()
    enter(via, v6(17, udp(4000, 53)))
    bare = v4(17, udp(53, 4000, b"odd"))
    bare = bare[:26] + bytes(2) + bare[28:]
    assert leave(via, bare) == v6(17, udp(53, 4000, b"odd"), address(7), PEER6, hops=61)
    bare = v6(17, udp(4000, 53))
    assert via.inbound(bare[:46] + bytes(2) + bare[48:], PEER4)[0] == "refused"


def test_via_checksum_that_the_kernel_left_to_do_stays_so() -> None:
    """With VIRTIO_NET_HDR_F_NEEDS_CSUM the field is the pseudo header's sum, of the other addresses then."""
    via = translator()
    for proto, body, field in ((6, tcp(80, 4000, ACK, b"data"), 16), (17, udp(53, 4000, b"data"), 6)):
        enter(via, v6(proto, (tcp if proto == 6 else udp)(4000, 80 if proto == 6 else 53)))
        packet = v4(proto, body)
        partial = ~checksum(packet[12:20] + struct.pack("!HH", proto, len(body))) & 0xFFFF
        at = 20 + field
        packet = packet[:at] + partial.to_bytes(2, "big") + packet[at + 2 :]
        result, made = via.outbound(packet, offload.vnet(NEEDS_CSUM, start=20, offset=field))
        assert result == "whole"
        whole = v6(proto, body, address(7), PEER6, hops=61)
        assert twin.pieces(*made[0]) == [whole]


def test_via_address_options_of_the_host_are_dropped_unless_they_route() -> None:
    """RFC 7915 4.1."""
    via = translator()
    enter(via, v6(6, tcp(4000, 80)))
    answer = tcp(80, 4000, ACK)
    assert leave(via, v4(6, answer, options=b"\1\1\1\0")) == v6(6, answer, address(7), PEER6, hops=61)
    assert told(via, v4(6, answer, options=b"\x83\7\4\1\2\3\4\0")) == "refused"
    assert told(via, v4(6, answer, options=b"\x83\7\x08\1\2\3\4\0")) == "whole"


# -- which flow is which


def test_via_answers_to_what_came_plainly_go_plainly() -> None:
    """RT-08: the same host, reached both ways."""
    via = translator()
    enter(via, v6(6, tcp(4000, 80, SYN)))
    assert told(via, v4(6, tcp(80, 4000, SYN | ACK))) == "whole"
    assert told(via, v4(6, tcp(80, 4001, SYN | ACK))) == "plain"
    assert told(via, v4(17, udp(80, 4000))) == "plain"
    assert told(via, v4(6, tcp(80, 4000, ACK), src=ROUTER)) == "plain"
    assert told(via, v4(6, tcp(80, 4000, ACK), dst=OWN4)) == "plain"
    assert told(via, v6(6, tcp(80, 4000, ACK), address(7), PEER6)) == "plain"


def test_via_same_ports_at_two_sites_are_told_apart_by_another_port() -> None:
    """RT-08: sites with the same IPv4 network behind one node, and one client port."""
    via = translator()
    first = enter(via, v6(6, tcp(4000, 80, SYN)))
    second = enter(via, v6(6, tcp(4000, 80, SYN), dst=address(8)))
    assert first[20:22] == (4000).to_bytes(2, "big")
    port = int.from_bytes(second[20:22], "big")
    assert port != 4000
    assert good(second)
    assert enter(via, v6(6, tcp(4000, 80, ACK), dst=address(8)))[20:22] == second[20:22]
    assert leave(via, v4(6, tcp(80, 4000, ACK))) == v6(6, tcp(80, 4000, ACK), address(7), PEER6, hops=61)
    assert leave(via, v4(6, tcp(80, port, ACK))) == v6(6, tcp(80, 4000, ACK), address(8), PEER6, hops=61)
    # The same with identifiers of echo requests.
    enter(via, v6(58, echo(128, 5)))
    other = enter(via, v6(58, echo(128, 5), dst=address(8)))
    ident = int.from_bytes(other[24:26], "big")
    assert ident != 5
    assert good(other)
    assert leave(via, v4(1, echo(0, ident))) == v6(58, echo(129, 5), address(8), PEER6, hops=61)


def test_via_another_host_behind_the_peer_gets_its_own_answers() -> None:
    """A peer that is a router itself: its IPv4 address stands for all behind it."""
    via = translator()
    other = PEER6[:-1] + b"\x77"
    enter(via, v6(17, udp(4000, 53)))
    port = int.from_bytes(enter(via, v6(17, udp(4000, 53), src=other))[20:22], "big")
    assert leave(via, v4(17, udp(53, port)))[24:40] == other
    assert leave(via, v4(17, udp(53, 4000)))[24:40] == PEER6


def test_via_no_port_is_left() -> None:
    """RT-08: the ninth flow with the same port to the same port of a host."""
    via = translator()
    sources = [PEER6[:-1] + bytes([number]) for number in range(9)]
    ports = {enter(via, v6(17, udp(4000, 53), src=source))[20:22] for source in sources[:8]}
    assert len(ports) == 8
    assert via.inbound(v6(17, udp(4000, 53), src=sources[8]), PEER4)[0] == "no_port"
    assert enter(via, v6(17, udp(4001, 53), src=sources[8]))


def test_via_plain_packets_with_the_ports_of_a_via_flow_are_noticed() -> None:
    """Their answers would go to the via flow; a closed connection is none."""
    via = translator()
    enter(via, v6(6, tcp(4000, 80, SYN)))
    enter(via, v6(58, echo(128, 9)))
    assert via.clashes(v4(6, tcp(4000, 80, SYN), PEER4, HOST))
    assert via.clashes(v4(1, echo(8, 9), PEER4, HOST))
    assert not via.clashes(v4(6, tcp(4001, 80, SYN), PEER4, HOST))
    assert not via.clashes(v4(1, echo(0, 9), PEER4, HOST))
    assert not via.clashes(v4(132, bytes(12), PEER4, HOST))
    assert not via.clashes(v6(6, tcp(4000, 80)))
    leave(via, v4(6, tcp(80, 4000, RST)))
    assert not via.clashes(v4(6, tcp(4000, 80, SYN), PEER4, HOST))


def test_via_route_that_is_no_longer_offered_ends_its_flows() -> None:
    """RT-08: and one that is offered again finds them."""
    via = translator()
    enter(via, v6(6, tcp(4000, 80)))
    fewer = Via(ROUTES[1:], flows=via.flows)
    assert fewer.inbound(v6(6, tcp(4000, 80)), PEER4)[0] == "other"
    assert told(fewer, v4(6, tcp(80, 4000))) == "plain"
    assert told(Via(ROUTES, flows=via.flows), v4(6, tcp(80, 4000))) == "whole"
    assert not Via([])
    assert not Via([(bytes(16), 0), (bytes(4), 0)])


def test_via_routes_may_touch_and_overlap() -> None:
    """Nothing but what is offered, to the address."""
    via = Via(
        [(address(7, bytes(4)), 97), (address(7, b"\x80\0\0\0"), 97), (address(9, HOST), 128), (address(9, HOST), 128)]
    )
    for low, found in (
        (address(7, bytes([1, 0, 0, 1])), "done"),
        (address(7, bytes([200, 0, 0, 1])), "done"),
        (address(6, b"\xdf" * 4), "other"),
        (address(8, bytes([1, 0, 0, 0])), "other"),
        (address(9, HOST), "done"),
        (address(9, ROUTER), "other"),
        (bytes(8) + address(7)[8:], "other"),
    ):
        assert via.inbound(v6(17, udp(1, 2), dst=low), PEER4)[0] == found


@pytest.mark.parametrize("prefix", [(b"abc", 8), (bytes(16), 129), (bytes(4), 33), (bytes(16), -1)])
def test_via_refuses_what_is_no_prefix(prefix: tuple[bytes, int]) -> None:
    with pytest.raises(ValueError, match="not a prefix"):
        Via([prefix])
    with pytest.raises(ValueError, match="4 or 16"):
        Via([], own=[b"abc"])


# -- what is not translated


def test_via_peer_without_ipv4_address_is_refused() -> None:
    """RT-08: there is no address for the answers."""
    assert translator().inbound(v6(6, tcp(4000, 80)), b"") == ("no_ipv4", v6(6, tcp(4000, 80)))


@pytest.mark.parametrize(
    ("host", "result"),
    [
        ("0.0.0.1", "refused"),
        ("127.0.0.1", "refused"),
        ("224.0.0.1", "refused"),
        ("255.255.255.255", "refused"),
        ("169.254.1.1", "refused"),
        ("169.254.169.254", "done"),
        ("100.64.0.1", "refused"),
        ("100.64.0.9", "done"),
        ("198.51.100.1", "done"),
    ],
)
def test_via_addresses_that_plain_packets_could_not_have_are_refused(host: str, result: str) -> None:
    """RT-08: not this host's loopback, no group, not this node itself."""
    via = Via([(address(7, bytes(4)), 96)], own=[OWN4, OWN6])
    raw = bytes(map(int, host.split(".")))
    assert via.inbound(v6(6, tcp(4000, 80), dst=address(7, raw)), PEER4)[0] == result


@pytest.mark.parametrize("proto", [0, 43, 60, 2, 47, 50, 132, 99, 4, 41])
def test_via_other_protocols_and_extension_headers_are_refused(proto: int) -> None:
    via = translator()
    packet = v6(proto, bytes((6, 0)) + bytes(30))
    assert via.inbound(packet, PEER4) == ("refused", packet)
    assert told(via, v4(proto or 1, bytes(32))) == "plain"


@pytest.mark.parametrize("packet", [b"", b"\x45", b"\x60" + bytes(38), b"\x90" + bytes(60)])
def test_via_refuses_what_is_no_packet(packet: bytes) -> None:
    via = translator()
    for method in (lambda: via.inbound(packet, PEER4), lambda: via.outbound(packet), lambda: via.clashes(packet)):
        with pytest.raises(ValueError, match="not an IP packet"):
            method()


# -- both translations, always

PORTS = st.sampled_from([1, 2])
DATA = st.sampled_from([b"", b"1234567", bytes(1200), bytes(range(256)) * 5])
FLAGS = st.sampled_from([SYN, ACK, FIN | ACK, RST, SYN | ACK])
ENDS = st.sampled_from([address(7), address(7), address(8), address(7, ROUTER), address(9)])
BITS = st.sampled_from([0, 0, 0, DF, MF, MF | DF, 157, MF | 157])


@st.composite
def from_peer(draw: st.DrawFn) -> bytes:
    dst, port, data = draw(ENDS), draw(PORTS), draw(DATA)
    body = draw(
        st.sampled_from(
            [
                (6, tcp(port, 80, draw(FLAGS), data, draw(st.sampled_from([b"", b"\2\4\5\xb4"])))),
                (17, udp(port, 80, data)),
                (58, echo(draw(st.sampled_from([128, 128, 129])), port, data)),
                (58, icmp(draw(st.integers(1, 4)), draw(st.integers(0, 41)), v6(17, udp(80, port, data), dst, PEER6))),
            ]
        )
    )
    if draw(st.integers(0, 3)) == 0:
        return fragment6(body[0], draw(st.sampled_from([0, 80, 1256])), body[1], more=draw(st.booleans()), dst=dst)
    return v6(*body, dst=dst, tclass=draw(st.integers(0, 255)))


@st.composite
def from_host(draw: st.DrawFn) -> bytes:
    src, port, data = draw(st.sampled_from([HOST, HOST, ROUTER, ELSEWHERE])), draw(PORTS), draw(DATA)
    quoted = v4(17, udp(port, 80, data), PEER4, HOST)
    body = draw(
        st.sampled_from(
            [
                (6, tcp(80, port, draw(FLAGS), data, draw(st.sampled_from([b"", b"\2\4\5\xb4"])))),
                (17, udp(80, port, data)),
                (1, echo(draw(st.sampled_from([0, 0, 8])), port, data)),
                (
                    1,
                    icmp(
                        draw(st.sampled_from([3, 11, 12])), draw(st.integers(0, 1400)), quoted, draw(st.integers(0, 16))
                    ),
                ),
            ]
        )
    )
    return v4(*body, src=src, bits=draw(BITS), tos=draw(st.integers(0, 255)))


@st.composite
def spoiled(draw: st.DrawFn, packets: st.SearchStrategy[bytes]) -> bytes:
    """A packet, in one of four with a wrong byte or bytes missing."""
    packet = bytearray(draw(packets))
    if draw(st.integers(0, 3)) == 0:
        packet[draw(st.integers(0, len(packet) - 1))] = draw(st.integers(0, 255))
        del packet[draw(st.integers(0, len(packet))) :]
    return bytes(packet)


@given(
    st.lists(
        st.tuples(spoiled(st.one_of(from_peer(), from_host())), st.sampled_from([0, 0, 0, 1, 20, 250])), max_size=12
    )
)
def test_via_agrees_with_packets_written_anew(steps: list[tuple[bytes, int]]) -> None:
    """RT-08: any packets in any order, hostile and truncated ones among them."""
    fast, slow = translator(), reference()
    now = 0.0
    for packet, pause in steps:
        now += pause
        found = parse(packet)
        if isinstance(found, str):
            continue
        if found.version == 6:
            check_in(fast, slow, packet, now=now)
        else:
            check_out(fast, slow, packet, now=now)
