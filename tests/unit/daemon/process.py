"""A real meshd in a process of its own, without tunnel interface, for tests of what a daemon does as a program."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from meshd.cli.client import LocalClient
from meshd.cli.errors import CliError

PATIENCE_S = 20.0


class Daemon:
    """``start`` runs it; everything it says goes to a file."""

    def __init__(self, directory: Path, *flags: str, env: Mapping[str, str] | None = None) -> None:
        self.directory = directory
        self.socket = str(directory / "meshd.sock")
        self.log = directory / "log"
        self._flags = flags
        self._env = {**os.environ, "JOURNAL_STREAM": "1:1", **(env or {})}
        self.client = LocalClient(self.socket)

    def command(self) -> list[str]:
        defaults = [f"--statedir={self.directory}/state", f"--socket={self.socket}", "--tun=userspace-networking"]
        return [sys.executable, "-m", "meshd.daemon.main", *defaults, "--syspolicy-file=", *self._flags]

    def start(self, pass_fds: Sequence[int] = ()) -> None:
        self.start_without_waiting(pass_fds)
        self.wait(self._answers, "it to answer")

    def start_without_waiting(self, pass_fds: Sequence[int] = ()) -> None:
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                self.command(), stdout=out, stderr=subprocess.STDOUT, env=self._env, pass_fds=pass_fds
            )

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.output
        with contextlib.suppress(CliError):
            self.client.status(peers=False)
            return True
        return False

    @property
    def output(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def wait(self, condition: Any, what: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end, f"waited in vain for {what}\n{self.output}"
            time.sleep(0.02)

    def hang_up(self) -> None:
        os.kill(self.process.pid, signal.SIGHUP)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)


@contextlib.contextmanager
def running(directory: Path, *flags: str, env: Mapping[str, str] | None = None) -> Iterator[Daemon]:
    daemon = Daemon(directory, *flags, env=env)
    try:
        daemon.start()
        yield daemon
    finally:
        if daemon.process.poll() is None:
            daemon.process.kill()
            daemon.process.wait()


def refused(directory: Path, *flags: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A daemon that must not start; what it said and its status."""
    daemon = Daemon(directory, *flags, env=env)
    return subprocess.run(daemon.command(), capture_output=True, text=True, timeout=PATIENCE_S, env=daemon._env)


def write_json(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path
