"""Stored counts per kind of machine, and the comparison with new ones."""

from __future__ import annotations

import json
import platform
import subprocess
from pathlib import Path

BASELINE = Path(__file__).parents[1] / "baseline.json"
TOLERANCE = 0.05
_LEVELS = ("avx2", "avx", "sse4_2")  # what valgrind's processor can do depends on the real one, up to AVX2

Counts = dict[str, float]


def machine_key() -> str:
    """What counts depend on: architecture, vector extensions, compiler, C library, valgrind."""
    compiler = _first_line("cc", "--version").split(" ", 1)[0] + "-" + _first_line("cc", "-dumpfullversion")
    return " ".join(
        (platform.machine(), _vectors(), compiler, "-".join(platform.libc_ver()), _first_line("valgrind", "--version"))
    )


def stored(key: str, path: Path = BASELINE) -> Counts | None:
    """The counts of this kind of machine; None when there are none."""
    found: Counts | None = _all(path).get(key)
    return found


def store(key: str, counts: Counts, path: Path = BASELINE) -> None:
    """Replace the counts of this kind of machine."""
    everything = _all(path) | {key: counts}
    path.write_text(json.dumps(everything, indent=1, sort_keys=True) + "\n")


def compare(before: Counts, now: Counts, tolerance: float = TOLERANCE) -> tuple[list[str], list[str]]:
    """What got worse (a case that vanished counts as that), and what else deserves a word."""
    worse, notes = [], []
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if old is None:
            notes.append(f"{name}: new, {new:g} instructions; not in the baseline")
        elif new is None:
            worse.append(f"{name}: in the baseline, but not measured")
        elif new > old * (1 + tolerance):
            worse.append(f"{name}: {old:g} -> {new:g} instructions ({new / old - 1:+.1%})")
        elif new < old * (1 - tolerance):
            notes.append(f"{name}: {old:g} -> {new:g} instructions ({new / old - 1:+.1%}); record it")
    return worse, notes


def _all(path: Path) -> dict[str, Counts]:
    found: dict[str, Counts] = json.loads(path.read_text()) if path.exists() else {}
    return found


def _first_line(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0].strip()


def _vectors() -> str:
    flags = Path("/proc/cpuinfo").read_text().split()
    return next((level for level in _LEVELS if level in flags), "plain")
