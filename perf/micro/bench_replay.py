"""The replay window: packets in order, and jumps that clear blocks."""

from __future__ import annotations

from meshd._fast.replay import Window
from perf.micro.harness import Case, loops, run


def cases() -> list[Case]:
    return [(f"replay step {step}", loops.replay, (Window(), step)) for step in (1, 64, 640)]


if __name__ == "__main__":
    run(cases())
