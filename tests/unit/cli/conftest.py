from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from meshd.testing.localapi import LocalApiThread
from tests.unit.cli.stubdaemon import StubDaemon


@pytest.fixture
def localapi(tmp_path: Path) -> Iterator[LocalApiThread]:
    with LocalApiThread(str(tmp_path / "meshd.sock")) as server:
        yield server


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[StubDaemon]:
    daemon = StubDaemon(str(tmp_path / "stub.sock"))
    yield daemon
    daemon.close()


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[str]:
    """The socket of a daemon that takes connections and never answers, as one that is stopped (SIGSTOP)."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "silent.sock"))
        listener.listen()
        yield str(tmp_path / "silent.sock")


class Outcome:
    def __init__(self, code: int, stdout: str, stderr: str) -> None:
        self.code = code
        self.out = stdout
        self.err = stderr


def _runner(path: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    from meshd.cli.main import main

    monkeypatch.setenv("MESHD_SOCKET", path)
    monkeypatch.setenv("MESHD_DEBUG", "1")
    monkeypatch.delenv("SSH_CLIENT", raising=False)

    def run(*args: str) -> Outcome:
        capsys.readouterr()
        code = main(list(args))
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def mesh(localapi: LocalApiThread, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Run `mesh` in this process against the fake node."""
    return _runner(localapi.path, capsys, monkeypatch)


@pytest.fixture
def mesh_to_stub(stub: StubDaemon, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Run `mesh` in this process against the stub daemon."""
    return _runner(stub.path, capsys, monkeypatch)
