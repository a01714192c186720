"""What the command line prints is for any terminal and any pipe."""

from __future__ import annotations

from pathlib import Path

import meshd.cli

FOLDER = Path(meshd.cli.__file__).parent
PROGRESS = FOLDER / "progress.py"


def test_no_command_prints_colours() -> None:
    """NO_COLOR asks for nothing: the only sequence for terminals clears the line of a progress display."""
    for path in FOLDER.rglob("*.py"):
        text = path.read_text()
        sequences = text.count("\\x1b") + text.count("\\033") + text.count("\\u001b") + text.count("\x1b")
        assert sequences == (1 if path == PROGRESS else 0), path
    assert r'"\r\x1b[K"' in PROGRESS.read_text()
