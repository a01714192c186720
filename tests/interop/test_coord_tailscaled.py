"""Genuine Tailscale clients on both sides of a network that mesh-coord keeps."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest

from tests.e2e.labhosts import Coordinator, Lab, running_lab, wait_until
from tests.interop.genuine import ADDRESS, GenuineNode, needs, private_address

pytestmark = [pytest.mark.netns, pytest.mark.interop, *needs("tailscaled", "tailscale")]

USERSPACE = "--tun=userspace-networking"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("coordts"), "coordts") as lab:
        private_address(lab)
        yield lab


@pytest.fixture(scope="module")
def coordinator(lab: Lab) -> Coordinator:
    return Coordinator(lab, url=f"http://{ADDRESS}:8080")


@pytest.fixture(scope="module")
def pair(lab: Lab, coordinator: Coordinator) -> tuple[GenuineNode, GenuineNode]:
    first, second = GenuineNode(lab, "a", USERSPACE), GenuineNode(lab, "b", USERSPACE)
    for node in (first, second):
        node.up(coordinator)
    return first, second


def nodes(coordinator: Coordinator) -> dict[str, dict]:
    return {node["name"]: node for node in json.loads(coordinator.command("nodes", "list", "--json"))}


def pings(node: GenuineNode, target: str, *flags: str) -> str:
    return node.mesh("ping", "--timeout=3s", *flags, target, check=False).stdout


def test_tailscaled_pair_sees_each_other_by_name(pair, coordinator):
    first, second = pair
    assert first.peer(second.name)["DNSName"] == "node-b.mesh.internal."
    assert {node["online"] for node in nodes(coordinator).values()} == {True}
    profile = next(iter(first.status()["User"].values()))
    assert profile["LoginName"] == "default"


def test_tailscaled_pair_pings_directly_and_by_tsmp(pair):
    first, second = pair
    for node, other in ((first, second), (second, first)):
        last = pings(node, other.ip, "--c=10", "--until-direct=true").splitlines()[-1]
        assert "pong from" in last
        assert "DERP" not in last
        assert "via TSMP" in pings(node, other.ip, "--tsmp", "--c=1")


def test_tailscaled_uses_our_stun_and_relay_without_complaint(pair):
    report = json.loads(pair[0].mesh("netcheck", "--format=json").stdout)
    assert report["UDP"] is True
    assert report["PreferredDERP"] == 900
    assert report["GlobalV4"].startswith("192.168.11.2:")
    health = "\n".join(pair[0].status().get("Health") or ())
    for word in ("relay", "DERP", "coordination", "certificate"):
        assert word not in health


def test_tailscaled_pair_without_udp_goes_through_our_relay(pair, lab):
    first, second = pair
    lab.script("block-udp")
    try:
        wait_until(
            lambda: "via DERP(mesh)" in pings(first, second.ip, "--c=1", "--until-direct=false"), 40, "the relay"
        )
        assert "via DERP(mesh)" in pings(second, first.ip, "--c=2", "--until-direct=false")
    finally:
        lab.script("allow-udp")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_tailscaled_pair_outlives_a_restart_of_the_server(pair, coordinator, number):
    first, second = pair
    before = {name: (node["id"], node["addresses"]) for name, node in nodes(coordinator).items()}
    coordinator.restart(number)
    assert {name: (node["id"], node["addresses"]) for name, node in nodes(coordinator).items()} == before
    wait_until(lambda: all(node["online"] for node in nodes(coordinator).values()), 60, "both nodes to come back")
    assert "pong from" in pings(first, second.ip, "--c=5")


def test_tailscaled_learns_renames_routes_and_policy(pair, coordinator):
    first, second = pair
    coordinator.command("nodes", "rename", "node-b", "renamed")
    wait_until(lambda: first.peer(second.name)["DNSName"] == "renamed.mesh.internal.", 5, "the new name")
    second.mesh("set", "--advertise-routes=10.55.0.0/16")
    wait_until(
        lambda: nodes(coordinator)["renamed"]["advertised_routes"] == ["10.55.0.0/16"], 5, "the route to be offered"
    )
    assert "10.55.0.0/16" not in first.peer(second.name)["AllowedIPs"]
    coordinator.command("nodes", "approve-routes", "renamed", "10.55.0.0/16")
    wait_until(lambda: "10.55.0.0/16" in first.peer(second.name)["AllowedIPs"], 5, "the approved route")
    policy = coordinator.directory / "policy.hujson"
    policy.write_text('{"acls": [],}')
    coordinator.command("policy", "set", str(policy))
    wait_until(lambda: not first.status()["Peer"], 5, "the peer to vanish")
    policy.write_text('{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}]}')
    coordinator.command("policy", "set", str(policy))
    wait_until(lambda: first.peer(second.name), 5, "the peer to come back")
    coordinator.command("nodes", "rename", "renamed", "node-b")


def test_tailscaled_interactive_login_waits_for_approval(lab, coordinator):
    node = GenuineNode(lab, "a", USERSPACE, "--port=0", name="visitor")
    waiting = lab.start(
        "a", "login.log", "tailscale", f"--socket={node.socket}", "up", f"--login-server={coordinator.url}",
        "--hostname=visitor",
    )  # fmt: skip
    (entry,) = wait_until(
        lambda: json.loads(coordinator.command("nodes", "list", "--pending", "--json")), 15, "the request"
    )
    assert entry["hostname"] == "visitor"
    wait_until(lambda: f"{coordinator.url}/register/{entry['id']}" in waiting.output, 10, "the address to be shown")
    assert (
        "mesh-coord nodes approve" in lab.run("net", "curl", "-s", f"{coordinator.url}/register/{entry['id']}").stdout
    )
    coordinator.command("nodes", "approve", entry["id"])
    assert waiting.popen.wait(15) == 0, waiting.output
    assert nodes(coordinator)["visitor"]["method"] == "approval"
    node.mesh("logout")
    wait_until(lambda: nodes(coordinator)["visitor"]["expired"], 5, "the logout")
    coordinator.command("nodes", "delete", "visitor")
    node.stop()


def test_tailscaled_expired_key_needs_a_login_and_keeps_its_address(pair, coordinator):
    first, _ = pair
    address = first.ip
    coordinator.command("nodes", "expire", "node-a")
    wait_until(lambda: first.status()["BackendState"] == "NeedsLogin", 10, "the node to notice")
    first.mesh(
        "up", f"--login-server={coordinator.url}", f"--auth-key={coordinator.auth_key}", "--hostname=node-a",
        "--force-reauth", "--timeout=30s",
    )  # fmt: skip
    assert first.ip == address
    assert set(nodes(coordinator)) == {"node-a", "node-b"}


def test_tailscaled_wrong_key_is_told_why(lab, coordinator):
    node = GenuineNode(lab, "b", USERSPACE, "--port=0", name="stranger")
    done = node.mesh(
        "up", f"--login-server={coordinator.url}", "--auth-key=nonsense", "--timeout=10s", check=False
    )  # fmt: skip
    assert done.returncode != 0
    assert "invalid auth key" in done.stdout + done.stderr
    node.stop()
