"""The official `tailscale` command, unmodified, against our LocalAPI server over a fake node.

The client is strict about JSON types, headers and status codes, and knows nothing of us: what it accepts, others will.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from meshd.testing.fakebackend import LOGIN_URL, node
from meshd.testing.localapi import LocalApiThread

TAILSCALE = shutil.which("tailscale")
pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(TAILSCALE is None, reason="tailscale is not on PATH"),
]
SERVER = "--login-server=http://control.test"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def api(tmp_path: Path) -> Iterator[LocalApiThread]:
    with LocalApiThread(str(tmp_path / "s")) as server:
        yield server


@pytest.fixture
def run(api: LocalApiThread) -> Run:
    def tailscale(*args: str) -> subprocess.CompletedProcess[str]:
        env = {key: value for key, value in os.environ.items() if key != "SSH_CLIENT"}
        command = [str(TAILSCALE), f"--socket={api.path}", *args]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=env)
        # It is of another version than the daemon, and says so every time.
        errors = [line for line in done.stderr.splitlines() if not line.startswith("Warning: client version")]
        return subprocess.CompletedProcess(args, done.returncode, done.stdout, "\n".join(errors))

    return tailscale


def test_official_status(run: Run, api: LocalApiThread) -> None:
    got = run("status")
    assert (got.returncode, got.stderr) == (0, "")
    assert [line.split()[:2] for line in got.stdout.splitlines()] == [
        ["100.64.0.2", "node-b"],
        ["100.64.0.1", "node-a"],
    ]
    parsed = json.loads(run("status", "--json").stdout)
    own = api.backend.status()
    assert parsed.keys() == own.keys()
    assert parsed["Self"] == own["Self"]
    api.backend.state = "Stopped"
    assert run("status").returncode == 1


def test_official_ip_ping_whois_version(run: Run) -> None:
    assert run("ip").stdout == "100.64.0.2\nfd7a:115c:a1e0::2\n"
    assert run("ip", "-4", "node-a").stdout == "100.64.0.1\n"
    assert run("ping", "--c=1", "node-a").stdout == "pong from node-a (100.64.0.1) via 10.99.0.11:41641 in 12ms\n"
    assert "via TSMP" in run("ping", "--tsmp", "node-a").stdout
    assert "via ICMP" in run("ping", "--icmp", "node-a").stdout
    assert "hit peerapi" in run("ping", "--peerapi", "node-a").stdout
    got = run("ping", "--c=1", "100.99.99.99")
    assert (got.returncode, got.stderr) == (1, "no matching peer")
    assert "node-a.mesh.test" in run("whois", "100.64.0.1").stdout
    assert run("whois", "100.99.99.99").stderr == "peer not found"
    assert "Daemon: 0.1.0-meshd" in run("version", "--daemon").stdout


def test_official_ping_times_out_and_is_cancelled(run: Run, api: LocalApiThread) -> None:
    api.backend.ping_answer = None
    got = run("ping", "--c=1", "--timeout=100ms", "node-a")
    assert (got.returncode, got.stderr) == (1, "no reply")
    while ("ping_cancelled",) not in api.backend.calls:
        pass


def test_official_down_up_set_get(run: Run, api: LocalApiThread) -> None:
    assert run("down").returncode == 0
    assert api.backend.state == "Stopped"
    assert run("down").stderr == "Tailscale was already stopped."
    assert run("up").returncode == 0
    assert api.backend.state == "Running"
    assert run("set", "--hostname=x", "--advertise-routes=10.0.0.0/24").returncode == 0
    assert api.backend.stored["AdvertiseRoutes"] == ["10.0.0.0/24"]
    assert run("get", "hostname").stdout == "x\n"
    got = run("up", "--hostname=y")
    assert got.returncode == 1
    assert f"--advertise-routes=10.0.0.0/24 {SERVER}" in got.stderr
    assert run("up", "--reset", SERVER).returncode == 0
    assert api.backend.stored["AdvertiseRoutes"] is None
    assert run("set", "--hostname=bad").stderr == "hostname 'bad' is bad"


def test_official_login_logout_switch(run: Run, api: LocalApiThread) -> None:
    assert run("switch", "--list").stdout == "ID    Tailnet    Account\ndf87  10.99.0.1  bench*\n"
    assert run("logout").returncode == 0
    assert run("status").stdout == "Logged out.\n"
    assert run("up", SERVER, "--auth-key=k", "--timeout=10s").returncode == 0
    assert api.backend.state == "Running"
    api.backend.login_url_after_start = LOGIN_URL
    got = run("login", SERVER, "--timeout=500ms")
    assert got.returncode == 1
    assert LOGIN_URL in got.stderr


def test_official_force_reauth_waits_for_self_change(run: Run, api: LocalApiThread) -> None:
    """Running alone does not satisfy it: `SelfChange` must carry another node key."""
    original = api.backend.login_interactive

    async def login() -> None:
        await original()
        api.backend.enter("Running")
        api.backend.notify(SelfChange=node(2) | {"Key": "nodekey:" + "bb" * 32})

    api.backend.login_interactive = login
    assert run("up", SERVER, "--force-reauth", "--timeout=10s").returncode == 0


def test_official_debug_commands(run: Run) -> None:
    assert json.loads(run("debug", "prefs").stdout)["ControlURL"] == "http://control.test"
    assert json.loads(run("debug", "derp-map").stdout)["Regions"]["900"]["RegionCode"] == "test"
    assert run("debug", "rebind").returncode == 0
    assert run("debug", "restun").returncode == 0
    assert json.loads(run("debug", "watch-ipn", "--count=1", "--initial").stdout)["State"] == 6
    assert json.loads(run("debug", "localapi", "GET", "status").stdout)["BackendState"] == "Running"
    assert "meshd_packets 1" in run("debug", "metrics").stdout
    assert "tailscaled_advertised_routes" in run("metrics", "print").stdout
    assert run("bugreport").stdout.startswith("BUG-NO-LOGS")
    assert run("serve", "status").stdout == "No serve config\n"


def test_official_user_without_rights(run: Run, api: LocalApiThread) -> None:
    """CL-04, LA-06: reads work, writes are refused in words the client understands."""
    api.uid = 1000
    assert run("status").returncode == 0
    got = run("down")
    assert got.returncode == 1
    assert got.stderr.startswith("Access denied: prefs write access denied")


def test_both_command_lines_print_the_same(run: Run, api: LocalApiThread, capsys: pytest.CaptureFixture[str]) -> None:
    """out:twins: what `mesh` prints where the texts do not name a program."""
    from meshd.cli.main import main

    for words in (
        ["status"], ["status", "--peers=false"], ["status", "--active", "--header"], ["status", "--self=false"],
        ["ip"], ["ip", "-6"], ["ip", "node-a"], ["ping", "--c=1", "node-a"], ["ping", "--tsmp", "node-a"],
        ["whois", "100.64.0.1"], ["get", "accept-dns"], ["switch", "--list"], ["switch", "--list", "--json"],
    ):  # fmt: skip
        official = run(*words)
        code = main(["--socket", api.path, *words])
        assert (code, capsys.readouterr().out) == (official.returncode, official.stdout), words
    for words in (["ip", "-4", "-6"], ["ping", "--c=1", "100.99.99.99"], ["set", "--advertise-routes=10.0.0.1/24"]):
        official = run(*words)
        code = main(["--socket", api.path, *words])
        assert code == official.returncode, words
        assert capsys.readouterr().err.strip() == official.stderr.replace("tailscale", "mesh"), words
    for words in (["whois", "--json", "100.64.0.1"], ["status", "--json", "--active"]):
        official = run(*words)
        assert main(["--socket", api.path, *words]) == 0
        assert json.loads(capsys.readouterr().out) == json.loads(official.stdout), words
