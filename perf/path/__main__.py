"""Throughput, processor time and round trips of meshd beside other userspace WireGuards, in one run.

    python -m perf.path [--seconds N] [--rounds N] [--relayed] [--only NAME,…] [--json FILE]

Needs root, iperf3, wireguard-tools; Debian's wireguard-go is the peer that is always there, others join when
they are on PATH. Pairs take turns, so that a machine whose speed drifts is fair to all; medians are printed,
and the ratio to wireguard-go.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from pathlib import Path
from typing import Any

from perf.path import measure
from perf.path.hosts import Hosts, forbid_udp_between_nodes, hosts
from perf.path.peers import Pair, as_json, available, meshd

BASELINE = "wireguard-go"


def one_round(made: Hosts, pair: Pair, seconds: int) -> dict[str, Any]:
    idle = measure.idle(pair)
    return {
        "idle": idle,
        "ping": measure.round_trips(pair),
        "tcp1": measure.iperf(pair, seconds),
        "tcp8": measure.iperf(pair, seconds, "-P", "8"),
        "loaded_pss_mb": pair.a.pss_mb(),
    }


def run(seconds: int, rounds: int, relayed: bool, only: set[str]) -> dict[str, list[dict[str, Any]]]:
    results: dict[str, list[dict[str, Any]]] = {}
    pairs = {"meshd": lambda made: meshd(made, relayed=True)} if relayed else available()
    for number in range(rounds):
        for name, bring_up in pairs.items():
            if only and name not in only:
                continue
            print(f"round {number + 1}: {name}", file=sys.stderr)
            with hosts() as made:
                if relayed:
                    forbid_udp_between_nodes()
                results.setdefault(name, []).append(one_round(made, bring_up(made), seconds))
    return results


def median(rounds: list[dict[str, Any]], *path: str | int) -> float:
    values = []
    for one in rounds:
        value: Any = one
        for key in path:
            value = value[key]
        values.append(float(value))
    return statistics.median(values)


def report(results: dict[str, list[dict[str, Any]]]) -> str:
    head = ("", "TCP Gbit/s", "8 flows", "CPU s/GB", "ping avg ms", "PSS idle/loaded MB", f"x {BASELINE}")
    lines = [head]
    base = median(results[BASELINE], "tcp1", "gbit_s") if BASELINE in results else 0.0
    for name, rounds in results.items():
        throughput = median(rounds, "tcp1", "gbit_s")
        cpu = [median(rounds, "tcp1", "cpu_s_per_gb", end) for end in (0, 1)]
        lines.append(
            (
                name,
                f"{throughput:.2f}",
                f"{median(rounds, 'tcp8', 'gbit_s'):.2f}",
                f"{cpu[0]:.2f} + {cpu[1]:.2f}",
                f"{median(rounds, 'ping', 'avg_ms'):.3f}",
                f"{median(rounds, 'idle', 'pss_mb'):.0f} / {median(rounds, 'loaded_pss_mb'):.0f}",
                f"{throughput / base:.1f}" if base else "-",
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join("  ".join(text.ljust(w) for text, w in zip(line, widths, strict=True)) for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m perf.path", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=5, help="length of each iperf3 run")
    parser.add_argument("--rounds", type=int, default=1, help="how often every pair takes its turn")
    parser.add_argument("--relayed", action="store_true", help="meshd alone, with UDP between the nodes forbidden")
    parser.add_argument("--only", default="", help="names of pairs, separated by commas")
    parser.add_argument("--json", type=Path, help="write all figures here")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("perf.path: namespaces need root", file=sys.stderr)
        return 1
    only = {name for name in arguments.only.split(",") if name}
    results = run(arguments.seconds, arguments.rounds, arguments.relayed, only)
    if arguments.json:
        arguments.json.write_text(as_json(results))
    print(report(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
