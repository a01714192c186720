"""Objects of `_fast` give back what they took: after many lives as much memory is in use as after a few."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from meshd._fast.aead import Cipher
from meshd._fast.coalesce import coalesce
from meshd._fast.filter import Filter, FlowTable
from meshd._fast.ipset import IPSet
from meshd._fast.jsonnames import NameTable
from meshd._fast.lpm import PrefixMap
from meshd._fast.segment import split
from tests.unit.fast import offload
from tests.unit.fast.packets import A4, A6, B4, B6, ipv4, udp
from tests.unit.fast.planepair import KEY_AB, KEY_BA, LOOPBACK, Node, allow_all, sealed

WARM_UP, LIVES = 40, 300
SLACK_BYTES = 24 * LIVES  # less than the smallest block per life

MAPPED_SLACK_BYTES = 4096 * LIVES  # less than a page per life


class _MallInfo(ctypes.Structure):
    """mallinfo2(3). What is not looked at goes by numbers."""

    _fields_ = [(name, ctypes.c_size_t) for name in ("a", "b", "c", "d", "hblkhd", "e", "f", "uordblks", "g", "h")]


def in_use() -> int:
    """Bytes given out by the C allocator, mapped blocks included."""
    function = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if function is None:
        pytest.skip("the C library has no mallinfo2")
    function.restype = _MallInfo
    gc.collect()
    info = function()
    return int(info.uordblks + info.hblkhd)


def mapped() -> tuple[int, int]:
    """Bytes of the address space that are mapped, and open files."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * os.sysconf("SC_PAGESIZE"), len(os.listdir("/proc/self/fd"))


def plane() -> None:
    """A whole life: peers, routes, sessions, traffic both ways, a relay, threads."""
    node = Node()
    peer = node.plane.add_peer(b"A" * 32)
    for address in (A4, A6):
        node.plane.add_route(peer, address, len(address) * 8)
    node.plane.set_service_addresses([B4, B6])
    node.plane.set_own_addresses([B4, B6])
    for slot, index in (("current", 0xB0), ("next", 0xD0)):
        node.plane.install_session(
            peer,
            slot=slot,
            local_index=index,
            remote_index=index,
            send_key=KEY_BA,
            receive_key=KEY_AB,
            created=1.0,
            initiator=True,
        )
    node.plane.set_path(peer, LOOPBACK, node.port, 0.0, 7)
    node.plane.start()
    node.plane.open_from([sealed(ipv4(17, udp(1, 2, b"x"), A4, B4), 1)])
    node.plane.send_packet(peer, ipv4(17, udp(1, 2, b"x"), B4, A4))
    node.plane.drain()
    node.plane.take_relayed(7)
    node.plane.set_filter(allow_all())
    node.plane.remove_route(A4, 32)
    node.close()


def filters() -> None:
    flows = FlowTable(seed=1)
    program = allow_all()
    program.check_in(ipv4(17, udp(1, 2, b"x"), A4, B4), flows)
    hosts = [bytes([241, 0, n >> 8, n & 255]) for n in range(600)]
    Filter([([(h, h)], [(h, h, n, n)], (n % 200,)) for n, h in enumerate(hosts)], [(B4, 32)])
    with pytest.raises(ValueError, match="ports"):
        Filter([([(A4, A4)], [(B4, B4, 9, 1)], (6,))], [])


def prefix_map() -> None:
    table, random = PrefixMap(), Random(1)
    keys = [(random.randbytes(random.choice((4, 16))), random.randrange(33)) for _ in range(300)]
    for value, (address, bits) in enumerate(keys):
        table.insert(address, bits, value)
    for address, bits in keys[::2]:
        table.remove(address, bits)


def sets() -> None:
    one = IPSet(ranges=[(bytes([10, 0, n, 0]), bytes([10, 0, n, 9])) for n in range(200)])
    two = IPSet(ranges=[(bytes([10, 0, n, 5]), bytes([10, 0, n, 20])) for n in range(200)])
    assert ((one | two) - (one & two)).prefixes()


def ciphers() -> None:
    cipher = Cipher()
    message = cipher.seal_transport(b"x" * 100, 1, 2, KEY_AB, 1280)
    assert cipher.open_transport(message, KEY_AB) is not None
    assert cipher.open_transport(message, KEY_BA) is None


def offloads() -> None:
    for make in (offload.super_tcp, offload.super_udp):
        header, packet = make(bytes(5000), 1000, version=4)
        assert len(coalesce(split(header, packet))) == 1


def names() -> None:
    assert NameTable([b"Name", b"Key"]).inspect(b'{"name":1}') == 1
    with pytest.raises(ValueError, match="ASCII"):
        NameTable([b"x" * 65])


@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="AddressSanitizer has an allocator of its own")
@pytest.mark.parametrize("live", [plane, filters, prefix_map, sets, ciphers, offloads, names])
def test_objects_give_back_what_they_took(live: Callable[[], None]) -> None:
    for _ in range(WARM_UP):
        live()
    before, (space, files) = in_use(), mapped()
    for _ in range(LIVES):
        live()
    assert in_use() - before < SLACK_BYTES
    assert mapped()[0] - space < MAPPED_SLACK_BYTES
    assert mapped()[1] == files
