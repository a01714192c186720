"""Segmentation of super packets against its twin, and the rules by name."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd._fast import segment
from tests.reference import segment as reference
from tests.unit.fast import offload
from tests.unit.fast.packets import packets


def both(header: bytes, packet: bytes) -> list[bytes] | None:
    """Split by both; they must agree, also in refusing."""
    try:
        fast: list[bytes] | None = segment.split(header, packet)
    except ValueError:
        fast = None
    twin = reference.split(header, packet)
    assert fast == twin
    return fast


@given(
    st.sampled_from([4, 6]),
    st.binary(min_size=1, max_size=3000),
    st.integers(1, 1500),
    st.integers(0, 255),
    st.sampled_from([b"", bytes(12), bytes(40)]),
)
def test_split_tcp_agrees_with_twin(version: int, payload: bytes, gso: int, flags: int, options: bytes) -> None:
    header, packet = offload.super_tcp(payload, gso, version=version, flags=flags, options=options)
    pieces = both(header, packet)
    assert pieces is not None
    assert b"".join(piece[-min(gso, len(payload) - i * gso) :] for i, piece in enumerate(pieces)) == payload


@given(st.sampled_from([4, 6]), st.binary(min_size=1, max_size=3000), st.integers(1, 1500))
def test_split_udp_agrees_with_twin(version: int, payload: bytes, gso: int) -> None:
    assert both(*offload.super_udp(payload, gso, version=version)) is not None


@given(
    st.builds(
        offload.vnet,
        st.integers(0, 3),
        st.sampled_from([0, 1, 3, 4, 5, 0x81, 0x84, 255]),
        st.integers(0, 65535),
        st.integers(0, 65535) | st.integers(0, 40),
        st.integers(0, 80) | st.integers(0, 65535),
        st.integers(0, 20) | st.integers(0, 65535),
    ),
    packets() | st.binary(min_size=1, max_size=200),
)
def test_split_hostile_header_agrees_with_twin(header: bytes, packet: bytes) -> None:
    if packet:
        both(header, packet)


def test_split_checksum_wanted_completes_it() -> None:
    header, packet = offload.super_tcp(b"x" * 100, 1000)
    whole = both(offload.vnet(1, 0, 0, 0, 20, 16), packet)
    assert whole == [offload.tcp(b"x" * 100, flags=0x18)]
    assert both(header, packet) == whole


def test_split_middle_segments_lose_fin_and_psh() -> None:
    pieces = both(*offload.super_tcp(b"x" * 300, 100, flags=0x19))
    assert pieces is not None
    assert [piece[33] for piece in pieces] == [0x10, 0x10, 0x19]


def test_split_congestion_window_reduced_is_told_once() -> None:
    pieces = both(*offload.super_tcp(b"x" * 300, 100, flags=0x90))
    assert pieces is not None
    assert [piece[33] for piece in pieces] == [0x90, 0x10, 0x10]


def test_split_identification_wraps_around() -> None:
    header, packet = offload.super_tcp(b"x" * 300, 100)
    packet = packet[:4] + b"\xff\xff" + packet[6:]
    pieces = both(header, packet)
    assert pieces is not None
    assert [piece[4:6] for piece in pieces] == [b"\xff\xff", b"\0\0", b"\0\1"]


@pytest.mark.parametrize(("version", "kind"), [(4, 4), (6, 1), (4, 3), (6, 3), (4, 2)])
def test_split_kind_of_another_family_refused(version: int, kind: int) -> None:
    header, packet = offload.super_tcp(b"x" * 300, 100, version=version)
    assert both(header[:1] + bytes([kind]) + header[2:], packet) is None


def test_split_largest_super_packet() -> None:
    """53 segments of a 1280-byte tunnel, as the kernel delivers them."""
    pieces = both(*offload.super_tcp(b"\xab" * 65000, 1228, options=bytes(12)))
    assert pieces is not None
    assert [len(piece) for piece in pieces] == [1280] * 52 + [52 + 65000 - 52 * 1228]


@given(st.integers(0, 65535), st.sampled_from([0, 576, 1280, 1400, 1420, 9000, 65535]))
def test_padded_agrees_with_twin(length: int, mtu: int) -> None:
    assert segment.padded(length, mtu) == reference.padded(length, mtu)


@pytest.mark.parametrize(
    ("length", "mtu", "expected"),
    [(41, 1280, 48), (1280, 1280, 1280), (1410, 1420, 1420), (0, 1280, 0), (1300, 1280, 1312), (2570, 1280, 2576)],
)
def test_padded_known_lengths(length: int, mtu: int, expected: int) -> None:
    """Known bug of others: payload not padded to 16."""
    assert segment.padded(length, mtu) == expected


def test_split_header_of_wrong_length_refused() -> None:
    with pytest.raises(ValueError, match="10 bytes"):
        segment.split(struct.pack("=BBHHHHH", 0, 0, 0, 0, 0, 0, 0), bytes(40))
