"""Beside a genuine systemd-resolved, on a bus of its own: names of the mesh go to us, all others where they went."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.labhosts import Coordinator, Lab, Node, Process, program, running_lab, wait_until
from tests.interop.genuine import needs

RESOLVED = shutil.which("systemd-resolved", path=os.environ["PATH"] + ":/lib/systemd:/usr/lib/systemd") or ""
pytestmark = [
    pytest.mark.netns,
    pytest.mark.interop,
    pytest.mark.skipif(not RESOLVED, reason="systemd-resolved is not on PATH"),
    *needs("busctl", "dbus-daemon"),
]

UPSTREAM = Path(__file__).parents[1] / "e2e/upstream.py"
BUS = "unix:path=/run/dbus/system_bus_socket"
STUB = "# This is /run/systemd/resolve/stub-resolv.conf managed by man:systemd-resolved(8).\nnameserver 127.0.0.53\n"
CONFIG = f"""<busconfig>
  <type>system</type><listen>{BUS}</listen><auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_type="method_call"/><allow send_type="signal"/>
    <allow send_destination="*"/><allow receive_sender="*"/><allow receive_type="signal"/>
  </policy>
</busconfig>
"""
USER, UID = "systemd-resolve", 987


class Inside(Lab):
    """Host ``a`` with a /run of its own, in which a bus and systemd-resolved live."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab.directory, lab.name)
        self.lab = lab
        own = Path(f"/etc/netns/{lab.name}-a")
        (own / "resolv.conf").write_text(STUB)
        for name, line in (("passwd", f"{USER}:x:{UID}:{UID}::/:/bin/false"), ("group", f"{USER}:x:{UID}:")):
            (own / name).write_text(Path("/etc", name).read_text() + line + "\n")
        (lab.directory / "bus.conf").write_text(CONFIG)
        command = "mount -t tmpfs tmpfs /run && mkdir /run/dbus && exec dbus-daemon --nofork --nopidfile --config-file"
        self.bus = lab.start("a", "bus.log", "sh", "-c", f'{command}="$0"', str(lab.directory / "bus.conf"))
        self.enter = ("nsenter", "-m", "-t", str(self.bus.popen.pid))
        self.environment = {"DBUS_SYSTEM_BUS_ADDRESS": BUS, "LD_LIBRARY_PATH": "/usr/lib/x86_64-linux-gnu/systemd"}
        there = ("test", "-S", "/run/dbus/system_bus_socket")
        wait_until(lambda: self.run("a", *there, check=False).returncode == 0, 10, "a bus")
        self.resolved = self.start_resolved()

    def start_resolved(self) -> Process:
        """With a name server of its own for all names but those of links."""
        command = "mkdir -p /run/systemd/resolved.conf.d; printf '[Resolve]\\nDNS=198.51.100.1\\nDNSSEC=no\\n'"
        command += ' >/run/systemd/resolved.conf.d/test.conf; exec "$0"'
        started = self.start("a", "resolved.log", "sh", "-c", command, RESOLVED)
        wait_until(self.links, 20, "systemd-resolved to answer")
        return started

    def start(self, host: str, log: str, *command: str, environment: dict[str, str] | None = None) -> Process:
        return self.lab.start(host, log, *self.enter, *command, environment=self.environment | (environment or {}))

    def run(
        self, host: str, *command: str, check: bool = True, seconds: float = 60
    ) -> subprocess.CompletedProcess[str]:
        return self.lab.run(host, *self.enter, *command, check=check, seconds=seconds)

    def busctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("a", "env", f"DBUS_SYSTEM_BUS_ADDRESS={BUS}", "busctl", *arguments, check=False)

    def links(self) -> str:
        """The name servers of all links."""
        manager = ("org.freedesktop.resolve1", "/org/freedesktop/resolve1", "org.freedesktop.resolve1.Manager")
        return self.busctl("get-property", *manager, "DNS").stdout

    def finds(self, node: Node) -> bool:
        """By its whole name: short ones want the search domains in the file that systemd-resolved keeps."""
        return self.address(node.status()["Self"]["DNSName"]) == node.ip

    def address(self, name: str) -> str:
        found = self.run("a", "getent", "ahostsv4", name, check=False).stdout.split()
        return found[0] if found else ""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("resolved"), "mt-resolved") as made:
        yield made


