"""The official `tailscale` command against a running meshd in a network of mesh-coord."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.labhosts import Coordinator, Node, running_lab, wait_until
from tests.interop.genuine import needs, official

pytestmark = [pytest.mark.netns, pytest.mark.interop, *needs("tailscale")]

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Nodes = tuple[Node, Node]


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coordinator]:
    with running_lab(tmp_path_factory.mktemp("cli"), "mt-cli") as lab:
        yield Coordinator(lab)


@pytest.fixture(scope="module")
def nodes(coordinator: Coordinator) -> Nodes:
    a, b = Node(coordinator.lab, "a"), Node(coordinator.lab, "b")
    b.up(coordinator)
    return a, b


@pytest.fixture
def run(nodes: Nodes) -> Run:
    def tailscale(*arguments: str) -> subprocess.CompletedProcess[str]:
        done = official(nodes[0], *arguments, check=False)
        # It is of another version than the daemon, and says so every time.
        errors = [line for line in done.stderr.splitlines() if not line.startswith("Warning: client version")]
        return subprocess.CompletedProcess(arguments, done.returncode, done.stdout, "\n".join(errors))

    return tailscale


def join(run: Run, coordinator: Coordinator, *flags: str) -> subprocess.CompletedProcess[str]:
    return run(
        "up", f"--login-server={coordinator.url}", f"--auth-key={coordinator.auth_key}", "--hostname=node-a",
        "--timeout=20s", *flags,
    )  # fmt: skip


def test_official_up_joins(run: Run, coordinator: Coordinator) -> None:
    assert run("status").stdout == "Logged out.\n"
    got = run("up", f"--login-server={coordinator.url}", "--auth-key=wrong", "--timeout=10s")
    assert got.returncode == 1
    assert "invalid auth key" in got.stderr
    got = join(run, coordinator)
    assert (got.returncode, got.stderr) == (0, "")


def test_official_status_and_addresses(run: Run, nodes: Nodes) -> None:
    a, b = nodes
    lines = [line.split()[:4] for line in run("status").stdout.splitlines()]
    assert [a.ip, "node-a", "default", "linux"] in lines
    assert [b.ip, "node-b", "default", "linux"] in lines
    parsed = json.loads(run("status", "--json").stdout)
    assert parsed["BackendState"] == "Running"
    assert parsed["Self"]["Online"]
    assert [p["HostName"] for p in parsed["Peer"].values()] == ["node-b"]
    assert run("ip", "-4", "node-b").stdout.strip() == b.ip
    assert run("wait", "--timeout=5s").returncode == 0


def test_official_pings_and_whois(run: Run, nodes: Nodes) -> None:
    _, b = nodes
    assert re.match(r"pong from node-b \(.*\) via \S+:41641 in ", run("ping", "--c=10", b.ip).stdout.splitlines()[-1])
    for kind in ("tsmp", "icmp"):
        assert f" via {kind.upper()} in " in run("ping", f"--{kind}", "--c=1", "node-b").stdout
    assert "is local Tailscale IP" in run("ping", "--c=1", "node-a").stdout
    assert run("ping", "--c=1", "100.99.99.99").stderr == "no matching peer"
    assert "node-b.mesh.internal" in run("whois", b.ip).stdout
    assert run("whois", "100.99.99.99").stderr == "peer not found"


def test_official_settings_take_effect(run: Run, nodes: Nodes, coordinator: Coordinator) -> None:
    a, b = nodes
    assert run("set", "--hostname=renamed", "--accept-routes").returncode == 0
    wait_until(lambda: b.peer("renamed"), 10, "the new name to reach b")
    assert run("get", "hostname").stdout == "renamed\n"
    assert run("set", "--hostname=node-a", "--accept-routes=false").returncode == 0
    wait_until(lambda: b.peer("node-a"), 10, "the old name to reach b")
    assert run("set", "--exit-node", b.ip).stderr == f"node {b.ip} is not advertising an exit node"
    assert run("set", "--shields-up").returncode == 0
    assert b.lab.run("b", "ping", "-c", "1", "-W", "1", a.ip, check=False).returncode == 1
    assert run("set", "--shields-up=false").returncode == 0
    wait_until(
        lambda: b.lab.run("b", "ping", "-c", "1", "-W", "1", a.ip, check=False).returncode == 0, 10, "a to answer"
    )
    assert run("set", "--advertise-routes=10.1.2.0/24").returncode == 0
    wait_until(lambda: "10.1.2.0/24" in coordinator.command("nodes", "list", "--json"), 10, "the offer")
    assert run("up", "--hostname=other").returncode == 1
    assert run("up", "--reset", f"--login-server={coordinator.url}", "--hostname=node-a").returncode == 0
    assert json.loads(run("debug", "prefs").stdout)["AdvertiseRoutes"] is None


def test_official_down_and_up(run: Run, nodes: Nodes) -> None:
    _, b = nodes
    assert run("down").returncode == 0
    assert run("status").stdout == "Tailscale is stopped.\n"
    assert run("down").stderr == "Tailscale was already stopped."
    wait_until(lambda: not b.peer("node-a")["Online"], 30, "b to hear of it")
    assert run("up").returncode == 0
    wait_until(lambda: b.peer("node-a")["Online"], 10, "b to hear of it")
    assert "pong from node-b" in run("ping", "--c=5", b.ip).stdout


def test_official_debug_commands(run: Run, nodes: Nodes) -> None:
    a, b = nodes
    assert "900" in json.loads(run("debug", "derp-map").stdout)["Regions"]
    netmap = json.loads(run("debug", "netmap").stdout)
    assert [p["Addresses"][0] for p in netmap["Peers"]] == [f"{b.ip}/32"]
    first = json.loads(run("debug", "watch-ipn", "--count=1", "--initial").stdout)
    assert first["State"] == 6
    assert first["Prefs"]["WantRunning"]
    for action in ("rebind", "restun", "break-derp-conns"):
        assert run("debug", action).returncode == 0
    assert "Nearest DERP" in run("netcheck").stdout
    assert "Daemon: " in run("version", "--daemon").stdout
    assert "meshd_out_no_route" in run("debug", "metrics").stdout
    assert "pong from node-b" in run("ping", "--c=10", "--timeout=2s", b.ip).stdout
    assert a.status()["BackendState"] == "Running"


def test_official_login_switch_logout(run: Run, nodes: Nodes, coordinator: Coordinator) -> None:
    a, _ = nodes
    key, address = a.status()["Self"]["PublicKey"], a.ip
    got = join(run, coordinator, "--force-reauth")
    assert (got.returncode, got.stderr) == (0, "")
    assert a.status()["Self"]["PublicKey"] != key
    assert a.ip == address
    assert run("switch", "--list").stdout.splitlines()[1].endswith("default*")
    assert run("logout").returncode == 0
    assert run("status").stdout == "Logged out.\n"
    listed = [n for n in json.loads(coordinator.command("nodes", "list", "--json")) if n["name"] == "node-a"]
    assert not listed or listed[0]["expired"]
    assert join(run, coordinator).returncode == 0
