"""The fixed work whose instructions are counted: one entry for each hot function of ``meshd._fast``."""

from __future__ import annotations

from meshd._fast import aead
from meshd._fast.filter import ACCEPT, DROP_RULES, Filter, FlowTable
from meshd._fast.replay import Window
from meshd._fast.via import Via
from perf.micro import bench_lpm, bench_plane
from perf.micro.harness import Case, loops
from perf.micro.packets import SOURCE, TARGET, flow, ipv4, super_tcp, tcp, tcp_header, udp

KEY = bytes(range(32))
FULL = 1280  # bytes of a full packet in the tunnel
SYN = 0x02


def cases() -> list[tuple[int, Case]]:
    """How often at least, so that each packet or address gets its turn, and the case of ``perf.micro``."""
    few = [*_aead(), *_headers(), *_filters(), *_offload(), _via()]
    return [*((64, case) for case in few), *((1000, case) for case in _lookups())]


def _aead() -> list[Case]:
    found: list[Case] = []
    for name in aead.available():
        if name == "auto":
            continue  # it takes whichever of the others is faster on this machine
        cipher = aead.Cipher(name)
        for size in (64, FULL):
            sealed = bytearray(size + 16)
            cipher.seal_into(sealed, bytes(size), 7, KEY)
            found.append((f"seal {size} {name}", loops.seal, (cipher, size)))
            found.append((f"open {size} {name}", loops.open_, (cipher, bytes(sealed), 7, KEY)))
    return found


def _headers() -> list[Case]:
    return [
        ("replay in order", loops.replay, (Window(), 1)),
        ("checksum 1280", loops.checksum, (bytes(FULL),)),
        ("parse ipv4 tcp", loops.parse, (tcp(b""),)),
        ("parse ipv4 udp", loops.parse, (udp(b"x"),)),
    ]


def _lookups() -> list[Case]:
    found: list[Case] = []
    for size, family in ((4, "ipv4"), (16, "ipv6")):
        table, peers, subnets = bench_lpm.network(size)
        found.append((f"lookup {family} host", loops.lookup, (table, b"".join(peers[:1000]), size)))
        found.append((f"lookup {family} subnet", loops.lookup, (table, b"".join(subnets[:1000]), size)))
    return found


def _filters() -> list[Case]:
    peers = [bytes([100, 64, 1 + (n >> 8), n & 255]) for n in range(10_000)]
    rules = [
        (
            [(a, a) for a in peers[n * 10 : n * 10 + 100]],
            [(TARGET, TARGET, 1000 + n, 1000 + n)],
            (6, 17, 1, 58),
        )
        for n in range(500)
    ]
    program, flows = Filter(rules, [(TARGET, 32)]), FlowTable()

    def packets(flags: int, port: int) -> object:
        return loops.Packets(
            [ipv4(6, tcp_header(1, flags=flags, dport=port), source=a, target=TARGET) for a in peers[:64]]
        )

    sent = loops.Packets([udp(b"x", sport=4000 + n) for n in range(64)])
    return [
        ("filter tcp data", loops.filter_in, (program, flows, packets(0x10, 1000), ACCEPT)),
        ("filter tcp syn accepted", loops.filter_in, (program, flows, packets(SYN, 1000), ACCEPT)),
        ("filter tcp syn denied", loops.filter_in, (program, flows, packets(SYN, 22), DROP_RULES)),
        ("filter out udp", loops.filter_out, (Filter([], [(SOURCE, 32)]), flows, sent)),
    ]


def _offload() -> list[Case]:
    plane = bench_plane.loops
    return [
        ("split 64 KiB TSO packet", plane.split, super_tcp(65535, 1228)),
        ("merge 48 packets", plane.merge, (flow(48, 1228), 1)),
        ("ring put and take", plane.put_take, (bytes(148),)),
    ]


def _via() -> Case:
    """The source port is a peer's, the destination an address of site 7 (4via6)."""
    peer, host = bytes.fromhex("fd7a115ca1e0") + bytes(10), bytes.fromhex("fd7a115ca1e00b1a000000070a010203")
    there = bytes((0x60, 0, 0, 0)) + (20).to_bytes(2, "big") + bytes((6, 64)) + peer + host + tcp_header(1)
    back = ipv4(6, tcp_header(1, sport=5000, dport=4000), source=host[12:], target=bytes((100, 64, 0, 5)))
    return ("via there and back", loops.via_there_and_back, (Via([(host[:15] + bytes(1), 120)]), there, back))