@pytest.fixture(scope="module")
def host(lab: Lab) -> Inside:
    server = lab.start("net", "upstream.log", program("python"), str(UPSTREAM), "198.51.100.1")
    wait_until(lambda: "ready" in server.output, 10, "the name server")
    return Inside(lab)


@pytest.fixture(scope="module")
def coordinator(lab: Lab) -> Coordinator:
    return Coordinator(lab)


@pytest.fixture(scope="module")
def b(lab: Lab, coordinator: Coordinator) -> Node:
    node = Node(lab, "b", "--tun=mesh0")
    node.up(coordinator, "--accept-dns=false")
    return node


@pytest.fixture
def a(host: Inside, coordinator: Coordinator, b: Node) -> Iterator[Node]:
    node = Node(host, "a")
    node.up(coordinator)
    wait_until(lambda: node.peer("node-b"), 10, "a to know b")
    wait_until(lambda: host.finds(b), 20, "the name")
    yield node
    assert node.stop() == 0
    assert "100 100 100 100" not in host.links()
    assert Path(f"/etc/netns/{host.name}-a/resolv.conf").read_text() == STUB


def test_resolved_asks_us_about_the_mesh_alone(host: Inside, a: Node, b: Node) -> None:
    """DN-11: systemd-resolved with MatchDomains; its file is not touched."""
    assert " 2 4 100 100 100 100" in host.links()
    assert host.finds(b)
    assert "search mesh.internal" in host.run("a", "cat", "/run/systemd/resolve/stub-resolv.conf").stdout
    assert host.address("www.example") == "192.0.2.1"
    assert Path(f"/etc/netns/{host.name}-a/resolv.conf").read_text() == STUB
    assert "www.example" in (host.directory / "upstream.log").read_text()
    assert "node-b" not in (host.directory / "upstream.log").read_text()
    assert a.status()["Health"] in (None, [])
    assert "198.51.100.1" in a.mesh("dns", "status").stdout


def test_resolved_started_anew_still_knows(host: Inside, a: Node, b: Node) -> None:
    """After a restart that forgot everything it is told again."""
    host.resolved.stop()
    host.run("a", "rm", "-rf", "/run/systemd/resolve")
    host.resolved = host.start_resolved()
    wait_until(lambda: host.finds(b), 30, "the name")


def test_resolved_is_told_nothing_after_accept_dns_false(host: Inside, a: Node, b: Node) -> None:
    """DN-02."""
    a.mesh("set", "--accept-dns=false")
    wait_until(lambda: "100 100 100 100" not in host.links(), 10, "it to be taken back")
    assert host.address("www.example") == "192.0.2.1"
    a.mesh("set", "--accept-dns=true")
    wait_until(lambda: host.finds(b), 20, "the name")


def test_resolved_after_a_kill_knows_nothing_of_us(host: Inside, a: Node, b: Node) -> None:
    """With the interface goes what was said of it; the next start begins anew."""
    a.stop(signal.SIGKILL)
    assert host.address("www.example") == "192.0.2.1"
    assert "100 100 100 100" not in host.links()
    host.run("a", program("meshd"), "--cleanup", f"--statedir={a.directory}", f"--socket={a.socket}")
    a.start()
    wait_until(lambda: host.finds(b), 20, "the name")


def test_resolved_gone_is_a_warning(host: Inside, a: Node, b: Node) -> None:
    """Section 9: dns-set-os-config-failed, with what to look at."""
    host.resolved.stop()
    a.mesh("down")
    a.mesh("up")
    wait_until(lambda: any("systemd-resolved refused" in text for text in a.status()["Health"] or ()), 20, "a warning")
    host.resolved = host.start_resolved()
    wait_until(lambda: host.finds(b), 30, "the name")
    wait_until(lambda: not a.status()["Health"], 20, "the warning to go")
