"""What the service manager is told, over a real socket."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshd.daemon.notify import ServiceNotifier
from tests.unit.daemon.process import running


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(20)
        yield listener


def test_daemon_tells_the_service_manager_that_it_listens_and_how_it_is(tmp_path: Path, manager: socket.socket) -> None:
    """SD-01: READY=1 once it listens, then a line for each state; DM-08."""
    with running(tmp_path, env={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as daemon:
        assert manager.recv(1000) == b"READY=1"
        assert Path(daemon.socket).exists()
        assert manager.recv(1000) == b"STATUS=Needs login: "
        assert daemon.stop() == 0


def test_notifier_understands_the_abstract_namespace(tmp_path: Path) -> None:
    """SD-01: a leading @."""
    name = f"@meshd-test-{tmp_path.name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name[1:])
        listener.settimeout(5)
        ServiceNotifier(name).ready()
        assert listener.recv(100) == b"READY=1"


def test_notifier_repeats_no_status_and_says_nothing_to_nobody(tmp_path: Path, manager: socket.socket) -> None:
    """SD-01."""
    notifier = ServiceNotifier(str(tmp_path / "notify"))
    assert notifier.present
    for text in ("Stopped", "Stopped", "Connected; u; 100.64.0.1"):
        notifier.status(text)
    assert manager.recv(100) == b"STATUS=Stopped"
    assert manager.recv(100) == b"STATUS=Connected; u; 100.64.0.1"
    notifier.status("Connected; u\nMAINPID=1; " + "x" * 100_000)
    said = manager.recv(10_000)
    assert said.startswith(b"STATUS=Connected; u MAINPID=1; x")
    assert (said.count(b"\n"), len(said) < 2000) == (0, True)
    assert not ServiceNotifier("").present
    ServiceNotifier("").ready()
    ServiceNotifier(str(tmp_path / "gone")).ready()
