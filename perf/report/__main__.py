"""Measures, and writes a Markdown report with plots; or only writes, from JSON measured before.

    python -m perf.report [--out DIR] [--full]            measure everything, about 10 minutes (--full: an hour)
    python -m perf.report [--out DIR] FILE.json ...        write from what --json of the other commands wrote

The default directory is perf/results, which is not part of the repository.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from perf.micro.native import ROOT
from perf.report.sections import section

DEFAULT = Path(__file__).parents[1] / "results"

Command = tuple[str, ...]


def commands(*, full: bool, root: bool) -> dict[str, Command]:
    """What is run, by the name of the file that it leaves."""
    rounds = ("--rounds", "5", "--seconds", "8") if full else ("--rounds", "1", "--seconds", "3")
    found: dict[str, Command] = {}
    if root:
        found["path-direct"] = ("perf.path", *rounds)
        found["path-relayed"] = ("perf.path", "--relayed", *rounds)
    found["scale"] = ("perf.scale",)
    found["instructions"] = ("perf.instructions",)
    return found


def measure(out: Path, *, full: bool) -> list[Path]:
    """Run all commands; one that fails is reported, and what it wrote until then is used."""
    if os.geteuid() != 0:
        print("perf.report: not root, so the paths are left out", file=sys.stderr)
    files = []
    for name, (module, *options) in commands(full=full, root=os.geteuid() == 0).items():
        file = out / f"{name}.json"
        file.unlink(missing_ok=True)
        done = subprocess.run([sys.executable, "-m", module, *options, "--json", str(file)], cwd=ROOT, check=False)
        if done.returncode:
            print(f"perf.report: {module} ended with status {done.returncode}", file=sys.stderr)
        if file.exists():
            files.append(file)
    return files


def write(files: list[Path], out: Path) -> Path:
    """The report of these files. ValueError: one of them is none of ours."""
    parts = [f"# Measurements of meshd\n\nWritten {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}."]
    for file in files:
        try:
            made = section(json.loads(file.read_text()))
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None
        except (AttributeError, IndexError, KeyError, TypeError):
            raise ValueError(f"{file}: it is not whole, or another version wrote it") from None
        parts.append(made.text)
        for name, plot in made.plots.items():
            (out / name).write_text(plot)
    target = out / "report.md"
    target.write_text("\n\n".join(parts) + "\n")
    return target


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m perf.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path, help="JSON written by perf.path, perf.scale, perf.instructions")
    parser.add_argument("--out", type=Path, default=DEFAULT, help="directory of the report")
    parser.add_argument("--full", action="store_true", help="five rounds of long runs, for figures to be quoted")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    files = arguments.files or measure(arguments.out, full=arguments.full)
    try:
        print(write(files, arguments.out))
    except (OSError, ValueError) as error:
        print(f"perf.report: {error}", file=sys.stderr)
        return 1
    return 0 if files else 1


if __name__ == "__main__":
    sys.exit(main())
