"""Two genuine tailscaled and one meshd in a network of mesh-coord: every pair, and a restart of everybody."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

import pytest

from tests.e2e.extrahost import extra_host
from tests.e2e.labhosts import Coordinator, Node, running_lab, wait_until
from tests.e2e.traffic import FileServer, fetched_digest, lost_percent, wait_reachable
from tests.interop.genuine import ADDRESS, GenuineNode, needs, private_address

pytestmark = [pytest.mark.netns, pytest.mark.interop, *needs("tailscaled", "tailscale")]

HOSTS = ("a", "b", "c")


class Three:
    """meshd on ``a``, tailscaled on ``b`` and ``c``, mesh-coord on ``net``."""

    def __init__(self, coordinator: Coordinator) -> None:
        self.lab = coordinator.lab
        self.coordinator = coordinator
        self.nodes: dict[str, Node] = {
            "a": Node(self.lab, "a"),
            "b": GenuineNode(self.lab, "b"),
            "c": GenuineNode(self.lab, "c"),
        }
        for node in self.nodes.values():
            node.up(coordinator)
        self.ips = {host: node.mesh("ip").stdout.split() for host, node in self.nodes.items()}

    def pairs_reach_each_other(self) -> None:
        for host, other in permutations(HOSTS, 2):
            for address in self.ips[other]:
                wait_reachable(self.lab, host, address)

    def pairs_are_direct(self) -> None:
        for host, other in permutations(HOSTS, 2):
            pong = self.nodes[host].ping(self.ips[other][0], direct=True).splitlines()[-1]
            assert f"pong from node-{other}" in pong
            assert "DERP" not in pong

    def all_running(self) -> None:
        for node in self.nodes.values():
            wait_until(lambda n=node: n.status()["BackendState"] == "Running", 20, f"{node.name} to run")


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Three]:
    with running_lab(tmp_path_factory.mktemp("three"), "mt-three") as lab, extra_host(lab, behind="net"):
        private_address(lab)
        yield Three(Coordinator(lab, url=f"http://{ADDRESS}:8080"))


def test_three_nodes_all_pairs_become_direct(three: Three) -> None:
    three.pairs_are_direct()
    three.pairs_reach_each_other()


def test_three_nodes_all_kinds_of_ping_answer(three: Three) -> None:
    for host, other in permutations(HOSTS, 2):
        for kind in ("--tsmp", "--icmp"):
            for address in three.ips[other]:
                pong = three.nodes[host].mesh("ping", kind, "--c=1", address).stdout
                assert f"pong from node-{other}" in pong


def test_three_nodes_see_each_other_online(three: Three) -> None:
    for host, other in permutations(HOSTS, 2):
        seen = three.nodes[host].peer(f"node-{other}")
        assert seen["Online"]
        assert seen["TailscaleIPs"] == three.ips[other]


def test_three_nodes_files_arrive(three: Three) -> None:
    served = {host: FileServer(three.lab, host, 5_000_000) for host in HOSTS}
    for host, other in permutations(HOSTS, 2):
        assert fetched_digest(three.lab, host, three.ips[other][0]) == served[other].digest


@pytest.mark.parametrize("host", HOSTS)
def test_three_nodes_one_restarts(three: Three, host: str) -> None:
    three.nodes[host].stop()
    three.nodes[host].start()
    three.all_running()
    for other in HOSTS:
        if other != host:
            wait_reachable(three.lab, other, three.ips[host][0])
    three.pairs_reach_each_other()
    three.pairs_are_direct()


def test_three_nodes_coordinator_restarts(three: Three) -> None:
    three.coordinator.restart()
    three.pairs_reach_each_other()
    for host, other in permutations(HOSTS, 2):
        wait_until(
            lambda h=host, o=other: three.nodes[h].peer(f"node-{o}").get("Online"), 60, f"{host} to see {other} online"
        )


def test_three_nodes_all_restart_at_once(three: Three) -> None:
    for node in three.nodes.values():
        node.stop()
    for node in three.nodes.values():
        node.start()
    three.all_running()
    three.pairs_reach_each_other()
    three.pairs_are_direct()


def test_three_nodes_without_udp_are_relayed(three: Three) -> None:
    three.lab.script("block-udp")
    try:
        three.pairs_reach_each_other()
        assert "DERP" in three.nodes["a"].ping(three.ips["b"][0], direct=False)
    finally:
        three.lab.script("allow-udp")
    three.pairs_are_direct()


def test_three_nodes_deleted_one_is_gone_for_the_others(three: Three) -> None:
    three.coordinator.command("nodes", "delete", "node-c")
    for host in ("a", "b"):
        wait_until(lambda h=host: not three.nodes[h].peer("node-c"), 20, "the deleted node to leave the map")
        assert lost_percent(three.lab, host, three.ips["c"][0], 1, "-W", "1") == 100
    wait_reachable(three.lab, "a", three.ips["b"][0])
