"""Programs of the host say what they like."""

from __future__ import annotations

import pytest

from meshd.base.errors import MeshdError
from meshd.host.linux.program import run_program


def test_run_program_bytes_that_are_no_utf8_come_and_go() -> None:
    """A comment in Latin-1 among somebody's iptables rules kept all of ours from being set."""
    said = run_program(("printf", r"-A INPUT -m comment --comment caf\351"), "")
    assert said.startswith("-A INPUT")
    assert run_program(("od", "-An", "-tx1"), said[-1]).split() == ["e9"]


def test_run_program_complaint_can_be_shown() -> None:
    with pytest.raises(MeshdError) as caught:
        run_program(("sh", "-c", r"printf 'caf\351\n' >&2; exit 3"), "")
    assert caught.value.message.encode().endswith("caf\ufffd".encode())
