"""A machine changes from tailscaled to meshd and back with its state file, and stays the node that it was."""

from __future__ import annotations

import json
import os
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.labhosts import Coordinator, Lab, Node, running_lab, wait_until
from tests.interop.genuine import ADDRESS, GenuineNode, needs, private_address

pytestmark = [pytest.mark.netns, pytest.mark.interop, *needs("tailscaled", "tailscale")]

GENUINE = ("--tun=userspace-networking",)
ENTRIES = {"_machinekey", "_profiles", "_current-profile"}
SEALED = '"meshd-sealed-state"'


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("handover"), "mt-hand") as lab:
        private_address(lab)
        yield lab


@pytest.fixture(scope="module")
def coordinator(lab: Lab) -> Coordinator:
    return Coordinator(lab, url=f"http://{ADDRESS}:8080")


@pytest.fixture(scope="module")
def other(lab: Lab, coordinator: Coordinator) -> Node:
    made = Node(lab, "b")
    made.up(coordinator)
    return made


def state_file(lab: Lab, name: str) -> Path:
    return lab.directory / name / "state.json"


def ours(lab: Lab, name: str, *flags: str) -> Node:
    """meshd on the state file of the machine called ``name``."""
    return Node(lab, "a", "--tun=mesh0", f"--state={state_file(lab, name)}", *flags, name=name)


def identity(node: Node) -> tuple[Any, ...]:
    """What makes a node itself, once it runs."""
    wait_until(lambda: node.status()["BackendState"] == "Running", 30, "the node to run")
    me = node.status()["Self"]
    return me["PublicKey"], me["ID"], me["TailscaleIPs"], me["HostName"]


def machines(coordinator: Coordinator) -> int:
    return len(json.loads(coordinator.command("nodes", "list", "--json")))


def entries(path: Path) -> dict[str, bytes]:
    """The entries of a plain state file that hold something."""
    return {key: b64decode(value) for key, value in json.loads(path.read_text()).items() if value}


def log_in_as(node: Node, coordinator: Coordinator, user: str) -> None:
    """A further login profile, of another user."""
    coordinator.command("users", "create", user)
    key = coordinator.command("authkeys", "create", "--user", user).split()[-1]
    node.mesh("login", f"--login-server={coordinator.url}", f"--auth-key={key}", "--hostname=" + user, "--timeout=30s")


def test_state_of_tailscaled_goes_on_with_meshd_and_back(lab: Lab, coordinator: Coordinator, other: Node) -> None:
    """PS-02, PS-03, PS-05, PS-10: two profiles, sealed by meshd, plain again, and tailscaled as if nothing had been."""
    path = state_file(lab, "changer")
    genuine = GenuineNode(lab, "a", *GENUINE, name="changer")
    genuine.up(coordinator)
    first = identity(genuine)
    log_in_as(genuine, coordinator, "alice")
    second = identity(genuine)
    assert genuine.stop() == 0
    before, count = entries(path), machines(coordinator)
    assert before.keys() >= ENTRIES

    node = ours(lab, "changer")
    assert identity(node) == second
    assert SEALED in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    other.mesh("ping", "--until-direct=false", "--c=5", "--timeout=3s", node.ip)
    node.mesh("switch", "default")
    assert identity(node) == first
    other.mesh("ping", "--until-direct=false", "--c=5", "--timeout=3s", node.ip)
    assert node.stop() == 0

    node = ours(lab, "changer", "--encrypt-state=false")
    assert identity(node) == first
    node.mesh("set", "--nickname=laptop")
    assert node.stop() == 0
    after = entries(path)
    assert after["_machinekey"] == before["_machinekey"]
    assert before.keys() - after.keys() == set()

    genuine = GenuineNode(lab, "a", *GENUINE, name="changer")
    assert identity(genuine) == first
    assert "laptop" in genuine.mesh("switch", "--list").stdout
    genuine.mesh("switch", "alice")
    assert identity(genuine) == second
    assert genuine.stop() == 0
    assert machines(coordinator) == count


def test_state_made_by_meshd_is_taken_over_by_tailscaled(lab: Lab, coordinator: Coordinator, other: Node) -> None:
    """PS-02, PS-07: a network that meshd joined with sealing off."""
    path = state_file(lab, "plain")
    node = ours(lab, "plain", "--encrypt-state=false")
    node.up(coordinator, "--accept-routes")
    mine = identity(node)
    assert node.stop() == 0
    assert entries(path).keys() >= ENTRIES
    assert not (path.parent / "state.json.key").exists()
    genuine = GenuineNode(lab, "a", *GENUINE, name="plain")
    assert identity(genuine) == mine
    assert json.loads(genuine.mesh("debug", "prefs").stdout)["RouteAll"] is True
    assert "pong" in other.mesh("ping", "--until-direct=false", "--c=5", "--timeout=3s", genuine.ip).stdout
    assert genuine.stop() == 0
    assert os.listdir(path.parent).count("state.json") == 1
