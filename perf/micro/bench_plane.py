"""Segmentation of super packets, merging of received packets, and the ring to the event loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from perf.micro.harness import Case, run
from perf.micro.native import load
from perf.micro.packets import flow, super_tcp

loops: Any = load(Path(__file__).with_name("planeloops.pyx"))


def cases() -> list[Case]:
    return [
        *((f"split 64 KiB at {mss}", loops.split, super_tcp(65535, mss)) for mss in (1228, 536)),
        *((f"merge {count} packets", loops.merge, (flow(count, 1228), 1)) for count in (2, 48)),
        *((f"ring put and take {size}", loops.put_take, (bytes(size),)) for size in (16, 148, 1312)),
    ]


if __name__ == "__main__":
    run(cases())
