"""The tunnel interface is deleted under the daemon, renamed, or set down."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.e2e.labhosts import Coordinator, Lab, Node, program, running_lab, wait_until

pytestmark = pytest.mark.netns


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("lost"), "mt-lost") as made:
        yield made


def test_interface_renamed_or_down_daemon_goes_on_and_says_so(lab: Lab) -> None:
    """RT-12, RT-14: rules for the old name would let nothing in; who set it down is told how to mend it."""
    coordinator = Coordinator(lab)
    node, peer = Node(lab, "a"), Node(lab, "b")
    try:
        node.up(coordinator)
        peer.up(coordinator)
        node.ping("node-b", direct=True)
        lab.run("a", "ip", "link", "set", "mesh0", "down")
        wait_until(lambda: "ip link set mesh0 up" in str(node.status()["Health"]), 10, "the advice")
        lab.run("a", "ip", "link", "set", "mesh0", "name", "office")
        lab.run("a", "ip", "link", "set", "office", "up")
        wait_until(lambda: not node.status()["Health"], 10, "the node to be well")
        rules = wait_until(
            lambda: "office" in (text := lab.run("a", "nft", "list", "ruleset").stdout) and text, 10, "the rules"
        )
        assert "mesh0" not in rules
        assert lab.run("a", "ping", "-c1", "-W5", peer.ip).returncode == 0
        node.stop(signal.SIGKILL)
        lab.run("a", program("meshd"), "--cleanup", f"--statedir={node.directory}", f"--socket={node.socket}")
        assert "meshd-" not in lab.run("a", "nft", "list", "ruleset").stdout
    finally:
        node.stop()
        peer.stop()
        coordinator.process.stop()


def test_interface_deleted_daemon_says_so_and_ends_for_its_supervisor(lab: Lab) -> None:
    """DM-03; Neither a busy loop nor a daemon that says "Running" while nothing can pass."""
    node = Node(lab, "a")
    node.up(Coordinator(lab))
    assert node.process is not None
    lab.run("a", "ip", "link", "del", "mesh0")
    wait_until(lambda: not node.process.running, 10, "meshd to end")
    assert node.process.popen.wait(1) == 1
    assert "mesh0 was deleted" in node.output
    assert "Traceback" not in node.output
    assert node.host_traces() == []
    node.start()
    wait_until(lambda: node.status()["BackendState"] == "Running", 10, "the node to be back")
    assert node.stop() == 0
