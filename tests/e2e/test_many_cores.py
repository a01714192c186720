"""Daemons with several packet threads each way, as on machines with many cores."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.labhosts import Coordinator, Lab, Node, running_lab, wait_until
from tests.e2e.traffic import lost_percent, wait_reachable

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(shutil.which("iperf3") is None, reason="iperf3 is not on PATH"),
]

QUEUES = {"MESHD_QUEUES": "2"}
FLOWS = 8

_GARBAGE = """
import socket, sys
for address in sys.argv[1:]:
    for port in range(64):
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"\\xffnobody's protocol, of a length that means nothing", (address, 41641))
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("cores"), "mt-cores") as made:
        yield made


@pytest.fixture(scope="module")
def nodes(lab: Lab) -> tuple[Node, Node]:
    coordinator = Coordinator(lab)
    a = Node(lab, "a", "--tun=mesh0", "--debug=127.0.0.1:9000", environment=QUEUES)
    b = Node(lab, "b", "--tun=mesh0", environment=QUEUES)
    for node in (a, b):
        node.up(coordinator)
    wait_reachable(lab, "a", b.ip)
    a.ping(b.ip, direct=True)
    return a, b


def reads(node: Node) -> dict[str, int]:
    """Reads with packets, by thread."""
    metrics = node.lab.run(node.host, "curl", "-sSf", "http://127.0.0.1:9000/debug/metrics").stdout
    return {name: int(count) for name, count in re.findall(r"^meshd_reads_(\w+) (\d+)", metrics, re.MULTILINE)}


def iperf(sender: Node, receiver: Node, *options: str) -> dict[str, Any]:
    server = receiver.lab.start(receiver.host, "iperf.log", "iperf3", "-s", "-1", "-B", receiver.ip, "--forceflush")
    wait_until(lambda: "listening" in server.output or not server.running, 10, "iperf3's server")
    done = sender.lab.run(
        sender.host, "iperf3", "-c", receiver.ip, "-t", "2", "-P", str(FLOWS), "-J", *options, check=False
    )
    server.stop()
    server.log.unlink()
    result = dict(json.loads(done.stdout))
    assert "error" not in result, result["error"]
    return dict(result["end"])


def test_many_cores_eight_tcp_flows_lose_nothing(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    before = reads(a)
    end = iperf(a, b)
    after = reads(a)
    segments = end["sum_sent"]["bytes"] / 1240
    assert segments > 10_000
    assert end["sum_sent"]["retransmits"] < segments / 50
    assert after["send_0"] > before["send_0"] + 100
    assert after["send_1"] > before["send_1"] + 100


def test_many_cores_datagrams_stay_in_order(nodes: tuple[Node, Node]) -> None:
    end = iperf(*nodes, "-u", "-b", "4M", "-l", "1000")
    assert end["sum"]["lost_percent"] < 1
    assert [stream["udp"]["out_of_order"] for stream in end["streams"]] == [0] * FLOWS


def test_many_cores_every_receiver_is_used(nodes: tuple[Node, Node]) -> None:
    """Strangers spread over the sockets of one port, and do no harm there."""
    a, b = nodes
    before = reads(a)

    def both_read() -> bool:
        # A thread that has to wait for a CPU takes all that came in one read.
        a.lab.run("net", sys.executable, "-c", _GARBAGE, "192.168.11.2", "2001:db8:11::2")
        after = reads(a)
        return all(after[name] >= before[name] + 5 for name in ("receive_0", "receive_1"))

    wait_until(both_read, 30, "both receivers")
    assert lost_percent(a.lab, "a", b.ip) == 0


def test_many_cores_rebind_keeps_the_port_and_all_sockets(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    a.mesh("debug", "rebind")
    wait_reachable(a.lab, "a", b.ip)
    a.ping(b.ip, direct=True)
    listening = a.lab.run("a", "ss", "-Hlun", "sport = :41641").stdout.splitlines()
    assert len(listening) == 4
    assert iperf(a, b, "--bidir")["sum_received"]["bytes"] > 1_000_000
    test_many_cores_every_receiver_is_used(nodes)


def test_many_cores_tunnel_interface_has_its_queues(nodes: tuple[Node, Node]) -> None:
    shown = nodes[0].lab.run("a", "ip", "-d", "-o", "link", "show", "mesh0").stdout
    assert "multi_queue" in shown
    assert "numtxqueues" in shown


def test_many_cores_bad_number_of_queues_is_refused(lab: Lab) -> None:
    from tests.e2e.labhosts import program

    refused = lab.run(
        "net", "env", "MESHD_QUEUES=many", program("meshd"), "--tun=userspace-networking", "--state=mem:",
        f"--socket={lab.directory}/refused.sock", check=False,
    )  # fmt: skip
    assert refused.returncode == 2
    assert "MESHD_QUEUES=many: expected a number from 1 to 8" in refused.stderr
    assert "Traceback" not in refused.stderr
