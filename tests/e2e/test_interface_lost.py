"""The tunnel interface is deleted under the daemon."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.labhosts import Coordinator, Lab, Node, running_lab, wait_until

pytestmark = pytest.mark.netns


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("lost"), "mt-lost") as made:
        yield made


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
