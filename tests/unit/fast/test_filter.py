"""The packet filter against its twin, and every rule of its order of checks by name."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd._fast import filter as fast
from meshd._fast.filter import Filter, FlowTable
from tests.reference import filter as reference
from tests.reference import flow as reference_flow
from tests.unit.fast.packets import A4, A6, B4, B6, icmp, ip, ipv4, ipv6, packets, sctp, tcp, udp

Rule = reference.Rule
ALL_PORTS = (0, 0xFFFF)
DEFAULT = (6, 17, 1, 58)
LOCAL = [(B4, 32), (B6, 128)]
ANY4, ANY6 = (bytes(4), b"\xff" * 4), (bytes(16), b"\xff" * 16)
PAIRS = [(A4, B4), (A6, B6)]


def host(address: bytes) -> tuple[bytes, bytes]:
    return address, address


def rule(src: bytes, dst: bytes, ports: tuple[int, int] = ALL_PORTS, protos: Sequence[int] = DEFAULT) -> Rule:
    return [host(src)], [(dst, dst, *ports)], protos


def check(program: Filter, packet: bytes, flows: FlowTable | None = None) -> str:
    return fast.RESULT_NAMES[program.check_in(packet, flows or FlowTable())]


# --- against the twin -------------------------------------------------------------------------------------------

# A handful of addresses and prefixes around them, so that rules overlap, nest and miss.
_SMALL = {
    4: [bytes([100, 64, 0, n]) for n in range(6)] + [bytes([10, 0, n, 9]) for n in range(3)],
    16: [A6[:-1] + bytes([n]) for n in range(6)] + [bytes([0xFD, 0, n]) + bytes(13) for n in range(3)],
}


def addresses(size: int) -> st.SearchStrategy[bytes]:
    return st.sampled_from(_SMALL[size])


def ranges(size: int) -> st.SearchStrategy[tuple[bytes, bytes]]:
    pair = st.tuples(addresses(size), addresses(size)).map(lambda ends: (min(ends), max(ends)))
    return st.one_of(addresses(size).map(host), pair, st.just((bytes(size), b"\xff" * size)))


PORTS = st.one_of(
    st.just(ALL_PORTS),
    st.tuples(st.integers(0, 6), st.integers(0, 6)).map(lambda p: (min(p), max(p))),
    st.just((3, 0xFFFF)),
)
RULES = st.lists(
    st.tuples(
        st.lists(st.sampled_from([4, 16]).flatmap(ranges), max_size=3),
        st.lists(st.tuples(st.sampled_from([4, 16]).flatmap(ranges), PORTS).map(lambda t: (*t[0], *t[1])), max_size=3),
        st.lists(st.sampled_from([6, 17, 132, 1, 58, 47, 2, 99]), max_size=4),
    ),
    max_size=6,
)
LOCALS = st.lists(
    st.sampled_from([4, 16]).flatmap(
        lambda size: st.tuples(addresses(size), st.sampled_from([0, size * 8 - 8, size * 8 - 2, size * 8]))
    ),
    max_size=4,
)
SMALL_PORT = st.integers(0, 7)
BODIES = st.one_of(
    st.tuples(st.just(6), st.builds(tcp, SMALL_PORT, SMALL_PORT, st.sampled_from([2, 18, 16, 4, 0, 0xC2]))),
    st.tuples(st.just(17), st.builds(udp, SMALL_PORT, SMALL_PORT)),
    st.tuples(st.just(132), st.builds(sctp, SMALL_PORT, SMALL_PORT)),
    st.tuples(
        st.sampled_from([1, 58]), st.builds(icmp, st.sampled_from([0, 1, 3, 4, 8, 11, 128, 129]), st.integers(0, 1))
    ),
    st.tuples(st.sampled_from([2, 47, 99, 0, 255]), st.binary(min_size=8, max_size=16)),
)
PACKETS = st.one_of(
    st.tuples(st.sampled_from([4, 16]), BODIES).flatmap(
        lambda t: st.builds(ip, st.just(t[1][0]), st.just(t[1][1]), addresses(t[0]), addresses(t[0]))
    ),
    packets(),
)


@settings(max_examples=300)
@given(RULES, LOCALS, st.lists(st.tuples(st.booleans(), PACKETS), max_size=40))
def test_filter_any_traffic_agrees_with_twin(
    rules: list[Rule], local: list[tuple[bytes, int]], traffic: list[tuple[bool, bytes]]
) -> None:
    """PF-07, PF-13."""
    program, twin = Filter(rules, local), reference.Filter(rules, local)
    flows, twin_flows = FlowTable(), reference_flow.FlowTable()
    for outbound, packet in traffic:
        if outbound:
            assert program.check_out(packet, flows) == twin.check_out(packet, twin_flows)
        else:
            assert program.check_in(packet, flows) == twin.check_in(packet, twin_flows)


@settings(max_examples=60)
@given(RULES, LOCALS, st.lists(PACKETS, max_size=25))
def test_filter_linear_form_agrees_with_classes(
    rules: list[Rule], local: list[tuple[bytes, int]], traffic: list[bytes]
) -> None:
    """Programs too varied for the pair table are scanned; both forms give the same verdicts."""
    # Rules for an address nobody asks about: as many source and destination classes as force the other form.
    far = [bytes([198, 18, n >> 8, n & 255]) for n in range(520)]
    program = Filter(rules, local)
    linear = Filter([*rules, *(rule(a, a) for a in far)], local)
    assert linear.shape()["linear_rules"] > 0
    assert program.shape()["linear_rules"] == 0
    for packet in traffic:
        assert program.check_in(packet, FlowTable()) == linear.check_in(packet, FlowTable())


# --- order of checks, step by step ------------------------------------------------------------------------------


def test_filter_empty_packet_accepted_short_dropped() -> None:
    program = Filter([], [])
    assert check(program, b"") == "accept"
    assert check(program, b"\x45" + bytes(18)) == "short"
    assert check(program, b"\x60" + bytes(38)) == "short"


def test_filter_unknown_protocol_dropped_both_ways() -> None:
    program = Filter([([ANY4], [(*ANY4, *ALL_PORTS)], range(256))], LOCAL)
    short_tcp = ipv4(6, bytes(19), A4, B4)
    assert check(program, short_tcp) == "unknown"
    assert fast.RESULT_NAMES[program.check_out(short_tcp, FlowTable())] == "unknown"


@pytest.mark.parametrize(
    ("dst", "result"),
    [
        ([224, 0, 0, 1], "multicast"),
        ([239, 255, 255, 255], "multicast"),
        ([169, 254, 0, 1], "link_local"),
        ([169, 254, 169, 253], "link_local"),
        ([169, 254, 169, 254], "accept"),
        ([169, 253, 255, 255], "accept"),
        ([223, 255, 255, 255], "accept"),
        ([240, 0, 0, 0], "accept"),
    ],
)
def test_filter_ipv4_special_destinations(dst: list[int], result: str) -> None:
    """PF-13."""
    program = Filter([([ANY4], [(*ANY4, *ALL_PORTS)], DEFAULT)], [(bytes(4), 0)])
    packet = ipv4(17, udp(1, 2), A4, bytes(dst))
    assert check(program, packet) == result
    assert fast.RESULT_NAMES[program.check_out(packet, FlowTable())] == result


@pytest.mark.parametrize(
    ("dst", "result"),
    [
        ("ff02" + "00" * 13 + "01", "multicast"),
        ("fe80" + "00" * 13 + "01", "link_local"),
        ("febf" + "00" * 13 + "01", "link_local"),
        ("fec0" + "00" * 13 + "01", "accept"),
        ("00" * 10 + "ffffe0000001", "multicast"),
        ("00" * 10 + "ffffa9fe0001", "link_local"),
        ("00" * 10 + "ffffa9fea9fe", "link_local"),
        ("00" * 10 + "ffff0a000001", "accept"),
    ],
)
def test_filter_ipv6_special_destinations(dst: str, result: str) -> None:
    """PF-13."""
    program = Filter([([ANY6], [(*ANY6, *ALL_PORTS)], DEFAULT)], [(bytes(16), 0)])
    assert check(program, ipv6(17, udp(1, 2), A6, bytes.fromhex(dst))) == result


def test_filter_later_fragment_accepted_before_the_local_check() -> None:
    program = Filter([], [])
    assert check(program, ipv4(17, bytes(64), A4, B4, fragment=100)) == "accept"
    assert check(program, ipv4(17, bytes(64), A4, bytes([224, 0, 0, 1]), fragment=100)) == "multicast"
    assert check(program, ipv4(17, bytes(64), A4, B4, fragment=5)) == "unknown"


@pytest.mark.parametrize(("src", "dst"), PAIRS)
@pytest.mark.parametrize(
    ("proto", "body"), [(6, tcp(1, 2, 0x10)), (99, b"p" + bytes(8)), (1, icmp(0)), (58, icmp(129))]
)
def test_filter_destination_not_local_dropped_whatever_the_protocol(
    src: bytes, dst: bytes, proto: int, body: bytes
) -> None:
    """PF-02."""
    program = Filter([([ANY4, ANY6], [(*ANY4, *ALL_PORTS), (*ANY6, *ALL_PORTS)], DEFAULT)], LOCAL)
    assert check(program, ip(proto, body, dst, src)) == "not_local"


def test_filter_known_flow_to_a_foreign_destination_dropped() -> None:
    program, flows = Filter([], LOCAL), FlowTable()
    program.check_out(ipv4(17, udp(5, 6), A4, B4), flows)
    assert check(program, ipv4(17, udp(6, 5), B4, A4), flows) == "not_local"


@pytest.mark.parametrize(
    ("version", "kind", "code", "accepted"),
    [
        (4, 0, 0, True), (4, 0, 1, False), (4, 3, 5, True), (4, 11, 0, True), (4, 12, 0, True), (4, 8, 0, False),
        (4, 5, 0, False), (6, 129, 0, True), (6, 129, 1, False), (6, 1, 0, True), (6, 2, 0, True), (6, 3, 0, True),
        (6, 4, 0, True), (6, 128, 0, False), (6, 135, 0, False), (6, 0, 0, False),
    ],
)  # fmt: skip
def test_filter_icmp_answers_pass_without_rules(version: int, kind: int, code: int, accepted: bool) -> None:
    packet = ipv4(1, icmp(kind, code), A4, B4) if version == 4 else ipv6(58, icmp(kind, code), A6, B6)
    assert check(Filter([], LOCAL), packet) == ("accept" if accepted else "rules")


def test_filter_short_icmp_is_no_answer() -> None:
    assert check(Filter([], LOCAL), ipv4(1, bytes(7), A4, B4)) == "rules"
    assert check(Filter([], LOCAL), ipv4(1, bytes(8), A4, B4)) == "accept"


@pytest.mark.parametrize(("src", "dst"), PAIRS)
def test_filter_icmp_request_needs_any_rule_between_the_addresses(src: bytes, dst: bytes) -> None:
    """Protocol and ports of the rule are ignored: one open TCP port allows ping."""
    echo = ip(1, icmp(8), src, dst) if len(src) == 4 else ip(58, icmp(128), src, dst)
    assert check(Filter([rule(src, dst, (22, 22), [6])], LOCAL), echo) == "accept"
    assert check(Filter([rule(src, dst, (22, 22), [])], LOCAL), echo) == "accept"
    assert check(Filter([rule(dst, dst)], LOCAL), echo) == "rules"
    assert check(Filter([rule(src, src)], [*LOCAL, (src, len(src) * 8)]), echo) == "rules"


def test_filter_icmp_of_the_other_family_is_an_ordinary_protocol() -> None:
    assert check(Filter([rule(A4, B4, (22, 22))], LOCAL), ipv4(58, icmp(129), A4, B4)) == "rules"
    assert check(Filter([rule(A4, B4)], LOCAL), ipv4(58, icmp(129), A4, B4)) == "accept"


@pytest.mark.parametrize("flags", [0x00, 0x10, 0x12, 0x04, 0x01, 0x11, 0x14, 0x18])
def test_filter_tcp_without_pure_syn_accepted(flags: int) -> None:
    """PF-13."""
    assert check(Filter([], LOCAL), ipv4(6, tcp(1, 22, flags), A4, B4)) == "accept"


@pytest.mark.parametrize("flags", [0x02, 0xC2, 0x0A, 0x03, 0x06])
def test_filter_tcp_syn_needs_a_rule(flags: int) -> None:
    packet = ipv4(6, tcp(1, 22, flags), A4, B4)
    assert check(Filter([], LOCAL), packet) == "rules"
    assert check(Filter([rule(A4, B4, (22, 22))], LOCAL), packet) == "accept"
    assert check(Filter([rule(A4, B4, (23, 23))], LOCAL), packet) == "rules"
    assert check(Filter([rule(A4, B4, (22, 22), [17])], LOCAL), packet) == "rules"
    assert check(Filter([rule(B4, B4, (22, 22))], LOCAL), packet) == "rules"


@pytest.mark.parametrize(("proto", "build"), [(17, udp), (132, sctp)])
@pytest.mark.parametrize(("src", "dst"), PAIRS)
def test_filter_reply_to_own_packet_accepted(proto: int, build: type, src: bytes, dst: bytes) -> None:
    """PF-06."""
    program, flows = Filter([], LOCAL), FlowTable()
    reply = ip(proto, build(53, 4000), src, dst)
    assert check(program, reply, flows) == "rules"
    assert program.check_out(ip(proto, build(4000, 53), dst, src), flows) == fast.ACCEPT
    assert check(program, reply, flows) == "accept"
    assert check(program, ip(proto, build(54, 4000), src, dst), flows) == "rules"
    assert check(program, ip(proto, build(53, 4001), src, dst), flows) == "rules"
    other = 132 if proto == 17 else 17
    assert check(program, ip(other, (sctp if other == 132 else udp)(53, 4000), src, dst), flows) == "rules"


def test_filter_flows_survive_a_new_program() -> None:
    """PF-07: rule changes keep UDP replies flowing."""
    flows = FlowTable()
    Filter([rule(A4, B4)], LOCAL).check_out(ipv4(17, udp(4000, 53), B4, A4), flows)
    assert check(Filter([], LOCAL), ipv4(17, udp(53, 4000), A4, B4), flows) == "accept"


def test_filter_tcp_and_icmp_leave_no_flow() -> None:
    program, flows = Filter([], LOCAL), FlowTable()
    program.check_out(ipv4(6, tcp(1, 2), B4, A4), flows)
    program.check_out(ipv4(1, icmp(8), B4, A4), flows)
    assert flows.inserted == 0


def test_filter_tsmp_accepted_to_local_destination() -> None:
    """PF-13."""
    assert check(Filter([], LOCAL), ipv4(99, b"p" + bytes(8), A4, B4)) == "accept"


@pytest.mark.parametrize("proto", [2, 47, 50])
def test_filter_other_protocol_needs_listing_and_all_ports(proto: int) -> None:
    packet = ipv4(proto, bytes(16), A4, B4)
    assert check(Filter([rule(A4, B4, ALL_PORTS, [proto])], LOCAL), packet) == "accept"
    assert check(Filter([rule(A4, B4, (0, 65534), [proto])], LOCAL), packet) == "rules"
    assert check(Filter([rule(A4, B4, (1, 65535), [proto])], LOCAL), packet) == "rules"
    assert check(Filter([rule(A4, B4)], LOCAL), packet) == "rules"


def test_filter_two_partial_rules_do_not_make_all_ports() -> None:
    rules = [rule(A4, B4, (0, 100), [47, 6]), rule(A4, B4, (101, 65535), [47, 6])]
    assert check(Filter(rules, LOCAL), ipv4(47, bytes(16), A4, B4)) == "rules"
    assert check(Filter(rules, LOCAL), ipv4(6, tcp(1, 101), A4, B4)) == "accept"


def test_filter_rule_joins_one_family_only() -> None:
    program = Filter(
        [([host(A4)], [(B6, B6, *ALL_PORTS)], DEFAULT), ([host(A6)], [(B4, B4, *ALL_PORTS)], DEFAULT)], LOCAL
    )
    assert check(program, ipv4(6, tcp(1, 2), A4, B4)) == "rules"
    assert check(program, ipv6(6, tcp(1, 2), A6, B6)) == "rules"


def test_filter_rules_do_not_mix_sources_and_ports() -> None:
    program = Filter([rule(A4, B4, (22, 22)), rule(B4, B4, (80, 80))], LOCAL)
    assert check(program, ipv4(6, tcp(1, 80), A4, B4)) == "rules"
    assert check(program, ipv4(6, tcp(1, 22), B4, B4)) == "rules"


def test_filter_nested_sources_join_their_rules() -> None:
    """A host inside a range that another rule names has the rights of both."""
    wide = ([(bytes([100, 64, 0, 0]), bytes([100, 127, 255, 255]))], [(B4, B4, 80, 80)], [6])
    program = Filter([rule(A4, B4, (22, 22)), wide], LOCAL)
    assert check(program, ipv4(6, tcp(1, 22), A4, B4)) == "accept"
    assert check(program, ipv4(6, tcp(1, 80), A4, B4)) == "accept"
    assert check(program, ipv4(6, tcp(1, 80), B4, B4)) == "accept"
    assert check(program, ipv4(6, tcp(1, 22), B4, B4)) == "rules"


def test_filter_no_rules_no_local_networks_drops_everything_new() -> None:
    """The filter before a netmap (PF-05)."""
    program = Filter([], [])
    for packet in (ipv4(6, tcp(1, 2)), ipv4(17, udp(1, 2)), ipv4(1, icmp(0)), ipv6(99, bytes(16))):
        assert check(program, packet) == "not_local"


def test_filter_thousand_rules_share_few_classes() -> None:
    """Rules that name the same sources cost no more memory per source than one."""
    hosts = [host(bytes([100, 64, n >> 8, n & 255])) for n in range(500)]
    rules: list[Rule] = [(hosts, [(B4, B4, port, port)], [6]) for port in range(1000)]
    program = Filter(rules, LOCAL)
    assert program.shape()["source_classes"] == 1
    assert program.shape()["verdicts"] == 1
    assert check(program, ipv4(6, tcp(1, 999), hosts[499][0], B4)) == "accept"
    assert check(program, ipv4(6, tcp(1, 1000), hosts[499][0], B4)) == "rules"


@pytest.mark.parametrize(
    "bad",
    [
        ([(B4, A4)], [], [6]),
        ([(A4, A6)], [], [6]),
        ([(b"", b"")], [], [6]),
        ([host(A4)], [(B4, B4, 5, 4)], [6]),
        ([host(A4)], [(B4, B4, 0, 65536)], [6]),
        ([host(A4)], [(B4, B4, -1, 2)], [6]),
        ([host(A4)], [(B4, A4, 0, 1)], [6]),
        ([host(A4)], [], [256]),
        ([host(A4)], [], [-1]),
    ],
)
def test_filter_impossible_rule_raises(bad: Rule) -> None:
    with pytest.raises(ValueError):
        Filter([bad], LOCAL)


@pytest.mark.parametrize("local", [(A4, 33), (b"abc", 8), (A6, -1)])
def test_filter_impossible_local_network_raises(local: tuple[bytes, int]) -> None:
    with pytest.raises(ValueError):
        Filter([], [local])
