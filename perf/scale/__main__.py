"""What networks of 10 to 100 000 peers cost a node: loading, one change, one packet, memory, status.

    python -m perf.scale [--sizes 10,1000,10000,100000] [--json FILE]

No network is touched and no privilege needed. Every size runs in a process of its own. Times are processor time.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from perf.micro.native import ROOT
from perf.scale import frames

TIMEOUT_S = 300
SIZES = (10, 1000, 10_000, 100_000)


def run(size: int) -> dict[str, Any]:
    """Figures of one size. RuntimeError when it could not be measured."""
    figures = _child(str(size), data=frames.whole(size))
    return figures | _child("plane", str(figures["admitted"]))


def _child(*arguments: str, data: bytes = b"") -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "perf.scale.child", *arguments],
        input=data,
        capture_output=True,
        cwd=ROOT,
        timeout=TIMEOUT_S,
    )
    if done.returncode:
        raise RuntimeError(f"perf.scale.child {' '.join(arguments)}: {done.stderr.decode()}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def rows(results: list[dict[str, Any]]) -> list[list[str]]:
    """A table: what, then one column for each size."""
    table = [["peers", *(f"{one['peers']:,}".replace(",", " ") for one in results)]]
    if any(one["admitted"] != one["peers"] for one in results):
        table.append(["of them admitted", *(f"{one['admitted']:,}".replace(",", " ") for one in results)])
    table.append(["load, CPU s", *(f"{one['load_cpu_s']:.3f}" for one in results)])
    table += [
        [f"{kind}, CPU ms (median)", *(f"{one['deltas'][kind]['median_ms']:.3f}" for one in results)]
        for kind in results[0]["deltas"]
    ]
    for name, label, digits in (
        ("lookup_active_ns", "longest prefix, 64 active peers, ns", 1),
        ("lookup_all_ns", "longest prefix, all peers in turn, ns", 1),
        ("filter_data_ns", "filter, TCP data, ns", 1),
        ("filter_syn_ns", "filter, TCP SYN accepted, ns", 1),
        ("filter_denied_ns", "filter, TCP SYN denied, ns", 1),
        ("pss_mb", "PSS, MB", 1),
        ("bytes_per_peer", "memory per peer, bytes", 0),
        ("plane_pss_bytes_per_peer", "of it the data plane (PSS)", 0),
        ("fast_bytes_per_peer", "of it C memory of _fast (malloc)", 0),
        ("status_s", "status --json, CPU s", 4),
    ):
        table.append([label, *(f"{one[name]:.{digits}f}" for one in results)])
    return table


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m perf.scale", description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=frames.sizes, default=SIZES, help="numbers of peers, separated by commas")
    parser.add_argument("--json", type=Path, help="write all figures here")
    arguments = parser.parse_args()
    results: list[dict[str, Any]] = []
    failed = False
    for size in arguments.sizes:
        print(f"{size} peers", file=sys.stderr)
        try:
            results.append(run(size))
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            print(f"perf.scale: {size} peers: {error}", file=sys.stderr)
            failed = True
        if arguments.json:
            arguments.json.write_text(json.dumps({"sizes": results}, indent=1) + "\n")
    if not results:
        return 1
    table = rows(results)
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    for line in table:
        print("  ".join([line[0].ljust(widths[0]), *(t.rjust(w) for t, w in zip(line[1:], widths[1:], strict=True))]))
    for one in results:
        if one["admitted"] != one["peers"]:
            print(f"{one['peers']} peers: only {one['admitted']} came in, {one['refused_because']}; costs are of those")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
