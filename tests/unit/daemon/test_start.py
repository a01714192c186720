"""What a daemon needs before it begins, and what it does not take from others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from meshd.base.errors import MeshdError
from meshd.daemon.main import claim, find_programs
from meshd.node.store import FileStore

MESHD = str(Path(sys.executable).parent / "meshd")


def start(directory: Path, *flags: str) -> subprocess.Popen[str]:
    command = [MESHD, "--tun=userspace-networking", "--port=0", f"--statedir={directory}", f"--socket={directory}/s"]
    return subprocess.Popen([*command, *flags], stderr=subprocess.PIPE, text=True)


def test_state_on_a_device_is_refused_and_the_device_stays(tmp_path: Path) -> None:
    """The state file is replaced when it is written."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(MeshdError, match="is no regular file") as caught:
        FileStore(pipe)
    assert caught.value.code == "usage"
    assert pipe.is_fifo()
    with pytest.raises(MeshdError, match="names no file"):
        FileStore(Path("/"))


def test_second_daemon_and_cleanup_leave_a_state_directory_in_use_alone(tmp_path: Path) -> None:
    first = start(tmp_path)
    try:
        deadline = time.monotonic() + 20
        while not (tmp_path / "s").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        journal = tmp_path / "host-journal.json"
        journal.write_text("{}")
        for flags in ((f"--socket={tmp_path}/other",), ("--cleanup",)):
            second = start(tmp_path, *flags)
            _, told = second.communicate(timeout=20)
            assert second.returncode == 1
            assert f"another meshd runs on the state directory {tmp_path} already" in told
        assert journal.exists()
    finally:
        first.terminate()
        first.communicate(timeout=20)
    assert start(tmp_path, "--cleanup").wait(20) == 0


@pytest.mark.parametrize("files", [8, 12])
def test_daemon_with_too_few_open_files_says_so(tmp_path: Path, files: int) -> None:
    """Wherever the last one goes; it was an internal error."""
    limited = ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", MESHD, "--tun=userspace-networking"]
    done = subprocess.run(
        [*limited, f"--statedir={tmp_path}", f"--socket={tmp_path}/s"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "internal error" not in done.stderr
    assert "ulimit -n" in done.stderr


def test_state_directory_that_cannot_be_written_needs_no_claim(tmp_path: Path) -> None:
    claim(tmp_path / "missing")


def test_programs_are_found_without_a_path() -> None:
    environment = {"PATH": "/opt/x:/usr/bin"}
    find_programs(environment)
    assert environment["PATH"].startswith("/opt/x:/usr/bin:")
    assert {"/usr/sbin", "/sbin"} <= set(environment["PATH"].split(":"))
    bare: dict[str, str] = {}
    find_programs(bare)
    assert "/usr/sbin" in bare["PATH"].split(":")
    chosen = {"PATH": "/nix/profile/bin"}
    find_programs(chosen)
    assert chosen["PATH"] == "/nix/profile/bin"


def test_reload_signal_does_not_end_a_daemon_that_starts(tmp_path: Path) -> None:
    daemon = start(tmp_path)
    try:
        deadline = time.monotonic() + 3
        while not (tmp_path / "s").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        daemon.send_signal(signal.SIGHUP)
        time.sleep(0.3)
        assert daemon.poll() is None
    finally:
        daemon.terminate()
        assert daemon.wait(20) == 0
