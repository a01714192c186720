"""The part that runs under callgrind: every case twice, with two loop counts. See ``callgrind.py``."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

from perf.instructions.cases import cases
from perf.micro.native import load

marks: Any = load(Path(__file__).with_name("marks.pyx"))


def main() -> None:
    gc.disable()
    for least, (name, function, arguments) in cases():
        function(least, *arguments)  # tables, flows and lazily bound symbols are there from now on
        for loops in (least, 3 * least):
            marks.count(f"{name}:{loops}".encode(), function, loops, arguments)


if __name__ == "__main__":
    main()
