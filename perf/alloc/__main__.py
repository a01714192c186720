"""Memory requests of the packet threads while they carry packets: there must be none.

    python -m perf.alloc

Builds a small interposer for malloc and mmap, preloads it into a process with two data planes on loopback, and prints
what each kind of traffic asked for. Exit 1 when that is not nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from perf.micro.native import ROOT

TIMEOUT_S = 60


def measure() -> dict[str, dict[str, int]]:
    """Figures by kind of traffic, and ``check``. RuntimeError when the traffic could not be made."""
    with tempfile.TemporaryDirectory(prefix="meshd-alloc-") as directory:
        library = Path(directory, "counting.so")
        source = Path(__file__).with_name("counting.c")
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
        done = subprocess.run(
            [sys.executable, "-m", "perf.alloc.traffic"],
            env={**os.environ, "LD_PRELOAD": str(library)},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
    if done.returncode:
        raise RuntimeError(f"perf.alloc.traffic: {done.stdout}{done.stderr}")
    found: dict[str, dict[str, int]] = json.loads(done.stdout)
    return found


def main() -> int:
    try:
        found = measure()
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        print(f"perf.alloc: {error}", file=sys.stderr)
        return 2
    check = found.pop("check")
    for name, figures in found.items():
        print(f"{name:28} {figures['delivered']:>6} delivered  {figures['requests']:>4} memory requests")
    if not check["noticed"] or not check["main"]:
        print("perf.alloc: the interposer counts nothing, so the figures mean nothing", file=sys.stderr)
        return 2
    return 1 if any(figures["requests"] for figures in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
