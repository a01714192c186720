"""Longest-prefix match at 10 000 peers: host routes, subnets, default route, and changes."""

from __future__ import annotations

import random

from meshd._fast.lpm import PrefixMap
from perf.micro.harness import Case, loops, run

PEERS = 10_000
PROBES = 1024


def hosts(size: int) -> list[bytes]:
    """Addresses as control servers hand them out: IPv4 from 100.64/10, IPv6 from the mesh range."""
    prefix = bytes.fromhex("fd7a115ca1e0") + bytes(6)
    numbers = random.Random(1).sample(range(1 << 22), PEERS)
    return [(prefix if size == 16 else b"") + (0x64400000 + n).to_bytes(4) for n in numbers]


def network(size: int) -> tuple[PrefixMap, list[bytes], list[bytes]]:
    """A map of 10 000 hosts, 1 000 subnets and a default route; probes for hosts and for subnets."""
    table, peers = PrefixMap(), hosts(size)
    for value, address in enumerate(peers):
        table.insert(address, size * 8, value)
    subnets = [bytes([10, n >> 8, n & 255]).ljust(size, b"\1") for n in range(1000)]
    for value, address in enumerate(subnets):
        table.insert(address, 24, value)
    table.insert(bytes(size), 0, PEERS)
    return table, peers, subnets


def cases() -> list[Case]:
    found: list[Case] = []
    for size, family in ((4, "ipv4"), (16, "ipv6")):
        table, peers, subnets = network(size)
        rng = random.Random(2)
        near = b"".join(rng.sample(peers[:64], 64))
        far = b"".join(rng.sample(peers, PROBES))
        routed = b"".join(rng.sample(subnets, 1000))
        outside = b"".join(bytes([8, n & 255]).ljust(size, b"\3") for n in range(PROBES))
        fresh = b"".join(bytes([9]).ljust(size - 2, b"\7") + n.to_bytes(2) for n in range(PROBES))
        found += [
            (f"lookup {family} host, 64 active peers", loops.lookup, (table, near, size)),
            (f"lookup {family} host, 1024 active peers", loops.lookup, (table, far, size)),
            (f"lookup {family} subnet /24 of 1000", loops.lookup, (table, routed, size)),
            (f"lookup {family} default route", loops.lookup, (table, outside, size)),
            (f"insert+remove {family} host", loops.insert_remove, (table, fresh, size, size * 8)),
            (f"insert+remove {family} /24", loops.insert_remove, (table, fresh, size, 24)),
        ]
    return found


if __name__ == "__main__":
    run(cases())
