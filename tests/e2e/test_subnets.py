"""Routes beyond the nodes: a subnet router and an exit node, with real forwarding by the kernel."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.e2e.extrahost import HOST_V4, HOST_V6, LAN_V4, LAN_V6, extra_host
from tests.e2e.labhosts import Coordinator, Lab, Node, running_lab, wait_until
from tests.e2e.traffic import FileServer, caller, fetched_digest, lost_percent, start_mirror, wait_reachable

pytestmark = pytest.mark.netns

MASQUERADE = """
table inet exit {
    chain post {
        type nat hook postrouting priority 100;
        oifname "eth0" ip saddr 100.64.0.0/10 masquerade
        oifname "eth0" ip6 saddr fd7a:115c:a1e0::/48 masquerade
    }
}
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("subnets"), "mt-sub") as made:
        for host in ("a", "b"):
            # A strict reverse path check has no place on a host with policy routing.
            made.run(host, "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.eth0.rp_filter=0")
        with extra_host(made, behind="b"):
            yield made


@pytest.fixture(scope="module")
def coordinator(lab: Lab) -> Coordinator:
    return Coordinator(lab)


@pytest.fixture(scope="module")
def nodes(lab: Lab, coordinator: Coordinator) -> tuple[Node, Node]:
    made = Node(lab, "a"), Node(lab, "b")
    for node in made:
        node.up(coordinator)
    made[0].ping(made[1].ip, direct=True)
    return made


def routes(node: Node) -> str:
    run = node.lab.run
    return "".join(run(node.host, "ip", family, "route", "show", "table", "52").stdout for family in ("-4", "-6"))


def unreachable(lab: Lab, target: str, seconds: float = 15) -> None:
    wait_until(lambda: lost_percent(lab, "a", target, 1, "-W", "1") == 100, seconds, f"{target} to be unreachable")


def test_subnet_is_reached_once_advertised_approved_and_accepted(
    nodes: tuple[Node, Node], lab: Lab, coordinator: Coordinator
) -> None:
    a, b = nodes
    assert lost_percent(lab, "a", HOST_V4, 1, "-W", "1") == 100
    b.mesh("set", f"--advertise-routes={LAN_V4},{LAN_V6}")
    listed = wait_until(
        lambda: [n for n in json.loads(coordinator.command("nodes", "list", "--json")) if LAN_V4 in str(n)],
        10,
        "the server to know of the routes",
    )
    assert listed[0]["name"] == "node-b"
    coordinator.command("nodes", "approve-routes", "node-b", LAN_V4, LAN_V6)
    wait_until(lambda: LAN_V4 in str(a.peer("node-b").get("PrimaryRoutes")), 10, "the approval to reach a")
    assert LAN_V4 not in routes(a), "nobody asked a to accept routes"
    a.mesh("set", "--accept-routes")
    wait_until(lambda: LAN_V4 in routes(a) and LAN_V6 in routes(a), 10, "the routes on a")
    for target in (HOST_V4, HOST_V6):
        wait_reachable(lab, "a", target, 10)


def test_subnet_carries_traffic_started_on_both_sides(nodes: tuple[Node, Node], lab: Lab) -> None:
    a, _ = nodes
    served = FileServer(lab, "c", 5_000_000)
    for address in (HOST_V4, HOST_V6):
        assert fetched_digest(lab, "a", address) == served.digest
    assert lost_percent(lab, "c", a.ip, 3) == 0
    served = FileServer(lab, "a", 3_000_000)
    assert fetched_digest(lab, "c", a.ip) == served.digest


def test_subnet_survives_restarts(nodes: tuple[Node, Node], lab: Lab) -> None:
    for node in reversed(nodes):
        node.stop()
        node.start()
        wait_until(lambda n=node: n.status()["BackendState"] == "Running", 15, "the node to run again")
        wait_reachable(lab, "a", HOST_V4, 20)


def test_subnet_is_gone_when_not_accepted_approved_or_advertised(
    nodes: tuple[Node, Node], lab: Lab, coordinator: Coordinator
) -> None:
    a, b = nodes
    a.mesh("set", "--accept-routes=false")
    unreachable(lab, HOST_V4)
    assert LAN_V4 not in routes(a)
    a.mesh("set", "--accept-routes")
    wait_reachable(lab, "a", HOST_V4, 10)
    coordinator.command("nodes", "approve-routes", "node-b")
    unreachable(lab, HOST_V4)
    coordinator.command("nodes", "approve-routes", "node-b", "--all")
    for target in (HOST_V4, HOST_V6):
        wait_reachable(lab, "a", target, 10)
    b.mesh("set", "--advertise-routes=")
    for target in (HOST_V4, HOST_V6):
        unreachable(lab, target)
    assert LAN_V4 not in routes(a)
    assert lost_percent(lab, "a", b.ip) == 0
    a.mesh("set", "--accept-routes=false")


