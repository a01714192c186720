"""Addresses that one peer knows us by: checksums stay right, nothing else of a packet changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd._fast.masquerade import Masquerade
from meshd._fast.packet import transport_checksum
from tests.reference import masquerade as reference
from tests.unit.fast.packets import A4, A6, B4, B6, icmp, ip, tcp, udp

SHOWN4, SHOWN6 = bytes([100, 80, 9, 9]), bytes.fromhex("fd7a115ca1e0") + bytes(9) + b"\x99"
PAIRS = ((A4, SHOWN4), (A6, SHOWN6))
OTHER4, OTHER6 = bytes([10, 1, 1, 1]), bytes.fromhex("20010db8") + bytes(12)


def whole(proto: int, body: bytes, src: bytes, dst: bytes, *, sums: bool) -> bytes:
    """A packet with right checksums, or a datagram without one."""
    packet = bytearray(ip(proto, body, src, dst))
    if packet[0] >> 4 == 4:
        packet[10:12] = reference.checksum(bytes(packet[:20])).to_bytes(2, "big")
    found = reference.transport_sum(bytes(packet))
    header = 20 if packet[0] >> 4 == 4 else 40
    if found is not None and sums:
        at = header + {6: 16, 17: 6, 58: 2}[proto]
        packet[at : at + 2] = found.to_bytes(2, "big")
    return bytes(packet)


def packets() -> st.SearchStrategy[bytes]:
    ports = st.integers(0, 0xFFFF)
    payload = st.binary(max_size=40)
    bodies = st.one_of(
        st.tuples(st.just(6), st.builds(lambda a, b, data: tcp(a, b) + data, ports, ports, payload), st.just(True)),
        st.tuples(st.just(17), st.builds(udp, ports, ports, payload), st.booleans()),
        st.tuples(st.just(132), payload.filter(lambda data: len(data) >= 12), st.just(False)),
        st.tuples(st.just(58), st.builds(icmp, st.integers(128, 129)), st.just(True)),
        st.tuples(st.just(1), st.builds(icmp, st.just(8)), st.just(False)),
    )
    v4 = st.tuples(st.sampled_from([A4, SHOWN4, OTHER4]), st.sampled_from([B4, SHOWN4, OTHER4]))
    v6 = st.tuples(st.sampled_from([A6, SHOWN6, OTHER6]), st.sampled_from([B6, SHOWN6, OTHER6]))
    return st.builds(
        lambda body, ends: whole(body[0], body[1], *ends, sums=body[2] or len(ends[0]) == 16), bodies, st.one_of(v4, v6)
    )


@given(packets())
def test_masquerade_agrees_with_checksums_computed_anew(packet: bytes) -> None:
    """RT-02: RFC 1624's short way gives what the long way gives."""
    made = Masquerade(PAIRS)
    assert made.outbound(packet) == reference.outbound(PAIRS, packet)
    assert made.inbound(packet) == reference.inbound(PAIRS, packet)


@given(packets())
def test_masquerade_there_and_back_is_the_same_packet(packet: bytes) -> None:
    """What goes out under one address and is sent straight back comes in under the other."""
    made = Masquerade(((A4, SHOWN4), (A6, SHOWN6)))
    size = 4 if packet[0] >> 4 == 4 else 16
    start = 12 if size == 4 else 8
    source = packet[start : start + size]
    if source in (A4, A6):
        sent = made.outbound(packet)
        turned = sent[:start] + sent[start + size : start + 2 * size] + sent[start : start + size]
        turned += sent[start + 2 * size :]
        received = made.inbound(turned)
        assert received[start + size : start + 2 * size] == source


def test_masquerade_completes_the_sum_that_the_kernel_left_to_do() -> None:
    """With VIRTIO_NET_HDR_F_NEEDS_CSUM the field is the pseudo header's sum, not complemented."""
    packet = bytearray(ip(6, tcp(1, 2) + b"data", A4, B4))
    body = len(packet) - 20
    pseudo = A4 + B4 + bytes((0, 6)) + body.to_bytes(2, "big")
    packet[36:38] = (~reference.checksum(pseudo) & 0xFFFF).to_bytes(2, "big")
    sent = bytearray(Masquerade(PAIRS).outbound(bytes(packet), partial=True))
    assert sent[12:16] == SHOWN4
    after = SHOWN4 + B4 + bytes((0, 6)) + body.to_bytes(2, "big")
    assert bytes(sent[36:38]) == (~reference.checksum(after) & 0xFFFF).to_bytes(2, "big")
    sent[36:38] = reference.checksum(bytes(sent[20:])).to_bytes(2, "big")
    assert transport_checksum(bytes(sent)) == 0


@pytest.mark.parametrize("pairs", [[(A4, B6)], [(A4, B4), (B4, A4)], [(b"", b"")], [(A6[:8], B6[:8])]])
def test_masquerade_impossible_pairs_are_refused(pairs: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(ValueError, match="one pair"):
        Masquerade(pairs)


@pytest.mark.parametrize("packet", [b"", b"\x45", b"\x60" + bytes(38), b"\x90" + bytes(60)])
def test_masquerade_refuses_what_is_no_packet(packet: bytes) -> None:
    made = Masquerade(PAIRS)
    for method in (made.outbound, made.inbound):
        with pytest.raises(ValueError, match="not an IP packet"):
            method(packet)
