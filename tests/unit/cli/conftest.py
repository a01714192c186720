from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from meshd.testing.localapi import LocalApiThread


@pytest.fixture
def localapi(tmp_path: Path) -> Iterator[LocalApiThread]:
    with LocalApiThread(str(tmp_path / "meshd.sock")) as server:
        yield server


class Outcome:
    def __init__(self, code: int, stdout: str, stderr: str) -> None:
        self.code = code
        self.out = stdout
        self.err = stderr


@pytest.fixture
def mesh(localapi: LocalApiThread, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Run `mesh` in this process against the fake node."""
    from meshd.cli.main import main

    monkeypatch.setenv("MESHD_SOCKET", localapi.path)
    monkeypatch.setenv("MESHD_DEBUG", "1")
    monkeypatch.delenv("SSH_CLIENT", raising=False)

    def run(*args: str) -> Outcome:
        capsys.readouterr()
        code = main(list(args))
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run
