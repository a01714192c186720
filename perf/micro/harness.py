"""The C loops, and one way to run a table of them under pyperf."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyperf

from perf.micro.native import load

loops: Any = load(Path(__file__).with_name("loops.pyx"))

Case = tuple[str, Callable[..., float], tuple[Any, ...]]
"""Name, a function of `loops` that gives seconds, and its further arguments."""


def run(cases: list[Case]) -> None:
    """Measures every case; the command line is pyperf's (--fast, -o FILE, ...)."""
    runner = pyperf.Runner()
    for name, function, arguments in cases:
        runner.bench_time_func(name, function, *arguments)
