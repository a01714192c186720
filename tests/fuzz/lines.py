"""Which steps from line to line of `meshd` an input takes: what tells an interesting input from others.

Tracing makes a parser many times slower, so a campaign looks at a sample of its inputs only.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

_PACKAGE = str(Path(__file__).parents[2] / "meshd")


class LineTracer:
    """Remembers all steps seen so far."""

    def __init__(self) -> None:
        self._seen: set[tuple[int, int, CodeType]] = set()
        self._ours: dict[CodeType, bool] = {}
        self._last = 0
        self._new = False

    def __len__(self) -> int:
        return len(self._seen)

    def run(self, target: Callable[[bytes], None], data: bytes) -> bool:
        """Run the target; whether a step was new. Exceptions pass through."""
        self._last, self._new = 0, False
        before = sys.gettrace()
        sys.settrace(self._call)
        try:
            target(data)
        finally:
            sys.settrace(before)
        return self._new

    def _call(self, frame: FrameType, event: str, argument: Any) -> Callable[..., Any] | None:
        code = frame.f_code
        ours = self._ours.get(code)
        if ours is None:
            ours = self._ours[code] = code.co_filename.startswith(_PACKAGE)
        return self._line if ours else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Callable[..., Any]:
        if event == "line":
            line = frame.f_lineno
            step = (self._last, line, frame.f_code)
            self._last = line
            if step not in self._seen:
                self._seen.add(step)
                self._new = True
        return self._line
