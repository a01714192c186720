"""The packet filter: per packet with few and many rules, and its compilation."""

from __future__ import annotations

import struct

import pyperf

from meshd._fast.filter import ACCEPT, DROP_RULES, Filter, FlowTable
from perf.micro.harness import loops

SELF = bytes([100, 64, 0, 1])
PEERS = [bytes([100, 64, 1 + (n >> 8), n & 255]) for n in range(10_000)]
DEFAULT = (6, 17, 1, 58)


def packet(proto: int, body: bytes, src: bytes, dst: bytes) -> bytes:
    return struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 0, 0, 64, proto, 0, src, dst) + body


def tcp(port: int, flags: int) -> bytes:
    return struct.pack("!HHIIBBHHH", 4000, port, 0, 0, 0x50, flags, 0, 0, 0)


def udp(sport: int, dport: int) -> bytes:
    return struct.pack("!HHHH", sport, dport, 8, 0)


def rules(count: int, group: int) -> list:
    """`count` rules for one port each, of groups of `group` peers."""
    out = []
    for number in range(count):
        start = number * group % (len(PEERS) - group + 1)
        sources = [(address, address) for address in PEERS[start : start + group]]
        out.append((sources, [(SELF, SELF, 1000 + number, 1000 + number)], DEFAULT))
    return out


def main() -> None:
    runner = pyperf.Runner()
    local = [(SELF, 32)]
    for count, group in ((1, 10_000), (10, 100), (1000, 100)):
        given = rules(count, group)
        program, flows = Filter(given, local), FlowTable()
        name = f"{count} rules"
        senders = PEERS[:64]
        inside = [packet(6, tcp(1000, 2), src, SELF) for src in senders]
        denied = [packet(6, tcp(22, 2), src, SELF) for src in senders]
        data = [packet(6, tcp(1000, 16), src, SELF) for src in senders]
        opened = [packet(17, udp(4000, 1000), src, SELF) for src in senders]
        sent = [packet(17, udp(53, 4000), SELF, src) for src in senders]
        replies = [packet(17, udp(4000, 53), src, SELF) for src in senders]
        for reply in sent:
            program.check_out(reply, flows)
        for label, packets, verdict in (
            ("tcp data", data, ACCEPT),
            ("tcp syn accepted", inside, ACCEPT),
            ("tcp syn denied", denied, DROP_RULES),
            ("udp by rule", opened, ACCEPT),
            ("udp reply", replies, ACCEPT),
        ):
            runner.bench_time_func(
                f"in {label}, {name}", loops.filter_in, program, flows, loops.Packets(packets), verdict
            )
        runner.bench_time_func(f"out udp known flow, {name}", loops.filter_out, program, flows, loops.Packets(sent))
        runner.bench_func(f"compile {name} of {group} sources", Filter, given, local)


if __name__ == "__main__":
    main()
