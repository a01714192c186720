"""What a campaign keeps of one target: its counts and its findings, in a folder."""

from __future__ import annotations

import hashlib
import json
import traceback
from pathlib import Path
from typing import Any

SAME_PLACE_LIMIT = 3
"""Findings kept that have the same fault."""


def place_of(error: BaseException) -> str:
    """What two inputs with the same fault have in common: the error and the last line of the traceback."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} {Path(last.filename).name}:{last.lineno}"


class State:
    """Read from the folder when there is one."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder / name
        self.executions = 0
        self.seconds = 0.0
        self.memory_kib = 0
        self.findings: dict[str, int] = {}
        """How often each fault was seen."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if (file := self.folder / "state.json").exists():
            kept = json.loads(file.read_text())
            self.executions, self.seconds, self.findings = kept["executions"], kept["seconds"], kept["findings"]

    def save(self, more: dict[str, Any] | None = None) -> None:
        state = {"executions": self.executions, "seconds": round(self.seconds, 1), "findings": self.findings}
        (self.folder / "state.json").write_text(json.dumps(state | (more or {})))

    def is_news(self, place: str) -> bool:
        """Count a fault; whether its input is worth keeping."""
        self.findings[place] = self.findings.get(place, 0) + 1
        return self.findings[place] <= SAME_PLACE_LIMIT

    def keep(self, place: str, data: bytes, text: str) -> None:
        """Write a finding down."""
        path = self.folder / "findings" / hashlib.sha256(data).hexdigest()[:16]
        path.parent.mkdir(exist_ok=True)
        path.with_suffix(".bin").write_bytes(data)
        path.with_suffix(".txt").write_text(f"{data!r}\n\n{text}")
        print(f"{self.name}: FINDING {place}: {path}.txt", flush=True)

    def found(self, place: str, data: bytes, text: str) -> None:
        """`is_news` and `keep` in one."""
        if self.is_news(place):
            self.keep(place, data, text)

    def line(self, corpus: int) -> str:
        rate = self.executions / self.seconds if self.seconds else 0.0
        return (
            f"{self.name:26} {self.executions:>10} executions {rate:>8.0f}/s "
            f"{corpus:>5} inputs {sum(self.findings.values()):>3} findings {self.memory_kib >> 10:>5} MiB"
        )