OUTSIDE = {"198.51.100.1": "192.168.12.2", "2001:db8:1::1": "2001:db8:12::2"}


def underlay_callers(lab: Lab) -> set[str]:
    """From where nodes are connected to the coordinator and its relay."""
    lines = lab.run("net", "ss", "-Htn", "state", "established", "sport = :8080").stdout.splitlines()
    return {line.split()[3].rpartition(":")[0].strip("[]").removeprefix("::ffff:") for line in lines}


def test_exit_node_carries_everything_but_the_underlay(
    nodes: tuple[Node, Node], lab: Lab, coordinator: Coordinator
) -> None:
    a, b = nodes
    lab.run("b", "sh", "-c", f"echo '{MASQUERADE}' | nft -f -")
    start_mirror(lab, "net")
    assert caller(lab, "a", "198.51.100.1") == "192.168.11.2"
    b.mesh("set", "--advertise-exit-node")
    done = a.mesh("set", f"--exit-node={b.ip}", check=False)
    assert done.returncode != 0, "it is not approved yet"
    wait_until(
        lambda: "0.0.0.0/0" in coordinator.command("nodes", "list", "--json"), 10, "the server to know of the offer"
    )
    coordinator.command("nodes", "approve-routes", "node-b", "--all")
    wait_until(lambda: a.peer("node-b").get("ExitNodeOption"), 10, "the offer to reach a")
    for target in OUTSIDE:
        assert caller(lab, "a", target) not in OUTSIDE.values()
    a.mesh("set", f"--exit-node={b.ip}")
    for target, seen in OUTSIDE.items():
        wait_until(lambda t=target, s=seen: caller(lab, "a", t) == s, 15, f"{target} to be reached through b")
    assert a.status()["ExitNodeStatus"]["Online"]
    assert a.peer("node-b")["ExitNode"]
    a.ping(b.ip, direct=True)
    assert a.peer("node-b")["CurAddr"] in ("192.168.12.2:41641", "[2001:db8:12::2]:41641")


def test_exit_node_does_not_carry_the_underlay_after_restarts(
    nodes: tuple[Node, Node], lab: Lab, coordinator: Coordinator
) -> None:
    a, b = nodes
    coordinator.restart()
    wait_until(lambda: underlay_callers(lab) >= {"192.168.11.2", "192.168.12.2"}, 40, "both to be connected again")
    a.stop()
    a.start()
    wait_until(lambda: a.status()["BackendState"] == "Running", 15, "a to run again")
    for target, seen in OUTSIDE.items():
        wait_until(lambda t=target, s=seen: caller(lab, "a", t) == s, 15, f"{target} to be reached through b")
    lab.script("block-udp")
    try:
        wait_until(lambda: caller(lab, "a", "198.51.100.1") == "192.168.12.2", 30, "the exit node through the relay")
    finally:
        lab.script("allow-udp")
    a.ping(b.ip, direct=True)


def test_exit_node_that_is_gone_lets_nothing_out(nodes: tuple[Node, Node], lab: Lab) -> None:
    """RT-06, EX-04."""
    _, b = nodes
    b.mesh("down")
    for target in OUTSIDE:
        assert caller(lab, "a", target) == ""
    b.mesh("up")
    wait_until(lambda: caller(lab, "a", "198.51.100.1") == "192.168.12.2", 20, "the exit node to be back")


def test_exit_node_local_network_is_reached_only_when_allowed(nodes: tuple[Node, Node], lab: Lab) -> None:
    """RT-06, EX-04."""
    a, _ = nodes
    wait_until(lambda: "192.168.11.0/24" in routes(a), 10, "the local network in the table")
    assert "throw 192.168.11.0/24" not in routes(a)
    a.mesh("set", "--exit-node-allow-lan-access")
    wait_until(lambda: "throw 192.168.11.0/24" in routes(a), 10, "the local network to be left alone")
    assert lost_percent(lab, "a", "192.168.11.1", 2) == 0
    a.mesh("set", "--exit-node-allow-lan-access=false")


def test_exit_node_given_up_leaves_the_host_as_before(nodes: tuple[Node, Node], lab: Lab) -> None:
    a, _ = nodes
    a.mesh("set", "--exit-node=")
    wait_until(lambda: "default" not in routes(a), 10, "the default route to go")
    assert caller(lab, "a", "198.51.100.1") == "192.168.11.2"
