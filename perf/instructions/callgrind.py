"""Runs the cases under valgrind's callgrind and reads the counts back.

One process does everything; callgrind counts only while a case runs. The work is done with two loop counts,
and the difference is what the work itself costs: calls, argument parsing and the interpreter cancel out.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from perf.micro.native import ROOT

TIMEOUT_S = 170


def available() -> bool:
    """Whether valgrind and its headers are installed."""
    return shutil.which("valgrind") is not None and Path("/usr/include/valgrind/callgrind.h").exists()


def count() -> dict[str, float]:
    """Instructions per piece of work, by case. RuntimeError with valgrind's words when it fails."""
    with tempfile.TemporaryDirectory(prefix="meshd-callgrind-") as directory:
        done = subprocess.run(
            [
                "valgrind",
                "--tool=callgrind",
                "--instr-atstart=no",
                f"--callgrind-out-file={directory}/out",
                sys.executable,
                "-m",
                "perf.instructions.counted",
            ],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": "0", "MESHD_AEAD": ""},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        if done.returncode:
            raise RuntimeError(f"callgrind failed:\n{done.stdout}{done.stderr}")
        return differences(read(path) for path in Path(directory).iterdir())


def read(path: Path) -> tuple[str, int] | None:
    """Name and count of one output file; None for the one at the end of the run, which has no name."""
    text = path.read_text(errors="replace")
    name = re.search(r"^desc: Trigger: Client Request: (.+)$", text, re.MULTILINE)
    total = re.search(r"^(?:totals|summary): (\d+)", text, re.MULTILINE)
    return (name[1], int(total[1])) if name and total else None


def differences(found: Iterable[tuple[str, int] | None]) -> dict[str, float]:
    """Per case, the difference of its two counts over the difference of its loops."""
    counts: dict[str, dict[int, int]] = {}
    for one in found:
        if one is not None:
            name, _, loops = one[0].rpartition(":")
            counts.setdefault(name, {})[int(loops)] = one[1]
    return {name: _slope(by) for name, by in sorted(counts.items())}


def _slope(by_loops: dict[int, int]) -> float:
    few, many = min(by_loops), max(by_loops)
    if few == many:
        raise RuntimeError("a case was counted only once")
    return round((by_loops[many] - by_loops[few]) / (many - few), 1)
