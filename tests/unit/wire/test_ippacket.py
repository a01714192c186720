from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.base.addr import parse_ip
from meshd.base.errors import WireError
from meshd.wire import ippacket
from meshd.wire.ippacket import Echo, UDPDatagram, checksum, decode_ip

V4 = (parse_ip("100.64.0.1"), parse_ip("100.64.0.2"))
V6 = (parse_ip("fd7a:115c:a1e0::1"), parse_ip("fd7a:115c:a1e0::2"))
FAMILIES = pytest.mark.parametrize("ends", [V4, V6], ids=["v4", "v6"])


def test_checksum_example_of_rfc1071():
    data = bytes.fromhex("0001f203f4f5f6f7")
    assert checksum(data) == ~0xDDF2 & 0xFFFF
    assert checksum(data + (~0xDDF2 & 0xFFFF).to_bytes(2, "big")) == 0
    assert checksum(b"\x01") == ~0x0100 & 0xFFFF


def test_udp_packet_vector_decoded(vectors):
    packet = decode_ip(bytes.fromhex(vectors("wireguard")["ipv4_udp_packet"]))
    assert packet.protocol == ippacket.PROTO_UDP
    assert ippacket.decode_udp(packet) == UDPDatagram(1000, 2000, b"hello")


@FAMILIES
@pytest.mark.parametrize("reply", [False, True])
def test_echo_round_trip_with_right_checksums(ends, reply):
    echo = Echo(reply, 0x1234, 7, b"payload of odd length")
    raw = ippacket.encode_echo(*ends, echo)
    if ends is V4:
        assert checksum(raw[:20]) == 0
    packet = decode_ip(raw + b"padding")
    assert (packet.source, packet.destination) == ends
    assert ippacket.decode_echo(packet) == echo


@FAMILIES
def test_echo_altered_rejected(ends):
    raw = bytearray(ippacket.encode_echo(*ends, Echo(False, 1, 1, b"data")))
    raw[-1] ^= 1
    with pytest.raises(WireError, match="checksum"):
        ippacket.decode_echo(decode_ip(bytes(raw)))


@FAMILIES
@given(data=st.binary(max_size=64), ports=st.tuples(st.integers(0, 65535), st.integers(0, 65535)))
def test_udp_round_trip(ends, data, ports):
    datagram = UDPDatagram(*ports, data)
    assert ippacket.decode_udp(decode_ip(ippacket.encode_udp(*ends, datagram))) == datagram


def test_udp_without_checksum_only_over_ipv4():
    for ends in (V4, V6):
        raw = bytearray(ippacket.encode_udp(*ends, UDPDatagram(1, 2, b"x")))
        raw[-3:-1] = b"\x00\x00"
        if ends is V4:
            assert ippacket.decode_udp(decode_ip(bytes(raw))) == UDPDatagram(1, 2, b"x")
        else:
            with pytest.raises(WireError, match="without checksum"):
                ippacket.decode_udp(decode_ip(bytes(raw)))


def test_udp_with_impossible_length_rejected():
    for length in (7, 10):
        body = b"\x00\x01\x00\x02" + length.to_bytes(2, "big") + b"\x00\x00x"
        with pytest.raises(WireError, match="UDP length"):
            ippacket.decode_udp(decode_ip(ippacket.encode_ip(*V4, 17, body)))


def test_other_protocols_are_none():
    packet = decode_ip(ippacket.encode_ip(*V4, 6, bytes(20)))
    assert ippacket.decode_echo(packet) is None
    assert ippacket.decode_udp(packet) is None
    unreachable = decode_ip(ippacket.encode_ip(*V4, 1, bytes.fromhex("0301fcfe") + bytes(4)))
    assert ippacket.decode_echo(unreachable) is None


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x50" + bytes(40),
        b"\x45" + bytes(18),
        bytes.fromhex("4500001400002000400100000101010101010101"),
        bytes.fromhex("4500001300000000400100000101010101010101"),
        bytes.fromhex("4400001400000000400100000101010101010101"),
        bytes.fromhex("4500001500000000400100000101010101010101"),
        bytes.fromhex("46000014000000004001000001010101010101"),
        b"\x60" + bytes(38),
        b"\x60\0\0\0\0\x01" + bytes(34),
    ],
)
def test_decode_ip_malformed_rejected(raw):
    with pytest.raises(WireError):
        decode_ip(raw)


def test_encode_ip_impossible_packets_refused():
    with pytest.raises(ValueError, match="families"):
        ippacket.encode_ip(V4[0], V6[1], 1, b"")
    for ends in (V4, V6):
        with pytest.raises(ValueError, match="do not fit"):
            ippacket.encode_ip(*ends, 1, bytes(65536))
    with pytest.raises(ValueError, match="do not fit"):
        ippacket.encode_udp(*V4, UDPDatagram(1, 2, bytes(65528)))


@given(st.binary(max_size=64), st.integers(0, 1 << 20))
def test_checksum_is_the_sum_of_all_words(data, initial):
    """RFC 1071, as it is written there."""
    total = initial + sum(int.from_bytes((data + b"\0")[i : i + 2], "big") for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert checksum(data, initial) == ~total & 0xFFFF


@pytest.mark.parametrize("data", [bytes(4), b"\xff" * 4, b"\0\1\xff\xfe", b""])
def test_checksum_of_zero_and_its_other_form(data):
    assert checksum(data) == (0 if any(data) else 0xFFFF)
