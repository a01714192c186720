"""Two nodes behind masquerading routers: hole punching, roaming, routers and relays that go away."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator

import pytest

from tests.e2e.labhosts import Coordinator, Lab, Node, running_lab, wait_until
from tests.e2e.traffic import FileServer, fetched_digest, lost_percent, slow_transfer, wait_reachable

pytestmark = pytest.mark.netns

ROUTER_A, ROUTER_B = "198.51.100.11", "198.51.100.12"

OPEN_PORT = """
table inet open-port {
    chain pre {
        type nat hook prerouting priority -100;
        iifname "wan" udp dport 41641 dnat ip to 192.168.12.2
    }
}
insert rule inet lab-nat forward iifname "wan" ct status dnat accept
"""

# What a reboot does to a router: it forgets every flow (IPCTNL_MSG_CT_DELETE of nfnetlink without a tuple).
FORGET = """
import socket, struct
sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
for family in (socket.AF_INET, socket.AF_INET6):
    sock.send(struct.pack("=IHHII", 20, 1 << 8 | 2, 1 | 4, 1, 0) + struct.pack("=BBH", family, 0, 0))
    error = struct.unpack_from("=i", sock.recv(4096), 16)[0]
    assert error == 0, error
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("nat"), "mt-nat", "--nat") as made:
        # One family, so that there is one path to look at.
        for host in ("a", "b"):
            made.run(host, "ip", "-6", "address", "flush", "dev", "eth0", "scope", "global")
        yield made


@pytest.fixture(scope="module")
def coordinator(lab: Lab) -> Coordinator:
    return Coordinator(lab)


@pytest.fixture(scope="module")
def nodes(lab: Lab, coordinator: Coordinator) -> tuple[Node, Node]:
    made = Node(lab, "a"), Node(lab, "b")
    for node in made:
        node.up(coordinator)
    return made


@pytest.fixture(scope="module")
def files(lab: Lab, nodes: tuple[Node, Node]) -> FileServer:
    return FileServer(lab, "b", 12_000_000)


def direct_to(node: Node, peer: Node, address: str, seconds: float = 30) -> None:
    """Wait until ``node`` sends straight to this address (or to some port of it, when it ends in a colon)."""

    def there() -> bool:
        node.mesh("ping", "--c=1", "--timeout=2s", "--until-direct=false", peer.ip, check=False)
        used = str(node.peer(peer.name)["CurAddr"])
        return used.startswith(address) if address.endswith(":") else used == address

    wait_until(there, seconds, f"{node.name} to reach {peer.name} at {address}")


def move(lab: Lab, old: str, new: str) -> None:
    """Host ``a`` comes into another place of its network: new address, new default route."""
    lab.run("a", "ip", "address", "del", f"{old}/24", "dev", "eth0")
    lab.run("a", "ip", "address", "add", f"{new}/24", "dev", "eth0")
    lab.run("a", "ip", "route", "replace", "default", "via", "192.168.11.1")


