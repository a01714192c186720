"""Our programs with standard streams that are closed, full or left by their reader."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
PROGRAMS = ("meshd", "mesh", "mesh-coord", "mesh-relay")


def shell(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_standard_streams_may_be_closed(program: str, closed: str) -> None:
    done = shell(f"{BIN / program} --help {closed}")
    assert done.returncode == 0
    assert done.stderr == ""


@pytest.mark.parametrize("program", ["meshd", "mesh"])
def test_output_that_cannot_be_written_is_one_line(program: str) -> None:
    done = shell(f"{BIN / program} --help > /dev/full")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [done.stderr.strip()]
    assert done.stderr.endswith("cannot write the output: No space left on device\n")


@pytest.mark.parametrize("program", PROGRAMS)
def test_reader_that_left_gets_no_complaint(program: str) -> None:
    assert shell(f"{BIN / program} --help | true").stderr == ""
