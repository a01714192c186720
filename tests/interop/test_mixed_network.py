"""One meshd and one tailscaled in a network of headscale and derper, in both places."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from tests.e2e.extrahost import HOST_V4, HOST_V6, LAN_V4, LAN_V6, extra_host
from tests.e2e.labhosts import Lab, Node, running_lab, wait_until
from tests.e2e.traffic import (
    FileServer,
    caller,
    fetched_digest,
    lost_percent,
    slow_transfer,
    start_mirror,
    wait_reachable,
)
from tests.interop.genuine import GenuineNode, Headscale, needs

pytestmark = [
    pytest.mark.netns,
    pytest.mark.interop,
    *needs("tailscaled", "tailscale", "headscale", "derper"),
]

SIZE = 20 * 1000 * 1000
KINDS = {"a": (Node, GenuineNode), "b": (GenuineNode, Node)}


class Mixed:
    """The network: ``a`` and ``b``, one of them ours."""

    def __init__(self, lab: Lab, ours: str) -> None:
        self.lab = lab
        self.server = Headscale(lab)
        kind_a, kind_b = KINDS[ours]
        self.a, self.b = kind_a(lab, "a"), kind_b(lab, "b")
        self.ours = self.a if ours == "a" else self.b
        for node in self.nodes:
            self.join(node)
        self.ips = {node.name: self.addresses(node) for node in self.nodes}
        self.files = {node.name: FileServer(lab, node.host, SIZE) for node in self.nodes}

    @property
    def nodes(self) -> tuple[Node, Node]:
        return self.a, self.b

    def join(self, node: Node) -> None:
        node.mesh(
            "up", f"--login-server={self.server.url}", f"--auth-key={self.server.auth_key}",
            f"--hostname={node.name}", "--timeout=30s",
        )  # fmt: skip

    def other(self, node: Node) -> Node:
        return self.b if node is self.a else self.a

    def addresses(self, node: Node) -> list[str]:
        return node.mesh("ip").stdout.split()

    def reach_each_other(self, seconds: float = 20) -> None:
        for node in self.nodes:
            for address in self.ips[self.other(node).name]:
                wait_reachable(self.lab, node.host, address, seconds)

    def files_arrive(self, addresses: int = 2) -> None:
        """A file each way, to the first or to both of the addresses."""
        for node in self.nodes:
            other = self.other(node)
            for address in self.ips[other.name][:addresses]:
                assert fetched_digest(self.lab, node.host, address) == self.files[other.name].digest

    def running(self, node: Node) -> None:
        wait_until(lambda: node.status()["BackendState"] == "Running", 20, f"{node.name} to run")

    def expect_path(self, *, direct: bool) -> None:
        """Both command lines see this kind of path."""
        for node in self.nodes:
            pong = node.ping(self.ips[self.other(node).name][0], direct=direct).splitlines()[-1]
            assert ("via DERP(test)" in pong) != direct, pong


@pytest.fixture(scope="module", params=["a", "b"], ids=["meshd-a", "meshd-b"])
def mixed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mixed]:
    with running_lab(tmp_path_factory.mktemp("mixed"), "mt-mixed") as lab, extra_host(lab, behind="b"):
        yield Mixed(lab, request.param)


@pytest.fixture(autouse=True)
def logs(mixed: Mixed) -> Iterator[None]:
    """What the programs wrote during a test; pytest shows it when the test fails."""
    before = {path: path.stat().st_size for path in mixed.lab.directory.glob("*.log")}
    yield
    for path in sorted(mixed.lab.directory.glob("*.log")):
        with path.open("rb") as log:
            log.seek(max(before.get(path, 0), path.stat().st_size - 20_000))
            print(f"--- {path.name}\n{log.read().decode(errors='replace')}")


def test_mixed_both_become_direct(mixed: Mixed) -> None:
    mixed.expect_path(direct=True)
    paths = {
        "a": ("192.168.11.2:41641", "[2001:db8:11::2]:41641"),
        "b": ("192.168.12.2:41641", "[2001:db8:12::2]:41641"),
    }
    for node, other in (mixed.nodes, mixed.nodes[::-1]):
        wait_until(lambda n=node, o=other: n.peer(o.name)["CurAddr"] in paths[o.host], 10, "the path in the status")
        assert node.peer(other.name)["Online"]


def test_mixed_all_kinds_of_ping_answer(mixed: Mixed) -> None:
    for node in mixed.nodes:
        other = mixed.other(node)
        for address in mixed.ips[other.name]:
            for kind in ("--tsmp", "--icmp"):
                pong = node.mesh("ping", kind, "--c=1", address).stdout
                assert f"pong from {other.name}" in pong, pong


def test_mixed_whois_names_the_peer(mixed: Mixed) -> None:
    for node in mixed.nodes:
        for address in mixed.ips[mixed.other(node).name]:
            assert mixed.other(node).name in node.mesh("whois", address).stdout


def test_mixed_direct_kernel_pings_and_files_arrive(mixed: Mixed) -> None:
    for node in mixed.nodes:
        for address in mixed.ips[mixed.other(node).name]:
            assert lost_percent(mixed.lab, node.host, address, 10) == 0
            assert lost_percent(mixed.lab, node.host, address, 3, "-s", "4000") == 0
    mixed.files_arrive()


# The places are exchanged, so that each program goes through each of these.
@pytest.mark.parametrize(("host", "number"), [("a", signal.SIGTERM), ("b", signal.SIGKILL)])
def test_mixed_restarted_side_comes_back(mixed: Mixed, host: str, number: signal.Signals) -> None:
    node = mixed.a if host == "a" else mixed.b
    node.stop(number)
    node.start()
    mixed.running(node)
    # The side that still believes in the old session starts.
    wait_reachable(mixed.lab, mixed.other(node).host, mixed.ips[node.name][0])
    mixed.reach_each_other()
    mixed.expect_path(direct=True)
    assert mixed.addresses(node) == mixed.ips[node.name]


def test_mixed_restarted_server_is_found_again(mixed: Mixed) -> None:
    """By meshd soon; tailscaled waits some ten seconds first."""
    mixed.server.restart()
    mixed.reach_each_other()
    wait_until(lambda: mixed.server.node(mixed.ours.name).get("online"), 20, "meshd to be online")


def test_mixed_down_and_up_again(mixed: Mixed) -> None:
    for node in mixed.nodes:
        node.mesh("down")
        assert node.status()["BackendState"] == "Stopped"
        node.mesh("up")
        mixed.running(node)
        mixed.reach_each_other()


def test_mixed_lost_udp_goes_on_through_the_relay_and_returns(mixed: Mixed) -> None:
    mixed.expect_path(direct=True)
    try:
        # 5 s of transfer: it begins on the direct path and ends on the relay.
        with slow_transfer(mixed.lab, "a", mixed.ips[mixed.b.name][0], mixed.files[mixed.b.name]):
            mixed.lab.script("block-udp")
        mixed.reach_each_other(30)
        mixed.expect_path(direct=False)
        mixed.files_arrive(addresses=1)
        mixed.ours.stop()
        mixed.ours.start()
        mixed.running(mixed.ours)
        mixed.reach_each_other()
    finally:
        mixed.lab.script("allow-udp")
    mixed.expect_path(direct=True)
    mixed.reach_each_other()


def test_mixed_subnet_of_one_is_reached_by_the_other(mixed: Mixed) -> None:
    a, b = mixed.nodes
    number = str(mixed.server.node(b.name)["id"])
    b.mesh("set", f"--advertise-routes={LAN_V4},{LAN_V6}")
    wait_until(lambda: LAN_V4 in str(mixed.server.node(b.name)), 10, "the server to know of the routes")
    mixed.server.command("nodes", "approve-routes", "--identifier", number, "--routes", f"{LAN_V4},{LAN_V6}")
    a.mesh("set", "--accept-routes")
    for target in (HOST_V4, HOST_V6):
        wait_reachable(mixed.lab, a.host, target)
    mixed.server.command("nodes", "approve-routes", "--identifier", number, "--routes", "")
    for target in (HOST_V4, HOST_V6):
        wait_until(lambda t=target: lost_percent(mixed.lab, a.host, t, 1, "-W", "1") == 100, 20, "it to be cut off")
    a.mesh("set", "--accept-routes=false")
    b.mesh("set", "--advertise-routes=")
    mixed.reach_each_other()


def test_mixed_via_address_of_one_is_reached_by_the_other(mixed: Mixed) -> None:
    """RT-08: 4via6 with a genuine client, and with a genuine router, which terminates what ours translates."""
    a, b = mixed.nodes
    number = str(mixed.server.node(b.name)["id"])
    site = int(ip_address("fd7a:115c:a1e0:b1a:0:7::"))
    route, target = (ip_address(site + int(ip_address(text))) for text in (LAN_V4.partition("/")[0], HOST_V4))
    b.mesh("set", f"--advertise-routes={route}/120")
    wait_until(lambda: str(route) in str(mixed.server.node(b.name)), 10, "the server to know of the route")
    mixed.server.command("nodes", "approve-routes", "--identifier", number, "--routes", f"{route}/120")
    a.mesh("set", "--accept-routes")
    wait_reachable(mixed.lab, a.host, str(target))
    files = FileServer(mixed.lab, "c", SIZE)
    assert fetched_digest(mixed.lab, a.host, str(target)) == files.digest
    assert caller(mixed.lab, a.host, str(target)) == ""
    start_mirror(mixed.lab, "c")
    assert caller(mixed.lab, a.host, str(target)) == "10.20.30.1"
    a.mesh("set", "--accept-routes=false")
    b.mesh("set", "--advertise-routes=")
    mixed.reach_each_other()


def test_mixed_exit_node_carries_the_other(mixed: Mixed) -> None:
    """The way out leads through ``b``, whichever program runs there; the way back is a route, or its translation."""
    a, b = mixed.nodes
    for host, v4, v6 in (("net", "198.51.100.12", "2001:db8:1::12"), ("rb", "192.168.12.2", "2001:db8:12::2")):
        mixed.lab.run(host, "ip", "route", "replace", "100.64.0.0/10", "via", v4)
        mixed.lab.run(host, "ip", "-6", "route", "replace", "fd7a:115c:a1e0::/48", "via", v6)
    start_mirror(mixed.lab, "net")
    outside = dict(zip(("198.51.100.1", "2001:db8:1::1"), mixed.ips[a.name], strict=True))
    number = str(mixed.server.node(b.name)["id"])
    b.mesh("set", "--advertise-exit-node", "--snat-subnet-routes=false")
    wait_until(lambda: "0.0.0.0/0" in str(mixed.server.node(b.name)), 10, "the server to know of the offer")
    mixed.server.command("nodes", "approve-routes", "--identifier", number, "--routes", "0.0.0.0/0,::/0")
    wait_until(lambda: a.peer(b.name).get("ExitNodeOption"), 10, "the offer to reach a")
    for target, seen in outside.items():
        assert caller(mixed.lab, a.host, target) not in ("", seen)
    a.mesh("set", f"--exit-node={mixed.ips[b.name][0]}")
    for target, seen in outside.items():
        wait_until(lambda t=target, s=seen: caller(mixed.lab, a.host, t) == s, 20, f"the way to {target} through b")
    mixed.expect_path(direct=True)
    b.mesh("set", "--snat-subnet-routes")
    for target, seen in (("198.51.100.1", "192.168.12.2"), ("2001:db8:1::1", "2001:db8:12::2")):
        wait_until(lambda t=target, s=seen: caller(mixed.lab, a.host, t) == s, 20, f"{target} to see the exit node")
    a.mesh("set", "--exit-node=")
    for target, seen in outside.items():
        assert caller(mixed.lab, a.host, target) not in ("", seen)
    b.mesh("set", "--advertise-exit-node=false")
    mixed.reach_each_other()


def test_mixed_expired_node_is_cut_off_until_it_logs_in(mixed: Mixed) -> None:
    node, other = mixed.nodes
    mixed.server.command("nodes", "expire", "--identifier", str(mixed.server.node(node.name)["id"]))
    wait_until(lambda: node.status()["BackendState"] == "NeedsLogin", 20, "the expired node to notice")
    target = mixed.ips[node.name][0]
    wait_until(lambda: lost_percent(mixed.lab, other.host, target, 1, "-W", "1") == 100, 20, "it to be cut off")
    node.mesh(
        "up", f"--login-server={mixed.server.url}", f"--auth-key={mixed.server.auth_key}",
        f"--hostname={node.name}", "--timeout=30s", "--force-reauth",
    )  # fmt: skip
    assert mixed.addresses(node) == mixed.ips[node.name]
    mixed.reach_each_other()


def test_mixed_logged_out_node_is_gone_until_it_logs_in(mixed: Mixed) -> None:
    node, other = mixed.nodes
    node.mesh("logout")
    assert node.status()["BackendState"] == "NeedsLogin"
    target = mixed.ips[node.name][0]
    wait_until(lambda: lost_percent(mixed.lab, other.host, target, 1, "-W", "1") == 100, 20, "it to be cut off")
    mixed.join(node)
    mixed.ips[node.name] = mixed.addresses(node)
    mixed.reach_each_other()


def test_mixed_deleted_node_leaves_the_others_map(mixed: Mixed) -> None:
    node, other = mixed.nodes
    mixed.server.command("nodes", "delete", "--force", "--identifier", str(mixed.server.node(node.name)["id"]))
    wait_until(lambda: not other.peer(node.name), 20, "the deleted node to leave the map")
    assert lost_percent(mixed.lab, other.host, mixed.ips[node.name][0], 1, "-W", "1") == 100
    node.mesh("logout", check=False)
    mixed.join(node)
    mixed.ips[node.name] = mixed.addresses(node)
    mixed.reach_each_other()
