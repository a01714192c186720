"""Membership in address sets."""

from __future__ import annotations

from meshd._fast.ipset import IPSet
from perf.micro.harness import Case, loops, run


def cases() -> list[Case]:
    found: list[Case] = []
    for count in (1, 16, 1000):
        ranges = [(n * 65536, n * 65536 + 9) for n in range(count)]
        addresses = IPSet([(first.to_bytes(4), last.to_bytes(4)) for first, last in ranges])
        probes = b"".join((n * 7919 % count * 65536 + n % 20).to_bytes(4) for n in range(1024))
        found.append((f"contains, {count} ranges", loops.contains, (addresses, probes, 4)))
    return found


if __name__ == "__main__":
    run(cases())
