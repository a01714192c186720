"""A node that starts while nothing but its peers is there: no coordination server, no relay."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.labhosts import Coordinator, Lab, Node, running_lab, wait_until

pytestmark = pytest.mark.netns


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("cold"), "mt-cold") as made:
        yield made


@pytest.fixture(scope="module")
def coordinator(lab: Lab) -> Coordinator:
    return Coordinator(lab)


@pytest.fixture(scope="module")
def nodes(lab: Lab, coordinator: Coordinator) -> tuple[Node, Node]:
    made = Node(lab, "a"), Node(lab, "b")
    for node in made:
        node.up(coordinator)
    a, b = made
    a.ping(b.ip, direct=True)
    return made


def reaches(node: Node, target: str) -> bool:
    done = node.lab.run(node.host, "ping", "-c", "1", "-W", "1", target, check=False)
    return " 0% packet loss" in done.stdout


def cached_files(node: Node) -> list[str]:
    return [str(path) for path in node.directory.glob("profile-data/*/netmap-cache/netmap")]


def health(node: Node) -> list[str]:
    return list(node.status()["Health"] or [])


def test_cold_boot_without_server_and_relay_reaches_the_peer(
    nodes: tuple[Node, Node], coordinator: Coordinator
) -> None:
    """NM-02: both ways, over the last path, whether the node ended well or was killed."""
    a, b = nodes
    address = b.ip
    own, expected = a.ip, a.status()["Self"]
    wait_until(lambda: cached_files(a), 10, "the netmap on disk")
    coordinator.process.stop()
    for number in (signal.SIGTERM, signal.SIGKILL):
        a.stop(number)
        a.start()
        assert reaches(a, address) or reaches(a, address)
        status = a.status()
        assert status["BackendState"] == "Running"
        assert status["Self"]["TailscaleIPs"] == expected["TailscaleIPs"]
        assert status["Peer"]
        wait_until(lambda: reaches(b, own), 10, "the peer to reach us with its own packets")
    wait_until(lambda: any("cannot connect" in text for text in health(a)), 20, "the status to say what is missing")


def test_cold_boot_both_nodes_restarted_meet_again(nodes: tuple[Node, Node]) -> None:
    """NM-02."""
    a, b = nodes
    address = b.ip
    for node in nodes:
        node.stop()
    for node in nodes:
        node.start()
    wait_until(lambda: reaches(a, address), 10, "two nodes that both come from their caches to meet")


def test_cold_boot_node_that_goes_down_and_up_meets_its_peer(nodes: tuple[Node, Node]) -> None:
    """SM-05: nobody tells the peer of a new disco key, and its session has lost its other end."""
    a, b = nodes
    own, address = a.ip, b.ip
    a.mesh("down")
    a.mesh("up", seconds=20)
    assert a.status()["BackendState"] == "Running"
    wait_until(lambda: reaches(b, own), 10, "the peer to reach us with its own packets")
    assert reaches(a, address)


def test_cold_boot_fresh_map_replaces_the_cached_one(
    nodes: tuple[Node, Node], coordinator: Coordinator, lab: Lab
) -> None:
    a, b = nodes
    coordinator.restart()
    wait_until(lambda: a.status()["Self"]["Online"] and not health(a), 60, "the server's map to arrive")
    assert reaches(a, b.ip)
    coordinator.command("nodes", "delete", node_id(coordinator, "node-b"))
    wait_until(lambda: not a.peer("node-b"), 10, "the deleted peer to vanish")


def node_id(coordinator: Coordinator, name: str) -> str:
    listed: list[dict[str, Any]] = json.loads(coordinator.command("nodes", "list", "--json"))
    return str(next(node["id"] for node in listed if name in json.dumps(node)))


def test_cold_boot_logged_out_node_keeps_no_map(nodes: tuple[Node, Node]) -> None:
    """LK-07, PS-18."""
    a, _ = nodes
    wait_until(lambda: cached_files(a), 10, "the netmap on disk")
    a.mesh("logout")
    assert not cached_files(a)
    time.sleep(1.5)  # longer than the delay before a write
    assert not cached_files(a)
