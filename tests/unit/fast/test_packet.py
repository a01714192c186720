"""The packet parser and checksum against their twins, and hostile packets by name."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd._fast import packet as fast
from tests.reference import packet as reference
from tests.unit.fast.packets import ipv4, ipv6, packets, tcp, udp

FIELDS = [
    "version",
    "proto",
    "src",
    "dst",
    "l4_offset",
    "total_bytes",
    "tcp_flags",
    "icmp_type",
    "icmp_code",
    "icmp_id",
    "src_port",
    "dst_port",
]


def assert_same(data: bytes) -> None:
    wanted = reference.parse(data)
    if isinstance(wanted, str):
        with pytest.raises(ValueError, match=f": {wanted}$"):
            fast.parse(data)
        return
    info = fast.parse(data)
    assert {name: getattr(info, name) for name in FIELDS} == {name: getattr(wanted, name) for name in FIELDS}


@given(packets())
def test_parse_any_packet_agrees_with_twin(data: bytes) -> None:
    assert_same(data)


@given(st.binary(max_size=80))
def test_parse_any_bytes_agrees_with_twin(data: bytes) -> None:
    assert_same(data)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("cut", range(1, 61))
def test_parse_cut_packet_agrees_with_twin(version: int, cut: int) -> None:
    build = ipv4 if version == 4 else ipv6
    assert_same(build(6, tcp(1, 2))[:-cut])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"\x45", "short"),
        (b"\x45" + bytes(18), "short"),
        (b"\x60" + bytes(38), "short"),
        (b"\x00" + bytes(60), "version"),
        (b"\x55" + bytes(60), "version"),
        (b"\x44\0\0\x14" + bytes(16), "header"),
        (b"\x46\0\0\x14" + bytes(40), "header"),
        (b"\x45\0\0\x13" + bytes(16), "header"),
        (b"\x45\0\0\x15" + bytes(16), "truncated"),
        (b"\x60\0\0\0\0\x01" + bytes(34), "truncated"),
    ],
)
def test_parse_malformed_header_raises_with_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        fast.parse(data)


@pytest.mark.parametrize(("proto", "size"), [(6, 19), (17, 7), (132, 11), (1, 3)], ids=["tcp", "udp", "sctp", "icmp"])
def test_parse_short_transport_header_gives_unknown(proto: int, size: int) -> None:
    assert fast.parse(ipv4(proto, bytes(size))).proto == 0
    assert fast.parse(ipv4(proto, bytes(size + 1))).proto == proto


def test_parse_padding_does_not_complete_a_short_header() -> None:
    """Bytes after the IP total length are padding, not transport header."""
    assert fast.parse(ipv4(6, bytes(10)) + bytes(100)).proto == 0


@pytest.mark.parametrize(
    ("offset", "more", "body", "proto"),
    [(0, True, 8, 0), (0, True, 10, 17), (0, False, 8, 17), (1, False, 64, 0), (9, True, 64, 0), (10, False, 1, 255)],
)
def test_parse_fragment_by_offset(offset: int, more: bool, body: int, proto: int) -> None:
    assert fast.parse(ipv4(17, bytes(body), fragment=offset | more << 13)).proto == proto


def test_parse_protocol_255_is_never_mistaken_for_a_fragment() -> None:
    assert fast.parse(ipv4(255, bytes(40))).proto == 0
    assert fast.parse(ipv6(255, bytes(40))).proto == 0


def fragment6(proto: int, offset: int, more: bool, body: bytes) -> bytes:
    return ipv6(44, struct.pack("!BxHI", proto, offset << 3 | more, 7) + body)


@pytest.mark.parametrize(
    ("offset", "more", "body", "proto"),
    [(0, True, 9, 0), (0, True, 10, 17), (0, False, 8, 17), (1, False, 64, 0), (9, True, 64, 0), (10, False, 1, 255)],
)
def test_parse_ipv6_fragment_by_offset(offset: int, more: bool, body: int, proto: int) -> None:
    assert fast.parse(fragment6(17, offset, more, bytes(body))).proto == proto


def test_parse_first_ipv6_fragment_has_the_ports() -> None:
    info = fast.parse(fragment6(6, 0, True, tcp(1, 2)))
    assert (info.proto, info.src_port, info.dst_port, info.l4_offset) == (6, 1, 2, 48)


@pytest.mark.parametrize("proto", [44, 99, 255])
def test_parse_ipv6_fragment_of_a_protocol_that_is_never_fragmented(proto: int) -> None:
    assert fast.parse(fragment6(proto, 0, False, bytes(40))).proto == (44 if proto == 44 else 0)


def test_parse_cut_ipv6_fragment_header_gives_unknown() -> None:
    for size in range(8):
        assert fast.parse(ipv6(44, bytes([17] + [0] * 7)[:size])).proto == 0


@given(
    proto=st.sampled_from([6, 17, 58, 99, 132, 255, 44, 0]),
    offset=st.sampled_from([0, 0, 1, 9, 10, 8191]),
    flags=st.integers(0, 7),
    body=st.binary(max_size=60),
)
def test_parse_any_ipv6_fragment_agrees_with_twin(proto: int, offset: int, flags: int, body: bytes) -> None:
    assert_same(ipv6(44, struct.pack("!BxHI", proto, offset << 3 | flags, 7) + body))


def test_parse_other_ipv6_extension_header_is_the_protocol() -> None:
    info = fast.parse(ipv6(60, bytes([6, 0, 0, 0, 0, 0, 0, 0]) + tcp(1, 2)))
    assert (info.proto, info.dst_port) == (60, 0)


def test_parse_icmp_of_the_other_family_has_no_type() -> None:
    assert fast.parse(ipv4(58, b"\x81\0" + bytes(6))).icmp_type == 0
    assert fast.parse(ipv6(1, b"\x08\0" + bytes(6))).icmp_type == 0


@given(st.binary(max_size=600), st.integers(0, 0xFFFF))
def test_checksum_any_data_agrees_with_twin(data: bytes, initial: int) -> None:
    assert fast.checksum(data, initial) == reference.checksum(data, initial)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 7, 8, 20, 63, 64, 65, 127, 128, 129, 191, 192, 1279, 1280, 1281, 65535])
@pytest.mark.parametrize("start", range(3))
def test_checksum_all_sizes_and_alignments_agree_with_twin(size: int, start: int) -> None:
    for pattern in (b"\xff" * (size + start), bytes(i * 37 & 255 for i in range(size + start))):
        data = memoryview(pattern)[start:]
        assert fast.checksum(data) == reference.checksum(bytes(data))


def test_checksum_rfc1071_example() -> None:
    """RFC 1071 3: 00 01 f2 03 f4 f5 f6 f7 sums to ddf2."""
    assert fast.checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xDDF2 ^ 0xFFFF


@given(st.binary(min_size=40, max_size=200).filter(lambda d: len(d) % 2 == 0), st.data())
def test_update_checksum_any_change_equals_full_sum(data: bytes, draw: st.DataObject) -> None:
    size = 2 * draw.draw(st.integers(0, 16))
    at = 2 * draw.draw(st.integers(0, (len(data) - size) // 2))
    new = draw.draw(st.binary(min_size=size, max_size=size))
    changed = data[:at] + new + data[at + size :]
    updated = fast.update_checksum(fast.checksum(data), data[at : at + size], new)
    # 0000 and ffff are the same sum; which of the two appears depends on the way of computing.
    assert updated % 0xFFFF == fast.checksum(changed) % 0xFFFF


def test_update_checksum_rfc1624_example() -> None:
    """RFC 1624 4: HC dd2f, m 5555, m' 3285 gives 0000, where RFC 1141 gave ffff."""
    assert fast.update_checksum(0xDD2F, bytes.fromhex("5555"), bytes.fromhex("3285")) == 0x0000


