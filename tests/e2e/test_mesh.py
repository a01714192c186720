"""Two machines that never met: join, find each other, talk; restart, lose UDP, come back."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.e2e.labhosts import Coordinator, Lab, Node, program, running_lab, wait_until

pytestmark = pytest.mark.netns


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("mesh"), "mt-mesh") as made:
        yield made


@pytest.fixture(scope="module")
def coordinator(lab: Lab) -> Coordinator:
    return Coordinator(lab)


@pytest.fixture(scope="module")
def nodes(lab: Lab, coordinator: Coordinator) -> tuple[Node, Node]:
    proxies = ("--socks5-server=127.0.0.1:1080", "--outbound-http-proxy-listen=127.0.0.1:1080")
    made = Node(lab, "a", "--tun=mesh0", *proxies, "--debug=127.0.0.1:9000"), Node(lab, "b")
    for node in made:
        node.up(coordinator)
    return made


B_ADDRESSES = ("192.168.12.2:41641", "[2001:db8:12::2]:41641")  # IPv6 is preferred among equals


def is_direct(pongs: str) -> bool:
    return any(f"via {address}" in pongs for address in B_ADDRESSES)


def kernel_ping(node: Node, target: str, count: int = 5) -> str:
    return node.lab.run(node.host, "ping", "-c", str(count), "-i", "0.1", "-W", "2", target, check=False).stdout


def test_mesh_two_nodes_talk_directly(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    assert is_direct(a.ping(b.ip, direct=True))
    assert " 0% packet loss" in kernel_ping(a, b.ip)
    assert " 0% packet loss" in kernel_ping(b, a.ip)
    assert a.peer("node-b")["CurAddr"] in B_ADDRESSES


def test_mesh_ipv6_addresses_answer(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    v6 = b.mesh("ip", "-6").stdout.strip()
    assert " 0% packet loss" in kernel_ping(a, v6)


def test_mesh_all_kinds_of_ping_answer(nodes: tuple[Node, Node]) -> None:
    """NM-08."""
    a, b = nodes
    for kind in ("--tsmp", "--icmp"):
        assert "pong from node-b" in a.mesh("ping", kind, "--c=1", b.ip).stdout


def test_mesh_whois_names_the_peer(nodes: tuple[Node, Node]) -> None:
    """NM-05."""
    a, b = nodes
    assert "node-b" in a.mesh("whois", b.ip).stdout


ECHO = """
import socket, sys
server = socket.create_server((sys.argv[1], 7))
print("ready", flush=True)
while True:
    connection, _ = server.accept()
    connection.sendall(connection.recv(100).upper())
    connection.close()
"""
SOCKS = """
import socket
proxy = socket.create_connection(("127.0.0.1", 1080), 5)
proxy.sendall(bytes([5, 1, 0]) + bytes([5, 1, 0, 3, 6]) + b"node-b" + bytes([0, 7]) + b"hello")
answer = b""
while data := proxy.recv(100):
    answer += data
print(answer.decode("latin-1"))
"""


def test_mesh_socks5_reaches_a_peer_by_name(nodes: tuple[Node, Node], lab: Lab) -> None:
    _, b = nodes
    server = lab.start("b", "echo.log", program("python"), "-c", ECHO, b.ip)
    wait_until(lambda: "ready" in server.output, 5, "the echo server")
    try:
        assert "HELLO" in lab.run("a", program("python"), "-c", SOCKS).stdout
    finally:
        server.stop()


HTTP_PROXY = """
import socket
with socket.create_connection(("127.0.0.1", 1080), timeout=10) as s:
    s.sendall(b"CONNECT node-b:7 HTTP/1.1\\r\\nHost: node-b\\r\\n\\r\\nhello")
    answer = b""
    while b"HELLO" not in answer:
        data = s.recv(100)
        if not data:
            break
        answer += data
