"""Instructions of fixed work in each hot function of ``meshd._fast``, counted by valgrind.

    python -m perf.instructions [--check | --record] [--json FILE]

Without option it prints the counts. ``--check`` compares them with ``perf/baseline.json`` and fails when one is more
than 5 % above; a kind of machine (compiler, processor, C library, valgrind) without baseline is reported and passes.
``--record`` stores the counts of this kind of machine: do so, in the same change, when more instructions are meant.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from perf.instructions import baseline, callgrind


def check(key: str, counts: baseline.Counts) -> int:
    before = baseline.stored(key)
    if before is None:
        print(f"perf.instructions: no baseline for this kind of machine ({key}); nothing was compared or recorded.")
        print("perf.instructions: python -m perf.instructions --record stores one.")
        return 0
    worse, notes = baseline.compare(before, counts)
    for note in notes:
        print(f"note: {note}")
    for line in worse:
        print(f"WORSE: {line}")
    print(f"perf.instructions: {len(counts)} cases, {len(worse)} worse by more than {baseline.TOLERANCE:.0%}")
    return 1 if worse else 0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m perf.instructions", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--check", action="store_true", help="fail when a count grew by more than 5 %%")
    choice.add_argument("--record", action="store_true", help="store the counts as the baseline of this machine")
    parser.add_argument("--json", type=Path, help="write the counts here")
    arguments = parser.parse_args()
    if not callgrind.available():
        print("perf.instructions: valgrind with its headers is needed (scripts/setup test)", file=sys.stderr)
        return 2
    key = baseline.machine_key()
    try:
        counts = callgrind.count()
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        print(f"perf.instructions: {error}", file=sys.stderr)
        return 2
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": key, "counts": counts}, indent=1) + "\n")
    if arguments.check:
        return check(key, counts)
    width = max(map(len, counts))
    for name, instructions in counts.items():
        print(f"{name:{width}}  {instructions:>10,.1f}")
    if arguments.record:
        baseline.store(key, counts)
        print(f"recorded for {key}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
