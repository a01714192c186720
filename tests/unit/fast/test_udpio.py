"""Batched UDP over loopback, and control messages."""

from __future__ import annotations

import errno
import select
import socket
import struct
from collections.abc import Iterator

import pytest

from meshd._fast import udpio

LOOPBACK = bytes([127, 0, 0, 1])
SOL_UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as a, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as b:
        for one in (a, b):
            one.setblocking(False)
            one.bind(("127.0.0.1", 0))
        yield a, b


def receive_all(sock: socket.socket, count: int) -> list[tuple[bytes, int, bytes]]:
    reader, got = udpio.Reader(), list[tuple[bytes, int, bytes]]()
    while len(got) < count and select.select([sock], [], [], 5)[0]:
        got += reader.receive(sock.fileno())
    return got


@pytest.mark.parametrize("gso", [True, False])
@pytest.mark.parametrize("gro", [True, False])
@pytest.mark.parametrize(("size", "segment"), [(6400, 100), (6390, 100), (50, 100), (100, 100), (65000, 1300)])
def test_send_segments_arrive_as_datagrams(sockets, gso: bool, gro: bool, size: int, segment: int) -> None:
    a, b = sockets
    udpio.set_buffers(b.fileno(), 1 << 20)
    if gro:
        udpio.enable_offload(b.fileno())
    data = bytes(i * 7 % 251 for i in range(size))
    assert udpio.send(a.fileno(), LOOPBACK, b.getsockname()[1], data, segment, gso=gso) == (0, gso)
    got = receive_all(b, -(-size // segment))
    assert [datagram for _, _, datagram in got] == [data[i : i + segment] for i in range(0, size, segment)]
    assert {(address, port) for address, port, _ in got} == {(LOOPBACK, a.getsockname()[1])}


def test_send_equal_tail_forbidden_adds_a_runt(sockets) -> None:
    """Linux 7.0 to 7.1.4 corrupts batches whose segments are all equal."""
    a, b = sockets
    udpio.enable_offload(b.fileno())
    udpio.send(a.fileno(), LOOPBACK, b.getsockname()[1], b"x" * 1000, 100, tail=True)
    assert [datagram for *_, datagram in receive_all(b, 11)] == [b"x" * 100] * 10 + [b"\7"]
    udpio.send(a.fileno(), LOOPBACK, b.getsockname()[1], b"x" * 300, 100, tail=True)
    udpio.send(a.fileno(), LOOPBACK, b.getsockname()[1], b"x" * 950, 100, tail=True)
    assert [len(datagram) for *_, datagram in receive_all(b, 13)] == [100] * 3 + [100] * 9 + [50]


@pytest.mark.parametrize(("count", "size"), [(64, 100), (8, 100), (51, 1284), (9, 7000)])
def test_send_equal_segments_always_end_with_a_shorter_one(sockets, count: int, size: int) -> None:
    """Linux 7.0 to 7.1.4 corrupts batches whose segments are all equal, full ones as well."""
    a, b = sockets
    udpio.set_buffers(b.fileno(), 1 << 20)
    data = b"".join(bytes([i]) * size for i in range(count))
    assert udpio.send(a.fileno(), LOOPBACK, b.getsockname()[1], data, size, tail=True) == (0, True)
    got = [datagram for *_, datagram in receive_all(b, count + 1)]
    assert [datagram for datagram in got if len(datagram) > 1] == [bytes([i]) * size for i in range(count)]
    assert got.count(b"\7") == 1


def test_send_mapped_address_goes_out_as_ipv4(sockets) -> None:
    a, b = sockets
    mapped = bytes(10) + b"\xff\xff" + LOOPBACK
    assert udpio.send(a.fileno(), mapped, b.getsockname()[1], b"hello there", 100)[0] == 0
    assert receive_all(b, 1)[0][2] == b"hello there"


def test_send_unreachable_reports_errno(sockets) -> None:
    a, _ = sockets
    # A socket bound to loopback has no way out.
    assert udpio.send(a.fileno(), bytes([192, 0, 2, 1]), 9, b"x" * 40, 100)[0] in (
        errno.EINVAL,
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
    )


def test_receive_nothing_waiting_returns_empty(sockets) -> None:
    assert udpio.Reader().receive(sockets[0].fileno()) == []


def test_receive_bad_descriptor_raises() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        udpio.Reader().receive(-1)


def test_receive_more_than_all_slots(sockets) -> None:
    a, b = sockets
    for i in range(50):
        a.sendto(bytes([i]) * 40, b.getsockname())
    assert [datagram[0] for *_, datagram in receive_all(b, 50)] == list(range(50))


def test_gro_size_misordered_control_messages_found() -> None:
    """Known bug of others: the segment size is taken from whatever control message comes first."""
    timestamp = (1, 29, struct.pack("qq", 1, 2))
    size = (SOL_UDP, UDP_GRO, struct.pack("i", 1312))
    assert udpio.gro_size([size]) == 1312
    assert udpio.gro_size([timestamp, size]) == 1312
    assert udpio.gro_size([size, timestamp]) == 1312
    assert udpio.gro_size([timestamp, (SOL_UDP, UDP_SEGMENT, struct.pack("H", 9)), size]) == 1312
    assert udpio.gro_size([timestamp]) == 0
    assert udpio.gro_size([]) == 0


@pytest.mark.parametrize("data", [b"", b"\1", struct.pack("i", -5), struct.pack("i", 0)])
def test_gro_size_malformed_message_is_none(data: bytes) -> None:
    assert udpio.gro_size([(SOL_UDP, UDP_GRO, data)]) == 0


def test_gro_size_short_form_accepted() -> None:
    assert udpio.gro_size([(SOL_UDP, UDP_GRO, struct.pack("H", 1400))]) == 1400


def test_set_buffers_reports_what_is_in_force(sockets) -> None:
    receive, send = udpio.set_buffers(sockets[0].fileno(), 1 << 18)
    assert receive > 0
    assert send > 0