@pytest.mark.parametrize(("old", "new"), [(b"a", b"ab"), (b"ab", b"a")])
def test_update_checksum_odd_length_raises(old: bytes, new: bytes) -> None:
    with pytest.raises(ValueError, match="16-bit words"):
        fast.update_checksum(0, old, new)


def test_checksum_initial_beyond_16_bits_raises() -> None:
    with pytest.raises(ValueError, match="16-bit"):
        fast.checksum(b"", 0x10000)


@given(packets())
def test_transport_checksum_any_packet_agrees_with_twin(data: bytes) -> None:
    if not isinstance(reference.parse(data), str):
        assert fast.transport_checksum(data) == reference.transport_checksum(data)


def test_transport_checksum_correct_packet_is_zero() -> None:
    segment = bytearray(udp(1000, 53, b"abc"))
    segment[6:8] = struct.pack("!H", fast.transport_checksum(ipv6(17, bytes(segment))))
    assert fast.transport_checksum(ipv6(17, bytes(segment))) == 0


def test_message_between_nodes_in_parts_is_not_trusted() -> None:
    """Its first part passed for the whole."""
    assert fast.parse(ipv4(99, bytes(24))).proto == 99
    assert fast.parse(ipv4(99, bytes(24), fragment=0x2000)).proto == 0
