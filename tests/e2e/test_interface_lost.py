"""The tunnel interface is deleted under the daemon, renamed, or set down."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.e2e.labhosts import Coordinator, Lab, Node, answers, program, running_lab, wait_until

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


def test_killed_daemon_without_a_state_is_cleaned_up_after(lab: Lab) -> None:
    """RT-12, DM-04: as in containers on the host's network; what another daemon uses stays."""
    coordinator = Coordinator(lab)
    socket = lab.directory / "stateless"
    flags = ("--state=mem:", f"--socket={socket}", "--tun=mesh0")

    def traces() -> str:
        commands = ("nft list tables", "ip rule", "ip -6 rule", "ip route show table 52", "cat /etc/resolv.conf")
        return "\n".join(lab.run("a", *command.split(), check=False).stdout for command in commands)

    def run_and_kill() -> None:
        daemon = lab.start("a", "stateless.log", program("meshd"), *flags)
        wait_until(lambda: answers(socket), 10, "the socket")
        login = f"--login-server={coordinator.url}", f"--auth-key={coordinator.auth_key}", "--timeout=30s"
        lab.run("a", program("mesh"), f"--socket={socket}", "up", *login)
        wait_until(lambda: "meshd-mesh0" in traces(), 10, "the packet filter")
        daemon.stop(signal.SIGKILL)
        lab.run("a", program("meshd"), "--cleanup", f"--statedir={lab.directory}/nothing", *flags[1:])
        assert "mesh0" not in traces()

    before = traces()
    run_and_kill()
    assert traces() == before
    other = Node(lab, "a", "--tun=mesh1", name="other")
    try:
        other.up(coordinator)
        used = wait_until(
            lambda: (text := traces()).count("mesh1") > 2 and "100.100.100.100" in text and text, 10, "it"
        )
        run_and_kill()
        wait_until(lambda: set(used.splitlines()) <= set(traces().splitlines()), 10, "the other to have what it had")
    finally:
        other.stop()
        coordinator.process.stop()
    assert traces() == before


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
