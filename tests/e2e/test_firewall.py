"""The packet filter of real hosts with rules of each kind: who sees whom under which address, what is dropped, and
that nothing stays."""

from __future__ import annotations

import shutil
import signal
import sys
import time
from collections.abc import Iterator

import pytest

from tests.e2e.extrahost import HOST_V4, HOST_V6, LAN_V4, LAN_V6, extra_host
from tests.e2e.labhosts import Coordinator, Lab, Node, program, running_lab, wait_until
from tests.e2e.traffic import caller, lost_percent, start_mirror

pytestmark = pytest.mark.netns

ROUTER_V4, ROUTER_V6 = "10.20.30.1", "2001:db8:30::1"  # of b, on the network behind it
OUTSIDE = {"198.51.100.1": "192.168.12.2", "2001:db8:1::1": "2001:db8:12::2"}
PROVIDER = "100.100.2.136"  # an address in 100.64.0.0/10 that is not the mesh's
LEGACY = "iptables-legacy"


@pytest.fixture(scope="module", params=["nftables", "iptables", LEGACY])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def lab(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with (
        pytest.MonkeyPatch.context() as patch,
        running_lab(tmp_path_factory.mktemp("firewall"), "mt-fw") as made,
        extra_host(made, behind="b"),
    ):
        patch.setenv("TS_DEBUG_FIREWALL_MODE", "iptables" if kind == LEGACY else kind)
        made.run("a", "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1", "net.ipv4.conf.eth0.rp_filter=1")
        made.run("b", "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.lan0.rp_filter=0")
        if kind == LEGACY:
            for host in ("a", "b"):
                made.run(host, LEGACY, "-A", "OUTPUT", "-j", "ACCEPT")  # so that this kind is in use
        yield made


@pytest.fixture(scope="module")
def coordinator(lab: Lab) -> Coordinator:
    return Coordinator(lab)


@pytest.fixture(scope="module")
def nodes(lab: Lab, coordinator: Coordinator) -> tuple[Node, Node]:
    made = Node(lab, "a"), Node(lab, "b")
    for node in made:
        node.up(coordinator)
    start_mirror(lab, "c")
    start_mirror(lab, "net")
    made[0].ping(made[1].ip, direct=True)
    return made


def our_rules(node: Node) -> list[str]:
    return [trace for trace in node.host_traces() if "meshd-" in trace]


def health(node: Node) -> str:
    return "\n".join(node.status()["Health"] or [])


def test_rules_are_of_the_kind_that_was_asked_for(nodes: tuple[Node, Node], lab: Lab, kind: str) -> None:
    """env:TS_DEBUG_FIREWALL_MODE; RT-12, RT-13."""
    _, b = nodes
    wait_until(lambda: our_rules(b), 5, "the rules")
    ruleset = lab.run("b", "nft", "list", "ruleset", check=False).stdout
    assert ("table inet meshd-mesh0" in ruleset) == (kind == "nftables")
    assert ("-A INPUT -j meshd-in-mesh0" in lab.run("b", "iptables-save").stdout) == (kind == "iptables")
    assert ("-A INPUT -j meshd-in-mesh0" in lab.run("b", f"{LEGACY}-save").stdout) == (kind == LEGACY)
    assert "acket filter" not in health(b)


def test_host_behind_a_router_sees_the_router_or_the_node(
    nodes: tuple[Node, Node], lab: Lab, coordinator: Coordinator
) -> None:
    """RT-05, RT-12: --snat-subnet-routes."""
    a, b = nodes
    b.mesh("set", f"--advertise-routes={LAN_V4},{LAN_V6}")
    wait_until(
        lambda: "10.20.30.0" in coordinator.command("nodes", "list", "--json"), 10, "the server to know of the routes"
    )
    coordinator.command("nodes", "approve-routes", "node-b", "--all")
    a.mesh("set", "--accept-routes")
    own_v6 = a.mesh("ip", "-6").stdout.strip()
    for snat, seen in (("true", (ROUTER_V4, ROUTER_V6)), ("false", (a.ip, own_v6)), ("true", (ROUTER_V4, ROUTER_V6))):
        b.mesh("set", f"--snat-subnet-routes={snat}")
        for target, expected in zip((HOST_V4, HOST_V6), seen, strict=True):
            wait_until(lambda t=target, e=expected: caller(lab, "a", t) == e, 15, f"{target} to see {expected}")


def test_stateful_filtering_drops_what_the_mesh_did_not_ask_for(nodes: tuple[Node, Node], lab: Lab) -> None:
    """RT-05, RT-12: --stateful-filtering."""
    a, b = nodes
    assert lost_percent(lab, "c", a.ip, 2) == 0
    b.mesh("set", "--stateful-filtering")
    wait_until(lambda: lost_percent(lab, "c", a.ip, 1, "-W", "1") == 100, 10, "what c begins to be dropped")
    assert caller(lab, "a", HOST_V4) == ROUTER_V4
    b.mesh("set", "--stateful-filtering=false")
    wait_until(lambda: lost_percent(lab, "c", a.ip, 1, "-W", "1") == 0, 10, "c to get through again")


LISTEN = """
import socket
server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
server.bind(("", 9999))
print("ready", flush=True)
while True:
    print(server.recvfrom(100)[1][0].removeprefix("::ffff:"), flush=True)
"""
SEND = """
import socket, sys
six = ":" in sys.argv[1]
sock = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(*(socket.IPPROTO_IPV6, 75) if six else (socket.SOL_IP, 19), 1)  # transparent
sock.bind((sys.argv[1], 0))
sock.sendto(b"hello", (sys.argv[2], 9999))
"""


def test_source_of_the_mesh_on_the_lan_is_dropped(nodes: tuple[Node, Node], lab: Lab, kind: str) -> None:
    """RT-12. What a provider does with other addresses of the range goes on working where rules can tell."""
    a, b = nodes
    own_v6 = a.mesh("ip", "-6").stdout.strip()
    server = lab.start("b", "listen.log", sys.executable, "-c", LISTEN)
    wait_until(lambda: "ready" in server.output, 5, "the listener")

    def arrives(source: str) -> bool:
        before = server.output.count(source)
        lab.run("c", sys.executable, "-c", SEND, source, ROUTER_V6 if ":" in source else ROUTER_V4)
        time.sleep(0.3)
        return server.output.count(source) > before

    try:
        assert arrives(HOST_V4)
        assert not arrives(a.ip)
        assert arrives(PROVIDER) == (kind == "nftables")
        assert arrives(own_v6) == (kind != "nftables")
        b.mesh("set", "--netfilter-mode=off")
        wait_until(lambda: not our_rules(b), 5, "the rules to go")
        assert arrives(a.ip), "nothing but our rules had dropped it"
        b.mesh("set", "--netfilter-mode=on")
        wait_until(lambda: our_rules(b), 5, "the rules to be back")
        assert not arrives(a.ip)
    finally:
        server.stop()


def test_exit_node_carries_traffic_of_a_host_with_strict_path_checks(
    nodes: tuple[Node, Node], lab: Lab, coordinator: Coordinator
) -> None:
    """RT-06, RT-12, RT-16, EX-03, EX-04, EX-09: nobody but meshd makes masquerading rules here."""
    a, b = nodes
    b.mesh("set", "--advertise-exit-node")
    wait_until(
        lambda: "0.0.0.0/0" in coordinator.command("nodes", "list", "--json"), 10, "the server to know of the offer"
    )
    coordinator.command("nodes", "approve-routes", "node-b", "--all")
    wait_until(lambda: a.peer("node-b").get("ExitNodeOption"), 10, "the offer to reach a")
    a.mesh("set", f"--exit-node={b.ip}")
    for target, seen in OUTSIDE.items():
        wait_until(lambda t=target, s=seen: caller(lab, "a", t) == s, 20, f"{target} to be reached through b")
    assert lab.run("a", "sysctl", "-n", "net.ipv4.conf.all.src_valid_mark").stdout.strip() == "1"
    assert "rp_filter" not in health(a)
    a.mesh("set", "--netfilter-mode=off")
    wait_until(lambda: "rp_filter=2 instead" in health(a), 5, "the warning, now that nothing helps")
    wait_until(
        lambda: lab.run("a", "sysctl", "-n", "net.ipv4.conf.all.src_valid_mark").stdout.strip() == "0",
        5,
        "the mark to count for nothing again",
    )
    lab.run("a", "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=2", "net.ipv4.conf.eth0.rp_filter=2")
    wait_until(lambda: "rp_filter" not in health(a), 5, "the warning to go")
    lab.run("a", "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1", "net.ipv4.conf.eth0.rp_filter=1")
    a.mesh("set", "--netfilter-mode=on")
    wait_until(lambda: caller(lab, "a", "198.51.100.1") == "192.168.12.2", 15, "the exit node again")
    a.mesh("set", "--exit-node=")
    wait_until(lambda: caller(lab, "a", "198.51.100.1") == "192.168.11.2", 15, "a to go out by itself")


def test_exit_node_without_translation_is_warned_of(nodes: tuple[Node, Node]) -> None:
    """EX-03."""
    _, b = nodes
    b.mesh("set", "--snat-subnet-routes=false")
    wait_until(lambda: "snat-subnet-routes is disabled while advertising" in health(b), 5, "the warning")
    b.mesh("set", "--snat-subnet-routes=true")
    wait_until(lambda: "snat-subnet-routes" not in health(b), 5, "the warning to go")


def test_forwarding_that_is_off_is_told_and_noticed(nodes: tuple[Node, Node], lab: Lab) -> None:
    """RT-10."""
    _, b = nodes
    assert "forwarding" not in health(b)
    lab.run("b", "sysctl", "-qw", "net.ipv4.ip_forward=0", "net.ipv6.conf.all.forwarding=0")
    wait_until(lambda: "IP forwarding is disabled" in health(b), 5, "the warning")
    url = "http://local-tailscaled.sock/localapi/v0/check-ip-forwarding"
    said = lab.run("b", "curl", "-sSf", "--unix-socket", str(b.socket), url).stdout
    assert "IP forwarding is disabled, subnet routing/exit nodes will not work." in said
    lab.run("b", "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    lab.run("b", "ip", "-6", "route", "replace", "default", "via", "2001:db8:12::1")
    wait_until(lambda: "forwarding" not in health(b), 5, "the warning to go")


def test_flushed_rules_are_put_back_and_said_once(nodes: tuple[Node, Node], lab: Lab, kind: str) -> None:
    """RT-12: what an administrator's reload of the firewall does."""
    _, b = nodes
    before = our_rules(b)
    said = b.output.count("firewall_rules_restored")
    lab.run("b", "nft", "flush", "ruleset")
    if kind == LEGACY:
        for table in ("filter", "nat", "mangle"):
            lab.run("b", LEGACY, "-t", table, "-F")
        lab.run("b", LEGACY, "-A", "OUTPUT", "-j", "ACCEPT")
        # The kernel does not tell of this kind; it does of networks, as firewalls are often reloaded with them.
        lab.run("b", "ip", "address", "add", "10.77.0.1/24", "dev", "lan0")
    wait_until(lambda: len(our_rules(b)) == len(before), 10, "the rules to be back")
    time.sleep(2.5)
    assert b.output.count("firewall_rules_restored") == said + 1


def test_rules_follow_down_and_up(nodes: tuple[Node, Node]) -> None:
    """RT-12."""
    _, b = nodes
    b.mesh("down")
    wait_until(lambda: not our_rules(b), 5, "the rules to go")
    b.mesh("up")
    wait_until(lambda: our_rules(b), 10, "the rules to be back")


def test_nodivert_makes_chains_that_nothing_leads_to(nodes: tuple[Node, Node], lab: Lab, kind: str) -> None:
    """RT-12."""
    _, b = nodes
    b.mesh("set", "--netfilter-mode=nodivert")

    def diverts() -> bool:
        if kind == "nftables":
            return "hook" in lab.run("b", "nft", "list", "table", "inet", "meshd-mesh0").stdout
        save = f"{LEGACY}-save" if kind == LEGACY else "iptables-save"
        return "-A INPUT -j meshd-" in lab.run("b", save).stdout

    wait_until(lambda: not diverts(), 5, "the hooks to go")
    assert our_rules(b)
    b.mesh("set", "--netfilter-mode=on")
    wait_until(diverts, 5, "the hooks to be back")


def test_killed_router_leaves_nothing_after_cleanup(nodes: tuple[Node, Node], lab: Lab) -> None:
    """RT-12: no rule, route or rule priority stays, and kernel settings are as they were."""
    a, b = nodes
    a.mesh("set", f"--exit-node={b.ip}", check=False)
    for node in nodes:
        assert our_rules(node)
        node.stop(signal.SIGKILL)
        assert any(trace.startswith("52") for trace in node.host_traces())
        assert our_rules(node)
        lab.run(node.host, program("meshd"), "--cleanup", f"--statedir={node.directory}", f"--socket={node.socket}")
        assert node.host_traces() == []
    assert lab.run("a", "sysctl", "-n", "net.ipv4.conf.all.src_valid_mark").stdout.strip() == "0"
    b.start()
    wait_until(lambda: our_rules(b), 15, "the rules of the next process")
    assert b.stop() == 0
    assert b.host_traces() == []


@pytest.fixture
def bare_path(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PATH with what the tests need, and no program for packet filters."""
    folder = lab.directory / "bin"
    folder.mkdir(exist_ok=True)
    for name in ("ip", "sh", "python3"):
        found = shutil.which(name)
        assert found
        if not (folder / name).exists():
            (folder / name).symlink_to(found)
    monkeypatch.setenv("PATH", str(folder))


def test_node_without_any_program_runs_and_says_what_to_install(nodes: tuple[Node, Node], bare_path: None) -> None:
    _, b = nodes
    b.start()
    try:
        wait_until(lambda: b.status()["BackendState"] == "Running", 15, "the node to run")
        wait_until(lambda: "Install nftables" in health(b), 5, "the advice")
    finally:
        b.stop()
    assert b.host_traces() == []
