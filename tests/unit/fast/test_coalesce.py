"""Merging of packets against its twin, and the rules by name."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd._fast import segment
from meshd._fast.coalesce import coalesce
from tests.reference import coalesce as reference
from tests.unit.fast import offload
from tests.unit.fast.packets import packets


def both(batch: list[bytes], *, tcp: bool = True, udp: bool = True) -> list[tuple[bytes, bytes]]:
    fast = coalesce(batch, tcp=tcp, udp=udp)
    assert fast == reference.coalesce(batch, tcp=tcp, udp=udp)
    return fast


@st.composite
def flows(draw: st.DrawFn) -> list[bytes]:
    """Segments of a few TCP and UDP flows, near enough to each other that most could merge; some are damaged."""
    batch = []
    sequence = {4000: 2**32 - 700, 4001: 50}
    for _ in range(draw(st.integers(0, 30))):
        payload = b"p" * draw(st.sampled_from([1, 99, 100, 100, 100, 101]))
        version, port = draw(st.sampled_from([4, 6])), draw(st.sampled_from([4000, 4001]))
        if draw(st.integers(0, 3)) == 0:
            if draw(st.integers(0, 9)) == 0:
                payload = b""
            packet = offload.udp(payload, version=version, port=port, hop_limit=draw(st.sampled_from([64, 64, 63])))
            if draw(st.integers(0, 5)) == 0:
                packet = packet[: -len(payload) - 2] + b"\0\0" + payload
        else:
            packet = offload.tcp(
                payload,
                version=version,
                port=port,
                sequence=sequence[port] % 2**32,
                ack=draw(st.sampled_from([7, 7, 7, 8])),
                flags=draw(st.sampled_from([0x10, 0x10, 0x10, 0x18, 0x11, 0x02, 0xD0])),
                options=draw(st.sampled_from([b"", b"", bytes(12), b"\1" * 12])),
                hop_limit=draw(st.sampled_from([64, 64, 64, 63])),
                tos=draw(st.sampled_from([0, 0, 0, 2])),
                window=draw(st.sampled_from([512, 512, 512, 0])),
            )
            sequence[port] += draw(st.sampled_from([len(payload)] * 6 + [0, -len(payload), 300]))
        if draw(st.integers(0, 9)) == 0:
            at = draw(st.integers(0, len(packet) - 1))
            packet = packet[:at] + bytes([packet[at] ^ draw(st.integers(1, 255))]) + packet[at + 1 :]
        batch.append(packet)
    if draw(st.booleans()):
        batch = draw(st.permutations(batch))
    return batch


@given(flows(), st.booleans(), st.booleans())
def test_coalesce_flows_agree_with_twin(batch: list[bytes], tcp: bool, udp: bool) -> None:
    both(batch, tcp=tcp, udp=udp)


@given(st.lists(packets().filter(bool) | st.binary(min_size=1, max_size=90), max_size=20))
def test_coalesce_any_bytes_agree_with_twin(batch: list[bytes]) -> None:
    both(batch)


@given(
    st.sampled_from([4, 6]),
    st.binary(min_size=1, max_size=9000),
    st.integers(200, 1400),
    st.sampled_from([b"", bytes(12)]),
)
def test_coalesce_undoes_split(version: int, payload: bytes, gso: int, options: bytes) -> None:
    header, packet = offload.super_tcp(payload, gso, version=version, options=options)
    written = both(segment.split(header, packet))
    assert len(written) == 1
    if len(payload) > gso:
        assert written[0][0][6:] == header[6:]
    pieces = segment.split(*written[0])
    assert pieces == segment.split(header, packet)


@given(st.binary(min_size=1, max_size=9000), st.integers(200, 1400))
def test_coalesce_undoes_split_of_datagrams(payload: bytes, gso: int) -> None:
    header, packet = offload.super_udp(payload, gso)
    pieces = segment.split(header, packet)
    written = both(pieces)
    assert [piece for item in written for piece in segment.split(*item)] == pieces


def test_coalesce_checksum_wrong_left_alone() -> None:
    good, bad = offload.tcp(b"a" * 100), bytearray(offload.tcp(b"b" * 100, sequence=1100))
    bad[-1] ^= 1
    assert [packet for _, packet in both([good, bytes(bad)])] == [good, bytes(bad)]
    assert [packet for _, packet in both([bytes(bad), good])] == [bytes(bad), good]


def test_coalesce_push_ends_the_item() -> None:
    batch = [offload.tcp(b"a" * 9, flags=0x18), offload.tcp(b"b" * 9, sequence=1009)]
    assert len(both(batch)) == 2


def test_coalesce_reversed_segments_joined() -> None:
    batch = [offload.tcp(b"b" * 100, sequence=1100, flags=0x18), offload.tcp(b"a" * 100)]
    written = both(batch)
    assert len(written) == 1
    assert written[0][1][40:] == b"a" * 100 + b"b" * 100
    assert written[0][1][33] == 0x18


def test_coalesce_datagrams_never_overtake() -> None:
    batch = [offload.udp(b"a" * 100), offload.udp(b"b" * 200), offload.udp(b"c" * 100)]
    written = both(batch)
    assert [packet[28] for _, packet in written] == [ord("a"), ord("b")]
    assert written[1][1][28:] == b"b" * 200 + b"c" * 100


def test_coalesce_datagram_without_checksum_left_alone() -> None:
    packet = _plain(b"a" * 100)
    assert len(both([packet, packet])) == 2


def _plain(payload: bytes) -> bytes:
    """A datagram without checksum."""
    packet = offload.udp(payload)
    return packet[:26] + b"\0\0" + packet[28:]


def _behind_options(packet: bytes) -> bytes:
    return b"\x46" + packet[1:2] + struct.pack(">H", len(packet) + 4) + packet[4:20] + bytes(4) + packet[20:]


@pytest.mark.parametrize(
    "between",
    [
        _plain(b"b" * 100),
        offload.udp(b""),
        _behind_options(offload.udp(b"b" * 100)),
        offload.udp(b"b" * 100)[:6] + b"\x20\0" + offload.udp(b"b" * 100)[8:],
        offload.udp(b"b" * 100)[:6] + b"\x00\x10" + offload.udp(b"b" * 100)[8:22],
        offload.udp(b"b" * 100, version=6)[:6] + b"\x2c" + offload.udp(b"b" * 100, version=6)[7:],
    ],
    ids=["no checksum", "empty", "options", "first fragment", "last fragment", "fragment header"],
)
def test_coalesce_datagram_that_cannot_be_merged_is_not_overtaken(between: bytes) -> None:
    version = between[0] >> 4
    first, last = (offload.udp(byte * 100, version=version) for byte in (b"a", b"c"))
    assert [packet for _, packet in both([first, between, last])] == [first, between, last]
    # Those behind it are merged as ever.
    assert len(both([first, between, last, last])) == 3


def test_coalesce_keeps_the_newest_window() -> None:
    """Known stall of others: a window that opens is lost where only the first segment's is kept."""
    closed, opened = offload.tcp(b"a" * 100, window=0), offload.tcp(b"b" * 100, sequence=1100, window=512)
    assert [packet for _, packet in both([closed, opened])] == [closed, opened]


def test_coalesce_fragment_and_options_left_alone() -> None:
    packet = offload.tcp(b"a" * 100)
    fragment = packet[:6] + b"\x20\0" + packet[8:]
    assert len(both([fragment, fragment])) == 2
    options = _behind_options(packet)
    assert len(both([options, options])) == 2


def test_coalesce_stops_at_64_segments_and_at_64_kib() -> None:
    small = [offload.tcp(b"a" * 10, sequence=1000 + 10 * i) for i in range(100)]
    assert [len(packet) - 40 for _, packet in both(small)] == [640, 360]
    large = [offload.tcp(b"a" * 1400, sequence=1000 + 1400 * i) for i in range(60)]
    assert [len(packet) for _, packet in both(large)] == [40 + 46 * 1400, 40 + 14 * 1400]


def test_coalesce_extension_header_left_alone() -> None:
    """Known bug of others: an IPv6 extension header that poses as TCP."""
    packet = offload.tcp(b"a" * 100, version=6)
    shifted = packet[:6] + b"\0" + packet[7:]
    assert len(both([shifted, shifted])) == 2