print(answer.decode("latin-1"))
"""


def test_mesh_http_proxy_at_the_same_address_reaches_a_peer_by_name(nodes: tuple[Node, Node], lab: Lab) -> None:
    """flag:--outbound-http-proxy-listen."""
    _, b = nodes
    server = lab.start("b", "echo.log", program("python"), "-c", ECHO, b.ip)
    wait_until(lambda: "ready" in server.output, 5, "the echo server")
    try:
        assert "HELLO" in lab.run("a", program("python"), "-c", HTTP_PROXY).stdout
    finally:
        server.stop()


def test_mesh_debug_server_tells_counters(nodes: tuple[Node, Node], lab: Lab) -> None:
    fetch = "from urllib.request import urlopen; print(urlopen('http://127.0.0.1:9000/debug/metrics').read().decode())"
    assert "meshd_udp_reads" in lab.run("a", program("python"), "-c", fetch).stdout


def test_mesh_node_restart_keeps_identity_and_path(nodes: tuple[Node, Node]) -> None:
    """SM-13."""
    a, b = nodes
    before, key = b.ip, b.status()["Self"]["PublicKey"]
    assert b.stop() == 0
    assert b.host_traces() == []
    b.start()
    wait_until(lambda: b.status()["BackendState"] == "Running", 15, "b to run again")
    assert (b.ip, b.status()["Self"]["PublicKey"]) == (before, key)
    wait_until(lambda: " 0% packet loss" in kernel_ping(a, b.ip, 2), 15, "a to reach b again")


def test_mesh_killed_node_is_cleaned_up_after(nodes: tuple[Node, Node]) -> None:
    """Cleanup undoes what a SIGKILL left; the next start works at once."""
    _, b = nodes
    b.stop(signal.SIGKILL)
    assert any(trace.startswith("52") for trace in b.host_traces())
    b.lab.run(b.host, program("meshd"), "--cleanup", f"--statedir={b.directory}")
    assert b.host_traces() == []
    b.start()
    wait_until(lambda: b.status()["BackendState"] == "Running", 15, "b to run again")


def test_mesh_survives_a_coordinator_restart(nodes: tuple[Node, Node], coordinator: Coordinator) -> None:
    a, b = nodes
    wait_until(lambda: " 0% packet loss" in kernel_ping(a, b.ip, 2), 15, "a to reach b")
    coordinator.restart(signal.SIGKILL)
    assert " 0% packet loss" in kernel_ping(a, b.ip)
    wait_until(lambda: a.peer("node-b").get("Online"), 30, "the control connection to return")


def test_mesh_lost_udp_goes_on_through_the_relay_and_returns(nodes: tuple[Node, Node], lab: Lab) -> None:
    a, b = nodes
    a.ping(b.ip, direct=True)
    lab.script("block-udp")
    try:
        wait_until(lambda: " 0% packet loss" in kernel_ping(a, b.ip, 3), 30, "the relay to take over")
        assert "DERP" in a.ping(b.ip, direct=False)
    finally:
        lab.script("allow-udp")
    assert is_direct(a.ping(b.ip, direct=True))


def test_mesh_down_and_up_again(nodes: tuple[Node, Node]) -> None:
    """SM-15."""
    a, b = nodes
    b.mesh("down")
    assert b.status()["BackendState"] == "Stopped"
    assert not [t for t in b.host_traces() if t != "interface"]
    b.mesh("up")
    wait_until(lambda: b.status()["BackendState"] == "Running", 15, "b to run again")
    wait_until(lambda: " 0% packet loss" in kernel_ping(a, b.ip, 2), 15, "a to reach b again")


def test_mesh_logout_forgets_and_another_login_gets_in(nodes: tuple[Node, Node], coordinator: Coordinator) -> None:
    _, b = nodes
    b.mesh("logout")
    assert b.status()["BackendState"] == "NeedsLogin"
    b.up(coordinator)
    assert b.status()["BackendState"] == "Running"