def test_nat_holes_are_punched(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    a.ping(b.ip, direct=True)
    direct_to(a, b, f"{ROUTER_B}:41641")
    direct_to(b, a, f"{ROUTER_A}:41641")
    assert lost_percent(a.lab, "a", b.ip) == 0


def test_nat_moved_host_keeps_its_transfer(nodes: tuple[Node, Node], lab: Lab, files: FileServer) -> None:
    a, b = nodes
    try:
        with slow_transfer(lab, "a", b.ip, files) as curl:
            move(lab, "192.168.11.2", "192.168.11.7")
            assert curl.poll() is None, "moved too late"
        direct_to(a, b, f"{ROUTER_B}:41641")
        direct_to(b, a, f"{ROUTER_A}:")  # the router keeps the old port for the old place
    finally:
        move(lab, "192.168.11.7", "192.168.11.2")
    wait_reachable(lab, "b", a.ip)


def test_nat_unplugged_host_keeps_its_transfer(nodes: tuple[Node, Node], lab: Lab, files: FileServer) -> None:
    """The cable is out long enough to be noticed, then the host comes back with another address."""
    a, b = nodes
    try:
        with slow_transfer(lab, "a", b.ip, files):
            lab.run("a", "ip", "link", "set", "eth0", "down")
            wait_until(lambda: lost_percent(lab, "a", b.ip, 1, "-W", "1") == 100, 5, "the link to be down")
            lab.run("a", "ip", "link", "set", "eth0", "up")
            move(lab, "192.168.11.2", "192.168.11.9")
        direct_to(a, b, f"{ROUTER_B}:41641")
    finally:
        move(lab, "192.168.11.9", "192.168.11.2")
    wait_reachable(lab, "b", a.ip)


def test_nat_rebooted_router_is_survived(nodes: tuple[Node, Node], lab: Lab, files: FileServer) -> None:
    a, b = nodes
    direct_to(a, b, f"{ROUTER_B}:41641")
    with slow_transfer(lab, "a", b.ip, files):
        for router in ("ra", "rb"):
            lab.run(router, sys.executable, "-c", FORGET)
    direct_to(a, b, f"{ROUTER_B}:41641")
    direct_to(b, a, f"{ROUTER_A}:41641")


def test_nat_rebooted_router_lets_an_idle_node_be_reached(nodes: tuple[Node, Node], lab: Lab) -> None:
    """Its connection to the relay is unknown to the router until something goes out on it."""
    a, b = nodes
    direct_to(a, b, f"{ROUTER_B}:41641")
    lab.script("block-udp")
    try:
        wait_reachable(lab, "a", b.ip, 30)
        # Idle, so that neither probes of paths nor network checks are under way when the routers reboot.
        wait_until(lambda: not a.peer(b.name)["Active"] and not b.peer(a.name)["Active"], 90, "the nodes to be idle")
        for router in ("ra", "rb"):
            lab.run(router, sys.executable, "-c", FORGET)
        time.sleep(20)
        assert lost_percent(lab, "a", b.ip, 5, "-W", "2") <= 20
    finally:
        lab.script("allow-udp")
    direct_to(a, b, f"{ROUTER_B}:41641")


def test_nat_router_with_another_address_is_survived(nodes: tuple[Node, Node], lab: Lab, files: FileServer) -> None:
    """The provider gives the router of ``a`` a new address: nobody knows the flows, b has to learn the place."""
    a, b = nodes
    direct_to(b, a, f"{ROUTER_A}:41641")

    def renumber(old: str, new: str) -> None:
        lab.run("ra", "ip", "address", "add", f"{new}/24", "dev", "wan")
        lab.run("ra", "ip", "address", "del", f"{old}/24", "dev", "wan")
        lab.run("ra", "ip", "address", "replace", f"{new}/24", "dev", "wan")
        lab.run("ra", "ip", "route", "replace", "default", "via", "198.51.100.1")
        lab.run("ra", sys.executable, "-c", FORGET)

    try:
        with slow_transfer(lab, "a", b.ip, files):
            renumber(ROUTER_A, "198.51.100.77")
        direct_to(b, a, "198.51.100.77:41641", 40)
    finally:
        renumber("198.51.100.77", ROUTER_A)
    direct_to(b, a, f"{ROUTER_A}:41641", 40)


def test_nat_another_port_for_every_destination(nodes: tuple[Node, Node], lab: Lab, files: FileServer) -> None:
    """The router of ``a`` makes hole punching impossible; with a port open at the other side it is not needed."""
    a, b = nodes
    direct_to(a, b, f"{ROUTER_B}:41641")
    lab.run("ra", "nft", "flush chain inet lab-nat post")
    lab.run("ra", "nft", 'add rule inet lab-nat post oifname "wan" masquerade fully-random')
    lab.run("ra", sys.executable, "-c", FORGET)
    try:
        with slow_transfer(lab, "a", b.ip, files):
            assert "DERP" in a.ping(b.ip, direct=False)
        lab.run("rb", "sh", "-c", f"echo '{OPEN_PORT}' | nft -f -")
        direct_to(a, b, f"{ROUTER_B}:41641")
        direct_to(b, a, f"{ROUTER_A}:")
        with slow_transfer(lab, "a", b.ip, files):
            pass
    finally:
        lab.run("rb", "nft", "delete table inet open-port", check=False)
        lab.run("ra", "nft", "flush chain inet lab-nat post")
        lab.run("ra", "nft", 'add rule inet lab-nat post oifname "wan" masquerade')
        for router in ("ra", "rb"):
            lab.run(router, sys.executable, "-c", FORGET)
    direct_to(a, b, f"{ROUTER_B}:41641")
    direct_to(b, a, f"{ROUTER_A}:41641")


def test_nat_path_that_became_narrow_without_saying_so_carries_large_packets(
    nodes: tuple[Node, Node], lab: Lab, files: FileServer
) -> None:
    """A tunnel on the way, say, and a firewall that drops ICMP."""
    a, b = nodes
    direct_to(a, b, f"{ROUTER_B}:41641")
    silent = "table ip silent { chain out { type filter hook output priority 0; icmp type 3 drop; }; };"
    try:
        for router in ("ra", "rb"):
            lab.run(router, "sh", "-c", f"echo '{silent}' | nft -f -")
            lab.run(router, "ip", "link", "set", "wan", "mtu", "1280")
        assert lost_percent(lab, "a", b.ip, 5, "-s", "1252") == 0
        assert fetched_digest(lab, "a", b.ip) == files.digest
    finally:
        for router in ("ra", "rb"):
            lab.run(router, "nft", "delete table ip silent")
            lab.run(router, "ip", "link", "set", "wan", "mtu", "1500")


@pytest.mark.parametrize("router", ["ra", "rb"])
def test_nat_udp_blocked_on_one_side_goes_through_the_relay(
    nodes: tuple[Node, Node], lab: Lab, files: FileServer, router: str
) -> None:
    a, b = nodes
    direct_to(a, b, f"{ROUTER_B}:41641")
    try:
        with slow_transfer(lab, "a", b.ip, files):
            lab.script("block-udp", router)
        assert "DERP" in a.ping(b.ip, direct=False)
    finally:
        lab.script("allow-udp")
    direct_to(a, b, f"{ROUTER_B}:41641")
    direct_to(b, a, f"{ROUTER_A}:41641")


def test_nat_killed_relay_is_found_again(nodes: tuple[Node, Node], lab: Lab, coordinator: Coordinator) -> None:
    a, b = nodes
    lab.script("block-udp")
    try:
        wait_reachable(lab, "a", b.ip, 30)
        coordinator.restart(signal.SIGKILL)
        wait_reachable(lab, "a", b.ip, 30)
        wait_reachable(lab, "b", a.ip, 30)
    finally:
        lab.script("allow-udp")
    direct_to(a, b, f"{ROUTER_B}:41641")


def test_nat_restart_without_a_coordinator_ends_when_it_is_back(
    nodes: tuple[Node, Node], coordinator: Coordinator
) -> None:
    a, b = nodes
    direct_to(a, b, f"{ROUTER_B}:41641")
    coordinator.process.stop(signal.SIGKILL)
    assert lost_percent(a.lab, "a", b.ip) == 0, "the direct path needs nobody"
    b.stop()
    b.start()
    coordinator.restart()
    wait_until(lambda: b.status()["BackendState"] == "Running", 30, "b to run again")
    direct_to(a, b, f"{ROUTER_B}:41641")
