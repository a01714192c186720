"""Throughput, packets, round trips, processor time and memory of meshd beside other tunnels, in one run.

    python -m perf.path [--seconds N] [--rounds N] [--relayed] [--quick] [--only NAME,…] [--json FILE]

Needs root, iperf3, wireguard-tools, a C compiler with libsodium and OpenSSL headers (scripts/setup test), which also
brings Debian's wireguard-go and builds the calibration tunnel (no protocol, only what the kernel's interfaces and one
AEAD allow); tailscaled, boringtun-cli and gotatun join when they are on PATH. tailscaled and meshd share a network of
headscale and derper where those are on PATH, else of mesh-coord.

Pairs take turns, so that a machine whose speed drifts is fair to all; medians and ratios are printed. A pair that
fails in one round is reported and takes part in the next one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

from perf.path import measure, networks, summary
from perf.path.hosts import forbid_udp_between_nodes, hosts, only_run
from perf.path.peers import BringUp, available, chosen


def one_turn(bring_up: BringUp, seconds: int, *, quick: bool, relayed: bool) -> dict[str, Any]:
    with hosts() as made:
        if relayed:
            forbid_udp_between_nodes()
        try:
            return measure.everything(bring_up(made), seconds, quick=quick)
        except RuntimeError as error:
            raise RuntimeError(f"{error}\n{made.last_words()}") from None


def run(pairs: dict[str, BringUp], arguments: argparse.Namespace) -> dict[str, Any]:
    """All rounds; after each turn the figures so far are written, so that nothing is lost by an interruption."""
    report: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}",
        "relayed": arguments.relayed,
        "seconds": arguments.seconds,
        "results": {},
        "failures": [],
    }
    for number in range(arguments.rounds):
        for name, bring_up in pairs.items():
            print(f"round {number + 1}: {name}", file=sys.stderr)
            try:
                turn = one_turn(bring_up, arguments.seconds, quick=arguments.quick, relayed=arguments.relayed)
            except RuntimeError as error:
                print(f"{name} failed: {error}", file=sys.stderr)
                report["failures"].append({"round": number + 1, "name": name, "reason": str(error)})
                continue
            report["results"].setdefault(name, []).append(turn)
            if arguments.json:
                arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    return report


def show(report: dict[str, Any]) -> None:
    results = report["results"]
    print(f"{report['machine']}; {'relayed' if report['relayed'] else 'direct'}; medians")
    print(summary.aligned(summary.table(results)))
    print()
    print(summary.aligned(summary.ratios(results)))
    loads = [turn["load_before"] for rounds in results.values() for turn in rounds]
    if loads and max(loads) > (os.cpu_count() or 1):
        print(f"\nThe machine was busy with other things (load {max(loads):.1f}): read the ratios, not the figures.")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m perf.path", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=5, help="length of each TCP run")
    parser.add_argument("--rounds", type=int, default=1, help="how often every pair takes its turn")
    parser.add_argument("--relayed", action="store_true", help="UDP between the nodes is forbidden")
    parser.add_argument("--quick", action="store_true", help="no reverse, no datagrams, no pings under load")
    parser.add_argument("--only", default="", help="names of pairs, separated by commas")
    parser.add_argument("--network", choices=("auto", *networks.NETWORKS), default="auto")
    parser.add_argument("--list", action="store_true", help="name the pairs this machine can run")
    parser.add_argument("--json", type=Path, help="write all figures here")
    arguments = parser.parse_args()
    pairs = available(networks.choose(arguments.network), relayed=arguments.relayed)
    if arguments.list:
        print("\n".join(pairs))
        return 0
    names = chosen(parser, arguments.only, pairs)
    with only_run("perf.path", "iperf3", "ping", *(["nft"] if arguments.relayed else [])):
        report = run({name: pairs[name] for name in names}, arguments)
    show(report)
    return 0 if report["results"] and not report["failures"] else 1


if __name__ == "__main__":
    sys.exit(main())
