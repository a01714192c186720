"""What one packet costs in tables of a given size: longest prefix and filter, in nanoseconds."""

from __future__ import annotations

import random

from meshd._fast.filter import ACCEPT, DROP_RULES, FlowTable
from meshd._fast.lpm import PrefixMap
from meshd.core.filterprogram import plan_filter
from meshd.core.netmap import Netmap
from perf.micro.harness import loops
from perf.micro.packets import ipv4, tcp_header
from perf.scale.frames import GROUPS

LOOPS = 200_000
ACTIVE = 64  # peers that talk at the same time
REPEAT = 5
ACK, SYN = 0x10, 0x02


def lookups(netmap: Netmap) -> dict[str, float]:
    """Nanoseconds per lookup: few peers active, and one after the other of all (memory then counts)."""
    table = PrefixMap()
    hosts: list[bytes] = []
    for number, node in enumerate(netmap.peers.values()):
        for prefix in node.allowed_ips:
            table.insert(prefix.network_address.packed, prefix.prefixlen, number)
        hosts.append(node.ips[0].packed)
    rng = random.Random(1)
    few = b"".join(rng.choices(hosts, k=ACTIVE))
    every = b"".join(rng.sample(hosts, len(hosts)))
    return {
        "lookup_active_ns": _best(loops.lookup, table, few, 4),
        "lookup_all_ns": _best(loops.lookup, table, every, 4),
    }


def filters(netmap: Netmap, size: int) -> dict[str, float]:
    """Nanoseconds per decision about a TCP packet from one of 64 peers; the rules were made for ``size`` peers."""
    program = plan_filter(netmap.filter_rules, netmap.self_node.addresses).compile()
    flows = FlowTable()
    step = max(1, size // GROUPS)
    nodes = random.Random(2).choices([n for n in netmap.peers.values() if n.id - 2 < step * GROUPS], k=ACTIVE)
    target = netmap.self_node.ips[0].packed

    def packets(flags: int, denied: bool) -> object:
        made = []
        for node in nodes:
            port = 9 if denied else 1000 + (node.id - 2) // step
            made.append(ipv4(6, tcp_header(1, flags=flags, dport=port), source=node.ips[0].packed, target=target))
        return loops.Packets(made)

    return {
        "filter_data_ns": _best(loops.filter_in, program, flows, packets(ACK, False), ACCEPT),
        "filter_syn_ns": _best(loops.filter_in, program, flows, packets(SYN, False), ACCEPT),
        "filter_denied_ns": _best(loops.filter_in, program, flows, packets(SYN, True), DROP_RULES),
    }


def _best(function: object, *arguments: object) -> float:
    assert callable(function)
    function(LOOPS // 10, *arguments)
    return round(min(function(LOOPS, *arguments) for _ in range(REPEAT)) / LOOPS * 1e9, 1)
