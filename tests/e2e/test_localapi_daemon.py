"""The LocalAPI and the command line against running daemons: what needs a real node, real users and a real tunnel."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import pwd
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.labhosts import COORD_URL, Coordinator, Lab, Node, program, running_lab, wait_until

pytestmark = pytest.mark.netns

NOBODY = pwd.getpwnam("nobody").pw_uid


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("api"), "mt-api") as made:
        yield made


@pytest.fixture(scope="module")
def nodes(lab: Lab) -> tuple[Node, Node]:
    coordinator = Coordinator(lab)
    pair = Node(lab, "a"), Node(lab, "b")
    for node in pair:
        node.up(coordinator)
    wait_until(lambda: pair[0].peer("node-b"), 20, "the peer")
    pair[0].ping("node-b", direct=True)
    return pair


# The checkout may be where another user cannot read: everything is loaded before the process becomes that user.
AS_NOBODY = """
import base64, ipaddress, json, os, pathlib, shlex, sys, tempfile, threading, time, urllib.parse
from meshd.cli.dispatch import run
from meshd.cli.tree import root_command
def load(command):
    for part in command.parts:
        load(part.load())
load(root_command())
os.setgroups([])
os.setgid(int(sys.argv[1]))
os.setuid(int(sys.argv[1]))
sys.exit(run(sys.argv[2:]))
"""


class Connection(http.client.HTTPConnection):
    """HTTP over the daemon's socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("local-tailscaled.sock", timeout=20)
        self.path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def ask(node: Node, method: str, route: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    connection = Connection(node.socket)
    try:
        connection.request(method, "/localapi/v0/" + route, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_nc_carries_bytes_to_a_port_of_a_node(nodes: tuple[Node, Node]) -> None:
    """DI-02, cli:nc, api:dial: by name through the tunnel, both ways, until both ends have said all."""
    a, b = nodes
    server = (
        "import socket; s = socket.create_server(('0.0.0.0', 7007)); print('ready', flush=True); c = s.accept()[0]\n"
        "data = b''\nwhile piece := c.recv(65536): data += piece\nc.sendall(b'%d bytes' % len(data)); c.close()"
    )
    listening = b.lab.start(b.host, "echo.log", sys.executable, "-c", server)
    wait_until(lambda: "ready" in listening.output, 10, "the server")
    done = subprocess.run(
        [
            "ip",
            "netns",
            "exec",
            f"{a.lab.name}-{a.host}",
            program("mesh"),
            f"--socket={a.socket}",
            "nc",
            "node-b",
            "7007",
        ],
        input=b"x" * 300_000,
        capture_output=True,
        timeout=30,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"300000 bytes", b"")
    refused = a.mesh("nc", "node-b", "7008", check=False)
    assert refused.returncode == 1
    assert "refused" in refused.stderr.lower()


def test_user_without_rights_reads_and_changes_nothing(nodes: tuple[Node, Node]) -> None:
    """LA-04, LA-05, LA-06, CL-04: a real process of another user, by the command line and by hand."""
    a, _ = nodes
    for part in (a.socket, *a.socket.parents):  # pytest keeps its directories to itself
        if part.is_dir() and part.stat().st_uid == os.getuid() and str(part).startswith("/tmp/"):
            part.chmod(part.stat().st_mode | 0o011)
    before = ask(a, "GET", "prefs")

    def as_nobody(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", AS_NOBODY, str(NOBODY), f"--socket={a.socket}", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=20)

    shown = as_nobody("status")
    assert (shown.returncode, "node-b" in shown.stdout) == (0, True)
    login = ["up", "--reset", f"--login-server={COORD_URL}"]
    for words in (["down"], ["set", "--hostname=x"], ["logout"], login, ["debug", "--mem-profile=-"]):
        done = as_nobody(*words)
        assert done.returncode == 1, words
        assert "ccess denied" in done.stderr, words
        assert "sudo mesh" in done.stderr, words
    assert ask(a, "GET", "prefs") == before
    assert a.mesh("set", "--operator=nobody").returncode == 0
    try:
        assert as_nobody("set", "--hostname=node-a").returncode == 0
    finally:
        a.mesh("set", "--operator=")
    assert as_nobody("set", "--hostname=x").returncode == 1


def test_profiles_of_a_running_daemon(nodes: tuple[Node, Node], tmp_path: Path) -> None:
    """api:pprof, cli:debug --cpu-profile: while it works; what is recorded names its functions and no secret."""
    a, b = nodes
    cpu, memory = tmp_path / "cpu", tmp_path / "memory"
    load = threading.Thread(target=lambda: [a.mesh("status", "--json") for _ in range(5)])
    load.start()
    a.mesh("debug", f"--cpu-profile={cpu}", f"--mem-profile={memory}", "--profile-seconds=1")
    load.join()
    recorded = gzip.decompress(cpu.read_bytes())
    assert b"meshd/" in recorded
    kept = gzip.decompress(memory.read_bytes())
    assert b"meshd.node.backend.Backend" in kept
    assert b"privkey:" not in recorded + kept
    assert b.mesh("ping", "--c=1", "--until-direct=false", "node-a").returncode == 0


def test_rotated_disco_key_reaches_the_peers(nodes: tuple[Node, Node]) -> None:
    """api:debug-rotate-disco-key: the peers hear of it and find the way back to a direct path."""
    a, b = nodes
    own = next(iter(json.loads(b.mesh("debug", "localapi", "POST", "debug?action=peer-disco-keys").stdout).items()))
    assert a.mesh("debug", "rotate-disco-key").returncode == 0

    def renewed() -> bool:
        keys = json.loads(b.mesh("debug", "localapi", "POST", "debug?action=peer-disco-keys").stdout)
        return bool(keys) and dict(keys).get(own[0]) not in (None, own[1])

    wait_until(renewed, 20, "b to hear of the key")
    assert "via" in b.ping("node-a", direct=True)
    assert "via" in a.ping("node-b", direct=True)


def test_cached_map_is_cleared_and_comes_back(nodes: tuple[Node, Node]) -> None:
    """api:debug, cli:debug: `clear-netmap-cache` removes the file; the next change writes it again."""
    a, b = nodes
    cache = next(a.directory.glob("profile-data/*/netmap-cache"))
    wait_until(lambda: (cache / "netmap").exists(), 30, "the map on disk")
    a.mesh("debug", "clear-netmap-cache")
    assert not (cache / "netmap").exists()
    b.mesh("set", "--hostname=renamed")
    try:
        wait_until(lambda: (cache / "netmap").exists(), 40, "the map on disk again")
    finally:
        b.mesh("set", "--hostname=node-b")


def test_favourites_outlive_the_daemon(nodes: tuple[Node, Node]) -> None:
    """api:pins: on disk before the answer."""
    a, _ = nodes
    body = b'{"DevicesSet":true,"Pins":{"Devices":[{"ID":"n1"}]}}'
    assert ask(a, "POST", "pins", body)[0] == 200
    assert a.stop() == 0
    a.start()
    wait_until(lambda: ask(a, "GET", "status?peers=false")[0] == 200, 10, "the daemon")
    assert json.loads(ask(a, "GET", "pins")[1]) == {"Devices": [{"ID": "n1"}]}
    wait_until(lambda: a.status()["BackendState"] == "Running", 20, "the node to run")


def test_watcher_that_does_not_read_costs_nobody_anything(nodes: tuple[Node, Node]) -> None:
    """LA-14, api:watch-ipn-bus: fifty bus readers that never read, half of them half-closed, beside ordinary use."""
    a, _ = nodes
    socks = []
    for number in range(50):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(a.socket))
        sock.sendall(b"GET /localapi/v0/watch-ipn-bus?mask=31 HTTP/1.1\r\nHost: local-tailscaled.sock\r\n\r\n")
        if number % 2:
            sock.shutdown(socket.SHUT_WR)
        socks.append(sock)
    for number in range(20):
        assert ask(a, "PATCH", "prefs", b'{"Hostname":"node-a","HostnameSet":true}')[0] == 200, number
    assert a.mesh("ping", "--c=1", "--until-direct=false", "node-b").returncode == 0
    for sock in socks:
        sock.close()
    assert "Traceback" not in a.output


def test_status_page_is_served_until_interrupted(nodes: tuple[Node, Node]) -> None:
    """cli:status --web: on 127.0.0.1 of its host; Ctrl-C ends it."""
    a, _ = nodes
    serving = a.lab.start(
        a.host, "web.log", program("mesh"), f"--socket={a.socket}", "status", "--web", "--listen=127.0.0.1:8384",
        "--browser=false",
    )  # fmt: skip
    wait_until(lambda: "Serving the status at http://127.0.0.1:8384" in serving.output, 10, "the page")
    page = a.lab.run(a.host, "curl", "-s", "http://127.0.0.1:8384/").stdout
    assert "node-b" in page
    assert a.lab.run(a.host, "curl", "-s", "-H", "Host: evil.test", "http://127.0.0.1:8384/").stdout.startswith("open")
    assert serving.stop(2) == 130
    assert "Traceback" not in serving.output
