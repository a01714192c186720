from __future__ import annotations

import pytest

from meshd.base.addr import parse_ip
from meshd.base.errors import WireError
from meshd.wire.ippacket import PROTO_TSMP, decode_ip
from meshd.wire.tsmp import RejectReason, TsmpPing, TsmpPong, TsmpReject, decode_tsmp, encode_tsmp_packet

A, B = parse_ip("100.64.0.1"), parse_ip("100.64.0.2")
DATA = bytes(range(8))
MESSAGES = {
    "tsmp_ping": TsmpPing(DATA),
    "tsmp_pong_peerapi_33000": TsmpPong(DATA, 33000),
    "tsmp_reject_acl_tcp_1234_to_443": TsmpReject(6, RejectReason.ACL, 1234, 443),
    "tsmp_reject_maybe_broken": TsmpReject(6, RejectReason.FORWARDING_OFF, 1234, 443, maybe_broken=True),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_packet_vector_both_ways(vectors, name):
    raw = bytes.fromhex(vectors("misc")[name])
    packet = decode_ip(raw)
    assert packet.protocol == PROTO_TSMP
    assert decode_tsmp(packet.payload) == MESSAGES[name]
    assert encode_tsmp_packet(packet.source, packet.destination, MESSAGES[name]) == raw


def test_packet_over_ipv6_round_trip():
    a, b = parse_ip("fd7a:115c:a1e0::1"), parse_ip("fd7a:115c:a1e0::2")
    packet = decode_ip(encode_tsmp_packet(a, b, TsmpPing(DATA)))
    assert (packet.source, packet.destination, packet.protocol) == (a, b, PROTO_TSMP)
    assert decode_tsmp(packet.payload) == TsmpPing(DATA)


def test_unspoken_type_is_none(vectors):
    assert decode_tsmp(decode_ip(bytes.fromhex(vectors("misc")["tsmp_disco_advert"])).payload) is None


def test_pong_without_port_accepted():
    assert decode_tsmp(b"o" + DATA) == TsmpPong(DATA, 0)


@pytest.mark.parametrize("body", [b"", b"p1234567", b"o1234567", b"!", b"!\x06A\x00\x01\x00"])
def test_body_cut_short_rejected(body):
    with pytest.raises(WireError):
        decode_tsmp(body)
