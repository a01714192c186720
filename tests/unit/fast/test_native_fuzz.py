"""A short turn of the C loops; `python -m tests.fuzz.campaign c_packet …` runs for as long as one likes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.fuzz import native

RUN = 20_000


@pytest.mark.parametrize("name", sorted(native.SEEDS))
def test_native_target_keeps_its_promises(name: str) -> None:
    """And most of the seeds are worth something: the functions under test see more than their first check."""
    parts = native.PARTS[name]() if name in native.PARTS else {}
    deep, broken, data = native.module().run(name, native.SEEDS[name](), RUN, 7, **parts)
    assert not broken, data
    assert deep > RUN // 50


def test_native_loop_reports_a_broken_promise() -> None:
    _, broken, data = native.module().run("no_repeats", [b"abc"], 100_000, 1)
    assert broken == 9
    assert data[0] == data[1]
    assert native.module().once("no_repeats", data) == 9
    assert native.module().once("no_repeats", b"ab") == 0


def test_native_loop_notices_a_read_beyond_the_input() -> None:
    """The process ends, with a sanitizer or without."""
    program = "from tests.fuzz.native import module; module().run('too_far', [b'abc'], 100_000, 1)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert ended.returncode != 0
    assert b"Traceback" not in ended.stderr
