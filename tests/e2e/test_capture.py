"""Packets of a node as other programs read them."""

from __future__ import annotations

import shutil
import signal
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshd.cli.commands.debug.dissector import SOURCE
from tests.e2e.labhosts import Coordinator, Lab, Node, program, running_lab, wait_until

pytestmark = pytest.mark.netns


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("capture"), "mt-cap") as made:
        yield made


@pytest.fixture(scope="module")
def captured(lab: Lab) -> Path:
    """A file with three pings of the host and one disco ping, written by `mesh debug capture`."""
    coordinator = Coordinator(lab)
    a, b = Node(lab, "a"), Node(lab, "b")
    for node in (a, b):
        node.up(coordinator)
    a.ping(b.ip, direct=True)
    path = lab.directory / "packets.pcap"
    command = [program("mesh"), f"--socket={a.socket}", "debug", "capture", "-o"]
    process = lab.start("a", "capture.log", *command, str(path))
    wait_until(lambda: path.exists() and path.stat().st_size >= 24, 10, "the header of the capture")
    lab.run("a", "ping", "-c", "3", "-i", "0.2", b.ip)
    a.mesh("ping", "--c=1", "--until-direct=false", b.ip)
    wait_until(lambda: len(records(path)) >= 7, 10, "the packets in the capture")
    process.popen.send_signal(signal.SIGINT)
    process.popen.wait(5)
    wait_until(lambda: "capture_ended" in a.output, 5, "the tap to be gone")
    assert lab.run("a", *command, "-", "extra", check=False).returncode == 1
    assert "Traceback" not in a.output
    assert a.stop() == 0
    return path


def records(path: Path) -> list[bytes]:
    """The data of every whole record."""
    data, at = path.read_bytes(), 24
    found = []
    while at + 16 <= len(data):
        kept = struct.unpack_from("<I", data, at + 8)[0]
        found.append(data[at + 16 : at + 16 + kept])
        at += 16 + kept
    return found


def test_capture_has_packets_of_both_directions_and_disco(captured: Path) -> None:
    """DB-03, api:debug-capture."""
    header = struct.unpack("<IHHiIII", captured.read_bytes()[:24])
    assert header == (0xA1B2C3D4, 2, 4, 0, 0, 65535, 147)
    by_path: dict[int, list[bytes]] = {}
    for record in records(captured):
        by_path.setdefault(struct.unpack_from("<H", record)[0], []).append(record[4:])
    assert set(by_path) == {0, 1, 254}
    requests = [packet for packet in by_path[0] if packet[9] == 1 and packet[20] == 8]
    replies = [packet for packet in by_path[1] if packet[9] == 1 and packet[20] == 0]
    assert (len(requests), len(replies)) == (3, 3)
    assert requests[0][12:16] == replies[0][16:20]


@pytest.mark.skipif(shutil.which("tshark") is None, reason="needs tshark")
def test_capture_is_read_by_tshark(captured: Path, tmp_path: Path) -> None:
    """DB-03: as it is, and taken apart with the dissector of `mesh debug capture --lua`."""

    def tshark(*arguments: str) -> str:
        done = subprocess.run(["tshark", *arguments, "-r", str(captured)], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert len(tshark().splitlines()) == len(records(captured))
    script = tmp_path / "dissector.lua"
    script.write_text(SOURCE)
    told = tshark("-X", f"lua_script:{script}")
    assert told.count("Echo (ping) request") == 3
    assert told.count("Echo (ping) reply") == 3
    assert "disco" in told
